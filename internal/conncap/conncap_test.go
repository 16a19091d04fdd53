package conncap_test

import (
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyquorum/keyquorum/internal/conncap"
)

// pair is a connection, and the stranger's end of it.
func pair(t *testing.T) (*conncap.Conn, net.Conn) {
	t.Helper()
	here, there := net.Pipe()
	t.Cleanup(func() { here.Close(); there.Close() })
	return conncap.Wrap(here), there
}

func isClosed(c net.Conn) bool {
	_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
	_, err := c.Read(make([]byte, 1))
	return errors.Is(err, io.EOF)
}

// say has the stranger say something, which this side reads.
func say(t *testing.T, c *conncap.Conn, there net.Conn) {
	t.Helper()
	go func() { _, _ = there.Write([]byte("x")) }()
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
}

func TestTheLongestSilentMakesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		told := 0
		set := conncap.New(2, func(net.Addr) { told++ })
		first, firstThere := pair(t)
		second, secondThere := pair(t)
		first.Enter(set)
		time.Sleep(time.Second)
		second.Enter(set)
		time.Sleep(time.Second)
		say(t, first, firstThere)
		third, thirdThere := pair(t)
		third.Enter(set)
		if !isClosed(secondThere) || isClosed(firstThere) || isClosed(thirdThere) {
			t.Error("another than the one that was silent for the longest went")
		}
		if set.Len() != 2 || told != 1 {
			t.Errorf("%d are left, told %d times", set.Len(), told)
		}
	})
}

func TestAPlaceIsFreedByCloseAndByEnteringAnother(t *testing.T) {
	waiting, inside := conncap.New(1, nil), conncap.New(1, nil)
	c, _ := pair(t)
	c.Enter(waiting)
	c.Enter(inside)
	if waiting.Len() != 0 || inside.Len() != 1 {
		t.Errorf("%d wait and %d are inside", waiting.Len(), inside.Len())
	}
	c.Close()
	c.Close()
	if inside.Len() != 0 {
		t.Errorf("%d are inside after it was closed", inside.Len())
	}
}
