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

const livePath, readyPath = "/livez", "/readyz"

// isProbe tells of a request whether mountProbes serves it.
func isProbe(cfg Config, r *http.Request) bool {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return false
	}
	path := r.URL.EscapedPath() // as the mux goes by
	return path == livePath || path == readyPath || path == metricsPath && cfg.Gatherer != nil
}

// mountProbes serves metrics to those alone who may see them. Whether a node is alive and ready is no secret.
func mountProbes(mux *http.ServeMux, cfg Config, who access) {
	lines := newRoom("probe", maxRefusals)
	mux.Handle("GET "+livePath, probe(cfg.Node.Live, lines))
	mux.Handle("GET "+readyPath, probe(cfg.Node.Ready, lines))
	if cfg.Gatherer != nil {
		gathered := promhttp.HandlerFor(cfg.Gatherer, promhttp.HandlerOpts{MaxRequestsInFlight: maxGathering})
		mux.Handle("GET "+metricsPath, who.guarded(metricsRoles, lines, buffered{gathered, newRoom("metrics", maxScrapes)}))
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
func probe(state func() error, lines *room) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		status, line := http.StatusOK, "ok"
		if err := state(); err != nil {
			status, line = http.StatusServiceUnavailable, strings.Join(strings.Fields(err.Error()), " ")
		}
		tell(w, r, lines, status, line)
	})
}

// tell answers with one line. While there are many who do not take theirs, it answers with the status alone, which waits for
// nobody: it takes nothing of what a caller lets a connection carry (RFC 9113, 5.2.1).
func tell(w http.ResponseWriter, r *http.Request, lines *room, status int, line string) {
	if !lines.enter() {
		w.WriteHeader(status)
		return
	}
	defer lines.leave()
	answerSoon(w)
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = fmt.Fprintln(w, line) //nolint:gosec // G705: it is plain text, and says so
	flush(w, r)
}
