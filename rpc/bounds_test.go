package rpc_test

import (
	"context"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/keyquorum/keyquorum/rpc"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
	"github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1/keyquorumv1connect"
)

const inFlight = "keyquorum_rpc_in_flight"

// However many answers a caller asks for and does not read, a few are made and kept, and other callers are served.
func TestUnreadAnswersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, p := serveInBubble(t, 0, func(cfg *rpc.Config) { cfg.Limits = rpc.Limits{Bulk: 5, Turns: 2} })
		greedy := speakFrames(t, p.dial("stranger"))
		for range 60 {
			greedy.post(t, list, `{"pageSize":1000}`)
		}
		synctest.Wait()
		if ok, refused, data := greedy.counts(); len(s.node.requests()) != 2 || ok != 2 || refused != 55 || data != 0 {
			t.Errorf("%d answers made, %d begun, %d refused, %d bytes sent", len(s.node.requests()), ok, refused, data)
		}
		client := keyquorumv1connect.NewTokenServiceClient(over(t, p, "login", true), s.url)
		if _, err := client.Verify(t.Context(), connect.NewRequest(&v1.VerifyRequest{Token: "x"})); err != nil {
			t.Errorf("meanwhile, another caller gets %v", err)
		}
		time.Sleep(2 * rpc.DefaultMaxTimeout)
		synctest.Wait()
		if held := s.gauge(t, inFlight); held != 0 {
			t.Errorf("a minute later %v are held still", held)
		}
	})
}

// An answer that fits into net/http's own buffers counts until it has been taken, too.
func TestSmallUnreadAnswersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, p := serveInBubble(t, 0, func(cfg *rpc.Config) { cfg.Limits = rpc.Limits{Reads: 3} })
		greedy := speakFrames(t, p.dial("stranger"))
		for range 20 {
			greedy.post(t, verify, `{"token":"x"}`)
			synctest.Wait()
		}
		ok, refused, _ := greedy.counts()
		if held := s.gauge(t, inFlight); ok != 3 || refused != 17 || held != 3 {
			t.Errorf("%d answered, %d refused, %v in flight", ok, refused, held)
		}
	})
}

// A body that trickles in, or stops, is waited for 15 s, and is an answer with an id.
func TestABodyThatTricklesInIsNotWaitedForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, p := serveInBubble(t, 0, nil)
		slow := raw(t, p.dial("a"), "POST "+revoke+" HTTP/1.1\r\nHost: node\r\nContent-Type: application/json\r\nContent-Length: 40\r\n\r\n{")
		slow2 := speakFrames(t, p.dial("b"))
		slow2.begin(t, revoke)
		for range 14 {
			time.Sleep(time.Second)
			slow2.send(t, dataFrame, 0, slow2.stream, []byte(" "))
		}
		if held := s.gauge(t, inFlight); held != 2 {
			t.Errorf("%v in flight", held)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if _, refused, _ := slow2.counts(); refused != 1 {
			t.Error("over HTTP/2 there is no answer")
		}
		if got := slow(); !strings.Contains(got, "deadline_exceeded") || !strings.Contains(got, "RequestInfo") {
			t.Errorf("got %s", got)
		}
		if len(s.node.requests()) != 0 {
			t.Error("the node was asked")
		}
	})
}

