package gossip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// metaVersion grows only when older nodes must not read what newer ones tell. Whatever else is new goes
// behind the fields that are there, where older nodes do not look.
const metaVersion = 1

// meta is what a node tells about itself: a version byte, then each field's length (uvarint) and its bytes.
type meta struct {
	RPCAddress  string // HOST:PORT, or empty
	Name        string
	RaftAddress string // HOST:PORT, or empty
}

func (m meta) encode() []byte {
	buf := []byte{metaVersion}
	for _, field := range []string{m.RPCAddress, m.Name, m.RaftAddress} {
		buf = binary.AppendUvarint(buf, uint64(len(field)))
		buf = append(buf, field...)
	}
	return buf
}

var errMetaDamaged = errors.New("damaged")

// decodeMeta reads what another node told. Its errors are for a log: such a node is simply not proposed.
func decodeMeta(buf []byte) (meta, error) {
	if len(buf) == 0 {
		return meta{}, errors.New("empty")
	}
	if buf[0] != metaVersion {
		return meta{}, fmt.Errorf("of version %d, this node reads %d", buf[0], metaVersion)
	}
	var m meta
	rest := buf[1:]
	for _, field := range []*string{&m.RPCAddress, &m.Name, &m.RaftAddress} {
		n, size := binary.Uvarint(rest)
		if size <= 0 || n > uint64(len(rest)-size) {
			return meta{}, errMetaDamaged
		}
		*field = string(rest[size : size+int(n)])
		rest = rest[size+int(n):]
	}
	if !utf8.ValidString(m.Name) || strings.ContainsFunc(m.Name, unicode.IsControl) {
		return meta{}, errMetaDamaged
	}
	for _, addr := range []string{m.RPCAddress, m.RaftAddress} {
		if addr == "" {
			continue
		}
		if err := checkAddress(addr); err != nil {
			return meta{}, err
		}
	}
	return m, nil
}

// checkAddress wants an address that others can connect to.
func checkAddress(addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("must be HOST:PORT: %w", err)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("port %q must be a number from 1 to 65535", port)
	}
	odd := func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`/?#@\"'`, r) }
	if host == "" || strings.ContainsFunc(host, odd) {
		return fmt.Errorf("%q is no host that others can reach", host)
	}
	return nil
}

// self is what memberlist asks this node for: its metadata, and nothing else.
type self struct{ told meta }

// NodeMeta returns the metadata to send with the node's address.
func (s *self) NodeMeta(limit int) []byte {
	if buf := s.told.encode(); len(buf) <= limit {
		return buf
	}
	return nil
}

// NotifyMsg drops messages: Keyquorum sends none by gossip.
func (s *self) NotifyMsg([]byte) {}

// GetBroadcasts has nothing to send.
func (s *self) GetBroadcasts(int, int) [][]byte { return nil }

// LocalState has nothing to send.
func (s *self) LocalState(bool) []byte { return nil }

// MergeRemoteState drops what came.
func (s *self) MergeRemoteState([]byte, bool) {}
