package seal

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
)

// format is the version of the keyring's text that this build writes, and the highest that it reads.
const format = 1

// MaxText bounds the stored form of a keyring, in bytes; one of MaxKeys keys has some 10 KiB.
const MaxText = 64 << 10

// text is a keyring as it is stored: JSON with exactly these members, each once.
type text struct {
	Format    int             `json:"format"`
	Keyset    json.RawMessage `json:"keyset"`
	GossipKey []byte          `json:"gossipKey"`
}

// newText makes a keyring in its stored form.
func newText() ([]byte, error) {
	handle, err := newMasterKey()
	if err != nil {
		return nil, err
	}
	gossip := make([]byte, GossipKeySize)
	defer clear(gossip)
	fill(gossip)
	return encode(handle, gossip)
}

func encode(handle *keyset.Handle, gossip []byte) ([]byte, error) {
	var open bytes.Buffer
	defer func() { clear(open.Bytes()) }()
	if err := insecurecleartextkeyset.Write(handle, keyset.NewJSONWriter(&open)); err != nil {
		return nil, fmt.Errorf("writing the keyset: %w", err)
	}
	b, err := json.MarshalIndent(text{format, open.Bytes(), gossip}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("writing the keyring: %w", err)
	}
	return append(b, '\n'), nil
}

// decode reads a keyring's stored form. Its errors are worded to follow the keyring's name and never hold a part
// of the content.
func decode(b []byte) (*Keyring, error) {
	handle, gossip, err := decodeText(b)
	if err != nil {
		return nil, err
	}
	k, err := newKeyring(handle, gossip)
	if err != nil {
		return nil, fmt.Errorf("cannot be used: %w", err)
	}
	return k, nil
}

// change gives the stored form b with another keyset. What do makes of it is checked as it will be when it is read.
func change(b []byte, do func(*keyset.Manager) error) ([]byte, error) {
	handle, gossip, err := decodeText(b)
	if err != nil {
		return nil, err
	}
	defer clear(gossip[:])
	manager := keyset.NewManagerFromHandle(handle)
	if err := do(manager); err != nil {
		return nil, err
	}
	if handle, err = manager.Handle(); err != nil {
		return nil, fmt.Errorf("changing the keyset: %w", err)
	}
	if _, err := newKeyring(handle, gossip); err != nil {
		return nil, fmt.Errorf("cannot be changed so: %w", err)
	}
	return encode(handle, gossip[:])
}

func decodeText(b []byte) (*keyset.Handle, *[GossipKeySize]byte, error) {
	if len(b) > MaxText {
		return nil, nil, fmt.Errorf("is larger than %d bytes", MaxText)
	}
	members, err := splitObject(b)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		for _, value := range members {
			clear(value)
		}
	}()
	if err := checkFormat(members); err != nil {
		return nil, nil, err
	}
	for name := range members {
		switch name {
		case "format", "keyset", "gossipKey":
		default:
			return nil, nil, errors.New(`has a member that is not "format", "keyset" or "gossipKey"`)
		}
	}
	gossip, err := decodeGossipKey(members["gossipKey"])
	if err != nil {
		return nil, nil, err
	}
	handle, err := insecurecleartextkeyset.Read(keyset.NewJSONReader(bytes.NewReader(members["keyset"])))
	if err != nil {
		return nil, nil, errors.New(`is damaged: its "keyset" is missing or no Tink keyset`)
	}
	return handle, gossip, nil
}

// checkFormat comes before all else, as a newer format may look in any way.
func checkFormat(members map[string]json.RawMessage) error {
	var version int
	if json.Unmarshal(members["format"], &version) != nil || version < 1 {
		return errors.New(`is damaged: its "format" is missing or no version number`)
	}
	if version > format {
		return fmt.Errorf("has format %d, and this build reads up to %d: use a newer keyquorum", version, format)
	}
	return nil
}

func decodeGossipKey(raw json.RawMessage) (*[GossipKeySize]byte, error) {
	bad := fmt.Errorf(`is damaged: its "gossipKey" is missing or not %d bytes of base64`, GossipKeySize)
	var s string
	if json.Unmarshal(raw, &s) != nil || len(s) != base64.StdEncoding.EncodedLen(GossipKeySize) {
		return nil, bad
	}
	key, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil || len(key) != GossipKeySize {
		return nil, bad
	}
	return (*[GossipKeySize]byte)(key), nil
}

// splitObject gives the members of the one JSON object that b holds; encoding/json alone would let a name pass
// that is there twice or in another case.
func splitObject(b []byte) (map[string]json.RawMessage, error) {
	dec := json.NewDecoder(bytes.NewReader(b))
	damaged := func() error {
		return fmt.Errorf("is damaged: no keyring's JSON at byte %d", dec.InputOffset())
	}
	if tok, err := dec.Token(); err != nil || tok != json.Delim('{') {
		return nil, damaged()
	}
	members := make(map[string]json.RawMessage)
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return nil, damaged()
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, damaged()
		}
		if _, twice := members[name.(string)]; twice {
			return nil, errors.New("is damaged: it has a member twice")
		}
		members[name.(string)] = value
	}
	if _, err := dec.Token(); err != nil {
		return nil, damaged()
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, damaged()
	}
	return members, nil
}
