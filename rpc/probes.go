package rpc

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// ProbeHandler serves /livez, /readyz and, where cfg has a Gatherer, /metrics by themselves, to anybody. It panics if cfg
// is not valid.
func ProbeHandler(cfg Config) http.Handler {
	if err := cfg.Validate(); err != nil {
		panic(err)
	}
	mux := http.NewServeMux()
	mountProbes(mux, cfg, access{})
	return mux
}

// mountProbes serves metrics to those alone who may see them. Whether a node is alive and ready is no secret.
func mountProbes(mux *http.ServeMux, cfg Config, who access) {
	mux.Handle("GET /livez", probe(cfg.Node.Live))
	mux.Handle("GET /readyz", probe(cfg.Node.Ready))
	if cfg.Gatherer != nil {
		gathered := promhttp.HandlerFor(cfg.Gatherer, promhttp.HandlerOpts{MaxRequestsInFlight: maxGathering})
		mux.Handle("GET "+metricsPath, who.guarded(metricsRoles, buffered{gathered, newRoom("metrics", maxScrapes)}))
	}
}

const (
	// maxGathering bounds the scrapes that metrics are gathered for at a time, maxScrapes those whose answer is on its way.
	maxGathering = 4
	maxScrapes   = 64
	// scrapeTimeout is how long an answer may take to be taken.
	scrapeTimeout = 5 * time.Second
)

// buffered answers out of memory, so that who does not read its answer does not hold up what makes others'.
type buffered struct {
	http.Handler
	room *room
}

func (h buffered) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !h.room.enter() {
		http.Error(w, "too many scrapes", http.StatusServiceUnavailable)
		return
	}
	defer h.room.leave()
	answer := answerBuffer{header: w.Header(), status: http.StatusOK}
	h.Handler.ServeHTTP(&answer, r)
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(scrapeTimeout)) // a recorder has none
	w.WriteHeader(answer.status)
	_, _ = w.Write(answer.body.Bytes())
	flush(w, r)
}

// answerBuffer is a http.ResponseWriter in memory.
type answerBuffer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *answerBuffer) Header() http.Header         { return a.header }
func (a *answerBuffer) WriteHeader(status int)      { a.status = status }
func (a *answerBuffer) Write(b []byte) (int, error) { return a.body.Write(b) }

// probe answers 200 and "ok", or 503 and one line that says why.
func probe(state func() error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		status, line := http.StatusOK, "ok"
		if err := state(); err != nil {
			status, line = http.StatusServiceUnavailable, strings.Join(strings.Fields(err.Error()), " ")
		}
		w.WriteHeader(status)
		_, _ = fmt.Fprintln(w, line)
	})
}
