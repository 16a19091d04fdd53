package rpc_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Past the bound, the connection that has been idle longest makes room. One that has a request does not, over HTTP/2
// neither.
func TestTheLongestIdleConnectionMakesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, p := serveInBubble(t, 4, nil)
		busy := speakFrames(t, p.dial("a"))
		busy.post(t, verify, `{"token":"x"}`) // whose answer it does not read
		silent := speakFrames(t, p.dial("b"))
		time.Sleep(time.Second)
		kept, older := speakFrames(t, p.dial("c")), speakFrames(t, p.dial("d"))
		time.Sleep(time.Second)
		kept.post(t, verify, `{"token":"x"}`)
		kept.send(t, windowUpdate, 0, 1, []byte{0, 0, 255, 255}) // it does read the answer
		synctest.Wait()
		fifth := speakFrames(t, p.dial("e"))
		synctest.Wait()
		if !silent.isGone() || busy.isGone() || kept.isGone() || older.isGone() || fifth.isGone() {
			t.Errorf("of five, %v %v %v %v %v are gone", busy.isGone(), silent.isGone(), kept.isGone(), older.isGone(), fifth.isGone())
		}
		sixth := speakFrames(t, p.dial("f"))
		synctest.Wait()
		if !older.isGone() || kept.isGone() || sixth.isGone() {
			t.Error("it was not the one that had been idle longest")
		}
		if told := strings.Count(s.logs.String(), "connections are turned away"); told != 1 {
			t.Errorf("the log says so %d times", told)
		}
	})
}

// Where none is idle, a new connection is closed at once, and there is room again once one has gone.
func TestNoConnectionInUseIsClosedForANewOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, p := serveInBubble(t, 2, nil)
		one, two := speakFrames(t, p.dial("a")), speakFrames(t, p.dial("b"))
		one.post(t, verify, `{"token":"x"}`)
		two.post(t, verify, `{"token":"x"}`)
		synctest.Wait()
		refused := raw(t, p.dial("c"), "")
		synctest.Wait()
		if one.isGone() || two.isGone() {
			t.Error("a connection in use was closed")
		}
		_ = one.Close()
		synctest.Wait()
		if got := raw(t, p.dial("d"), "GET /livez HTTP/1.1\r\nHost: node\r\n\r\n"); refused() != "" || !wait(got, "200 OK") {
			t.Errorf("got %q, and with room again %q", refused(), got())
		}
	})
}

func wait(got func() string, want string) bool {
	synctest.Wait()
	return strings.Contains(got(), want)
}

// Whoever has connections from one place, busy or not, leaves some to the others.
func TestOneAddressDoesNotHaveAllConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, p := serveInBubble(t, 4, nil)
		for range 3 {
			speakFrames(t, p.dial("stranger")).post(t, verify, `{"token":"x"}`)
		}
		synctest.Wait()
		probe := raw(t, p.dial("probe"), "GET /livez HTTP/1.1\r\nHost: node\r\n\r\n")
		if !wait(probe, "200 OK") {
			t.Errorf("the probe got %q", probe())
		}
		c := p.dial("stranger")
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("it has a fourth: %v", err)
		}
	})
}

// What net/http has to say goes to the log: what callers do wrong quietly, a fault of the node's loudly.
func TestTheServersOwnWordsAreLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, p := serveInBubble(t, 0, nil)
		f := speakFrames(t, p.dial("a"))
		f.send(t, goAwayFrame, 0, 0, []byte{0, 0, 0, 0, 0, 0, 0, 1})
		synctest.Wait()
		if log := s.logs.String(); !strings.Contains(log, `"level":"DEBUG","msg":"http2: received GOAWAY`) {
			t.Errorf("the log has %s", log)
		}
	})
	faulty := &server{logs: new(lockedBuffer)}
	faulty.listen(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("odd") }))
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, faulty.url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if res, err := faulty.http.Do(req); err == nil {
		_ = res.Body.Close()
		t.Errorf("it answered %s", res.Status)
	}
	if !strings.Contains(faulty.logs.String(), `"level":"ERROR","msg":"http: panic serving`) {
		t.Errorf("the log has %s", faulty.logs)
	}
}
