package rpc

import (
	"errors"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"

	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

// metrics of the requests. What a verification touches is looked up beforehand, so that it costs a few atomic
// additions.
type metrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	verdict  *prometheus.CounterVec
	inFlight prometheus.Gauge
	panics   prometheus.Counter

	procedures map[string]*procedureMetrics
	reasons    map[v1.VerifyResponse_Reason]prometheus.Counter
}

// procedureMetrics are one procedure's.
type procedureMetrics struct {
	ok      prometheus.Counter
	seconds prometheus.Observer
	codes   *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		requests: register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "keyquorum_rpc_requests_total",
			Help: "Requests answered, by procedure and code; \"undecoded\" are those that broke the protocol itself.",
		}, []string{"procedure", "code"})),
		duration: register(reg, prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "keyquorum_rpc_duration_seconds",
			Help:    "Time from a decoded request to its answer.",
			Buckets: []float64{.00005, .0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10, 30},
		}, []string{"procedure"})),
		verdict: register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "keyquorum_verdicts_total",
			Help: "Tokens judged, by reason; NONE are the valid ones.",
		}, []string{"reason"})),
		inFlight: register(reg, prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "keyquorum_rpc_in_flight",
			Help: "Requests that are here, from their first byte until their answer is on the connection.",
		})),
		panics: register(reg, prometheus.NewCounter(prometheus.CounterOpts{
			Name: "keyquorum_rpc_panics_total",
			Help: "Requests that ended in a panic of the node's.",
		})),
	}
	m.lookUp()
	return m
}

// lookUp makes the series that every node has, so that they are there, at zero, from the start.
func (m *metrics) lookUp() {
	m.procedures = make(map[string]*procedureMetrics)
	for _, p := range procedures() {
		codes := m.requests.MustCurryWith(prometheus.Labels{"procedure": p})
		m.procedures[p] = &procedureMetrics{
			ok: codes.WithLabelValues("ok"), seconds: m.duration.WithLabelValues(p), codes: codes,
		}
	}
	m.reasons = make(map[v1.VerifyResponse_Reason]prometheus.Counter)
	for number, name := range v1.VerifyResponse_Reason_name {
		m.reasons[v1.VerifyResponse_Reason(number)] = m.verdict.WithLabelValues(name)
	}
}

// register gives the collector that stands for c: the one that is there already where two handlers share reg.
func register[C prometheus.Collector](reg prometheus.Registerer, c C) C {
	if reg == nil {
		return c
	}
	err := reg.Register(c)
	if there, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
		if same, ok := there.ExistingCollector.(C); ok {
			return same
		}
	}
	if err != nil {
		panic(err) // two different metrics under one name: a mistake in the program
	}
	return c
}

func (m *metrics) of(spec connect.Spec) *procedureMetrics { return m.procedures[spec.Procedure] }

func (p *procedureMetrics) done(took time.Duration) {
	p.ok.Inc()
	p.seconds.Observe(took.Seconds())
}

func (p *procedureMetrics) failed(code connect.Code, took time.Duration) {
	p.codes.WithLabelValues(code.String()).Inc()
	p.seconds.Observe(took.Seconds())
}

// verdicts counts the verdicts in a response. It gives the reason, for the log, of a single invalid token.
func (m *metrics) verdicts(res any) (reason string) {
	switch res := res.(type) {
	case *v1.VerifyResponse:
		m.count(res)
		if !res.GetValid() {
			reason = res.GetReason().String()
		}
	case *v1.VerifyBatchResponse:
		for _, verdict := range res.GetVerdicts() {
			m.count(verdict)
		}
	}
	return reason
}

func (m *metrics) count(verdict *v1.VerifyResponse) {
	if counter := m.reasons[verdict.GetReason()]; counter != nil {
		counter.Inc()
	}
}
