package memnet_test

import (
	"testing"
	"time"

	"github.com/keyquorum/keyquorum/test/memnet"
)

func TestFreeze(t *testing.T) {
	inBubble(t, "what is sent to a frozen host, and by it, arrives when it thaws", func(t *testing.T, n *memnet.Net) {
		near, far := connect(t, n)
		n.Freeze("n2")
		send(t, near, "there")
		send(t, far, "back")
		time.Sleep(time.Minute)
		expectSilence(t, near)
		expectSilence(t, far)
		n.Thaw("n2")
		expect(t, far, "there")
		expect(t, near, "back")
	})
	inBubble(t, "a frozen host is reached when it thaws", func(t *testing.T, n *memnet.Net) {
		n.Freeze("n2")
		time.AfterFunc(3*time.Second, func() { n.Thaw("n2") })
		start := time.Now()
		near, far := connect(t, n)
		if took := time.Since(start); took != 3*time.Second {
			t.Errorf("dialling took %v", took)
		}
		send(t, near, "hello")
		expect(t, far, "hello")
	})
}

func TestTraffic(t *testing.T) {
	inBubble(t, "each fault counts what it does", func(t *testing.T, n *memnet.Net) {
		near, far := connect(t, n)
		send(t, near, "12345")
		n.Hold("n1", "n2")
		send(t, near, "123")
		n.HealLink("n1", "n2")
		n.Delay("n1", "n2", time.Second)
		send(t, near, "1")
		time.Sleep(2 * time.Second)
		expect(t, far, "123451231")
		n.Cut("n1", "n2")
		send(t, near, "1234")
		n.Heal()
		want := memnet.Traffic{Dropped: 4, Held: 3, Slowed: 1, Reset: 1}
		if got := n.Traffic(); got != want {
			t.Errorf("counted %+v, want %+v", got, want)
		}
		if got, want := n.SentBy("n1"), (memnet.Sent{Writes: 4, Bytes: 13}); got != want {
			t.Errorf("n1 has sent %+v, want %+v", got, want)
		}
	})
}