// Where callers' own requests have taken all places, those of the other nodes are served, and so are probes; one more
// is told so in its own protocol.
func TestNoKindOfRequestTakesAnothersPlace(t *testing.T) {
	s := serve(t, func(cfg *rpc.Config) { cfg.Limits = rpc.Limits{Reads: 1, Writes: 1, Bulk: 1} })
	var stuck atomic.Int32
	free := make(chan struct{})
	s.node.do = func(context.Context) {
		if stuck.Add(1) <= 3 {
			<-free
		}
	}
	done := make(chan struct{}, 3)
	for procedure, body := range map[string]string{status: `{}`, rotate: `{"subject":"ada"}`, list: `{}`} {
		go func() {
			s.post(t, procedure, body)
			done <- struct{}{}
		}()
	}
	for stuck.Load() < 3 {
		s.send(t, http.MethodGet, "/livez", http.NoBody)
	}
	for name, client := range everyProtocol(t, s) {
		_, err := client.Verify(t.Context(), connect.NewRequest(&v1.VerifyRequest{Token: "x"}))
		info, ok := detailOf[*v1.RequestInfo](t, err)
		if connect.CodeOf(err) != connect.CodeUnavailable || !ok || !strings.Contains(err.Error(), "overloaded") {
			t.Errorf("%s: got %v", name, err)
		}
		s.line(t, info.GetRequestId())
	}
	for _, procedure := range []string{issue, verifyBatch} {
		if f := s.post(t, procedure, `{}`).failure(t); f.Code != "unavailable" {
			t.Errorf("%s: got %+v", procedure, f)
		}
	}
	for procedure, body := range map[string]string{
		peerClock: `{}`, forward: `{"actor":"login","source":"10.1.2.3","node":"n2","nodeId":"id-n2","revoke":{"subject":"ada"}}`,
	} {
		if got := s.post(t, procedure, body); got.status != http.StatusOK {
			t.Errorf("%s: got %d %s", procedure, got.status, got.body)
		}
	}
	for _, path := range []string{"/livez", "/readyz", "/metrics"} {
		if got := s.send(t, http.MethodGet, path, http.NoBody); got.status != http.StatusOK {
			t.Errorf("%s: got %d %s", path, got.status, got.body)
		}
	}
	if told := strings.Count(s.logs.String(), "requests are refused"); told != 3 {
		t.Errorf("the log says %d times that a kind is refused", told)
	}
	close(free)
	for range 3 {
		<-done
	}
}

// A bulk request that has no turn waits for one, and is not refused.
func TestBulkRequestsTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, p := serveInBubble(t, 0, func(cfg *rpc.Config) { cfg.Limits = rpc.Limits{Turns: 2} })
		var now, most atomic.Int32
		s.node.do = func(context.Context) {
			for n := now.Add(1); ; {
				if old := most.Load(); n <= old || most.CompareAndSwap(old, n) {
					break
				}
			}
			time.Sleep(time.Second)
			now.Add(-1)
		}
		client := keyquorumv1connect.NewTokenServiceClient(over(t, p, "gateway", true), s.url)
		ended := make(chan error)
		for range 10 {
			go func() {
				_, err := client.VerifyBatch(t.Context(), connect.NewRequest(&v1.VerifyBatchRequest{Tokens: []string{"x"}}))
				ended <- err
			}()
		}
		for range 10 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
		if most.Load() != 2 {
			t.Errorf("%d at a time", most.Load())
		}
	})
}

// Who asks for the metrics and does not read them does not keep them from who does.
func TestUnreadMetricsHoldNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, p := serveInBubble(t, 0, nil)
		greedy := speakFrames(t, p.dial("stranger"))
		for range 20 {
			greedy.get(t, "/metrics")
		}
		synctest.Wait()
		res, err := over(t, p, "prometheus", false).Get(s.url + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusOK {
			t.Errorf("meanwhile, another scrape gets %s", res.Status)
		}
	})
}

// Who asks for what does not exist, and is known to nobody, takes no place of those who verify.
func TestUnreadAnswersAboutNothingTakeNoOnesPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, p := serveInBubble(t, 0, func(cfg *rpc.Config) { cfg.Limits = rpc.Limits{Reads: 3} })
		for _, path := range []string{"/nothing", "/readyz", "/metrics"} {
			greedy := speakFrames(t, p.dial("stranger"))
			for range 20 {
				greedy.get(t, path)
				synctest.Wait()
			}
		}
		client := keyquorumv1connect.NewTokenServiceClient(over(t, p, "login", true), s.url)
		if _, err := client.Verify(t.Context(), connect.NewRequest(&v1.VerifyRequest{Token: "x"})); err != nil {
			t.Errorf("meanwhile, another caller gets %v", err)
		}
	})
}

// A probe is answered however many do not take their answers: with its status alone, if need be.
func TestProbesAreAnsweredWhileOthersReadNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, p := serveInBubble(t, 0, nil)
		ended := 0
		for range 12 {
			greedy := speakFrames(t, p.dial("stranger"))
			for range 100 {
				greedy.get(t, "/readyz")
			}
			synctest.Wait()
			ok, _, _ := greedy.counts()
			ended += ok
		}
		res, err := over(t, p, "kubelet", false).Get(s.url + "/readyz")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusOK || ended != 1200 {
			t.Errorf("a probe gets %s after %d answers", res.Status, ended)
		}
		time.Sleep(6 * time.Second)
		synctest.Wait()
	})
}
