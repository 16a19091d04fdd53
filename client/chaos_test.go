package client_test

import (
	"io"
	"net/http"
	"testing"
	"time"
)

// In all of these, no caller may notice anything but time.

func TestNoVerificationFailsWhileANodeIsKilled(t *testing.T) {
	sail(t, 3, func(t *testing.T, f *fleet) {
		stop := f.load(f.client())
		rest(5 * time.Second)
		f.nodes[1].kill()
		rest(20 * time.Second)
		f.forgetCounts()
		f.nodes[1].start()
		rest(40 * time.Second)
		if calls := stop(); calls < 32*3*60 {
			t.Errorf("the callers got to %d verifications in 65 s", calls)
		}
		if f.nodes[1].took() == 0 {
			t.Error("the node that came back was not asked again")
		}
	})
}

func TestNoVerificationFailsWhileANodeHangs(t *testing.T) {
	sail(t, 3, func(t *testing.T, f *fleet) {
		stop := f.load(f.client())
		rest(5 * time.Second)
		f.nodes[0].hang()
		rest(10 * time.Second)
		f.forgetCounts()
		f.nodes[0].resume()
		rest(60 * time.Second)
		stop()
		if f.nodes[0].took() == 0 {
			t.Error("the node that came back was not asked again")
		}
	})
}

func TestASlowNodeIsAskedLess(t *testing.T) {
	sail(t, 3, func(t *testing.T, f *fleet) {
		stop := f.load(f.client())
		rest(5 * time.Second)
		f.net.Delay("app", "n1", 150*time.Millisecond)
		rest(2 * time.Second)
		f.forgetCounts()
		rest(20 * time.Second)
		calls := stop()
		if slow, quick := f.nodes[0].took(), f.nodes[1].took(); slow*10 > quick {
			t.Errorf("of %d calls the slow node was asked %d, a quick one %d times", calls, slow, quick)
		}
	})
}

func TestNoVerificationFailsWhileAllNodesAreRestartedInTurn(t *testing.T) {
	sail(t, 3, func(_ *testing.T, f *fleet) {
		stop := f.load(f.client())
		for range 3 {
			for _, n := range f.nodes {
				rest(3 * time.Second)
				n.kill()
				rest(3 * time.Second)
				n.start()
			}
		}
		stop()
	})
}

func TestNoVerificationFailsWhileAllAddressesChangeButOne(t *testing.T) {
	sail(t, 3, func(t *testing.T, f *fleet) {
		c := f.clientOf(f.nodes[:1]) // and that one goes too
		stop := f.load(c)
		rest(10 * time.Second)
		f.enlist(f.nodes[2], f.launch("n4"), f.launch("n5"))
		f.nodes[0].kill()
		f.nodes[1].kill()
		rest(20 * time.Second)
		f.forgetCounts()
		rest(5 * time.Second)
		f.nodes[2].kill()
		rest(5 * time.Second)
		stop()
		if f.nodes[3].took() == 0 || f.nodes[4].took() == 0 {
			t.Errorf("the new nodes are not asked; the client knows %v", c.Addresses())
		}
	})
}

// Something else has the address of a node that is gone, and answers there.
func TestNoVerificationFailsWhereAStrangerAnswers(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"nothing there": http.NotFound,
		"a login":       func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) },
		"a page":        func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>") },
		"nothing said":  func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Type", "application/proto") },
	} {
		t.Run(name, func(t *testing.T) {
			sail(t, 3, func(t *testing.T, f *fleet) {
				f.nodes[0].kill()
				l, err := f.net.Listen(f.nodes[0].address())
				if err != nil {
					t.Fatal(err)
				}
				s := &http.Server{Handler: answer}
				go s.Serve(l)
				defer s.Close()
				stop := f.load(f.client())
				rest(5 * time.Second)
				stop()
			})
		})
	}
}
