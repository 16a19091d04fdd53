package raftnet

import (
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/hashicorp/raft"
)

// Address says whom an address is meant for: ID@HOST:PORT. In Raft's configuration, too, where no two members may
// have the same address, although they can for a while: when they exchange theirs, say. An address that says it
// already stays as it is.
func Address(id raft.ServerID, addr raft.ServerAddress) raft.ServerAddress {
	if to, _ := recipient(addr); to != "" {
		return addr
	}
	return raft.ServerAddress(string(id) + "@" + string(addr))
}

// recipient takes such an address apart; an address without an id is all address.
func recipient(addr raft.ServerAddress) (id, hostPort string) {
	if id, hostPort, ok := strings.Cut(string(addr), "@"); ok {
		return id, hostPort
	}
	return "", string(addr)
}

// greet writes whom a connection is meant for: a length byte and the id.
func greet(c net.Conn, id string, timeout time.Duration) error {
	if len(id) > 255 {
		return fmt.Errorf("raft transport: the node id %.20q… is too long", id)
	}
	if err := c.SetWriteDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	if _, err := c.Write(append([]byte{byte(len(id))}, id...)); err != nil {
		return err
	}
	return c.SetWriteDeadline(time.Time{})
}

// readGreeting fails unless the connection is meant for the given node.
func readGreeting(r io.Reader, local string) error {
	var size [1]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return err
	}
	id := make([]byte, size[0])
	if _, err := io.ReadFull(r, id); err != nil {
		return err
	}
	if string(id) != local {
		return fmt.Errorf("raft transport: a connection for node %q reached %q", id, local)
	}
	return nil
}
