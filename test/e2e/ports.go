//go:build unix

package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
)

// The ports are below those that systems give to outgoing connections, so that nobody takes one by chance while its
// node is down.
const (
	firstPort = 10_000
	portCount = 20_000
)

var ports struct {
	mu    sync.Mutex
	given map[int]bool
}

// FreeAddress gives a HOST:PORT at which nobody listens, by TCP or UDP, and gives each port once.
func FreeAddress(host string) string {
	ports.mu.Lock()
	defer ports.mu.Unlock()
	if ports.given == nil {
		ports.given = make(map[int]bool)
	}
	for {
		port := firstPort + rand.IntN(portCount)
		address := net.JoinHostPort(host, fmt.Sprint(port))
		if !ports.given[port] && free(address) {
			ports.given[port] = true
			return address
		}
	}
}

func free(address string) bool {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return false
	}
	p, err := net.ListenPacket("udp", address)
	if err != nil {
		return errors.Join(err, l.Close()) == nil
	}
	return errors.Join(l.Close(), p.Close()) == nil
}
