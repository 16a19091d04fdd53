package rpc

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// ProbeHandler serves /livez, /readyz and, where cfg has a Gatherer, /metrics by themselves. It panics if cfg is not
// valid.
func ProbeHandler(cfg Config) http.Handler {
	if err := cfg.Validate(); err != nil {
		panic(err)
	}
	mux := http.NewServeMux()
	mountProbes(mux, cfg)
	return mux
}

func mountProbes(mux *http.ServeMux, cfg Config) {
	mux.Handle("GET /livez", probe(cfg.Node.Live))
	mux.Handle("GET /readyz", probe(cfg.Node.Ready))
	if cfg.Gatherer != nil {
		mux.Handle("GET /metrics", promhttp.HandlerFor(cfg.Gatherer, promhttp.HandlerOpts{MaxRequestsInFlight: 4}))
	}
}

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
