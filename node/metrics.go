package node

import (
	"time"

	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/node/auditing"
	"github.com/keyquorum/keyquorum/node/revocation"
)

// metrics counts what the node does by itself; requests are counted where they are answered.
type metrics struct {
	batches   prometheus.Histogram
	rotations prometheus.Counter
	lag       prometheus.Histogram
	deleted   prometheus.Counter
	forgotten prometheus.Counter
	rounds    *prometheus.HistogramVec
	settled   *prometheus.HistogramVec
	rewrapped prometheus.Counter
}

// newMetrics registers the node's metrics. What the node knows anyway is read when it is asked for.
func newMetrics(n *Node) *metrics {
	factory := promauto.With(n.cfg.Registry)
	gauge := func(name, help string, value func() float64) {
		factory.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
	}
	gauge("keyquorum_raft_leading", "1 while this node leads.", func() float64 { return truth(n.leading.Load()) })
	gauge("keyquorum_raft_has_leader", "1 while this node knows a leader.", func() float64 {
		_, id := n.raft.LeaderWithID()
		return truth(id != "")
	})
	gauge("keyquorum_raft_term", "Raft's current term.", func() float64 { return float64(n.raft.CurrentTerm()) })
	gauge("keyquorum_raft_commit_index", "Highest log index known to be committed.", func() float64 { return float64(n.raft.CommitIndex()) })
	gauge("keyquorum_raft_applied_index", "Highest log index applied.", func() float64 { return float64(n.raft.AppliedIndex()) })
	gauge("keyquorum_raft_last_contact_seconds", "Time since the leader was heard; 0 on the leader.", n.lastContact)
	gauge("keyquorum_voters", "Voters in Raft's configuration.", func() float64 { return float64(len(n.voters())) })
	gauge("keyquorum_users", "Users that hold keys.", func() float64 { return float64(n.fsm.View().UserCount()) })
	gauge("keyquorum_keys", "Keys held, active and retiring.", func() float64 { return float64(n.fsm.View().KeyCount()) })
	gauge("keyquorum_revision", "Revision of the state.", func() float64 { return float64(n.fsm.View().Revision()) })
	gauge("keyquorum_ready", "1 while this node is ready.", func() float64 { return truth(n.Ready() == nil) })
	gauge("keyquorum_staleness_seconds", "How old this node's state can be; -1 if nothing has been proved.", func() float64 {
		age, proved := n.freshness.Age(n.fsm.State())
		if !proved {
			return -1
		}
		return age.Seconds()
	})
	gauge("keyquorum_clock_known", "1 while this node knows the cluster's time.", func() float64 {
		_, known := n.clock.Now()
		return truth(known)
	})
	n.certificateGauge(gauge)
	n.voterGauges()
	n.keyringGauges(gauge)
	return &metrics{
		batches: factory.NewHistogram(prometheus.HistogramOpts{
			Name: "keyquorum_group_commit_commands", Help: "Commands in each log entry that this node proposed.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 10),
		}),
		rotations: factory.NewCounter(prometheus.CounterOpts{
			Name: "keyquorum_rotations_total", Help: "Keys rotated at their tokens' expiry, by this node as the leader.",
		}),
		lag: factory.NewHistogram(prometheus.HistogramOpts{
			Name: "keyquorum_rotation_lag_seconds", Help: "Time between a key's earliest token expiry and its rotation.",
			Buckets: []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 60},
		}),
		deleted: factory.NewCounter(prometheus.CounterOpts{
			Name: "keyquorum_retiring_keys_deleted_total", Help: "Retiring keys deleted, by this node as the leader.",
		}),
		rounds: factory.NewHistogramVec(prometheus.HistogramOpts{
			Name: "keyquorum_freshness_round_seconds", Help: "Time that this node's freshness rounds took, by outcome.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5},
		}, []string{"outcome"}),
		settled: factory.NewHistogramVec(prometheus.HistogramOpts{
			Name: "keyquorum_revocation_seconds", Help: "Time until revocations were final, by whether nodes had to be waited out.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"outcome"}),
		rewrapped: rewrapCounter(factory),
		forgotten: factory.NewCounter(prometheus.CounterOpts{
			Name: "keyquorum_users_forgotten_total", Help: "Users forgotten for want of a live token, by this node as the leader.",
		}),
	}
}

// certificateGauge tells of the certificates, where there are any.
func (n *Node) certificateGauge(gauge func(name, help string, value func() float64)) {
	if n.cfg.Certs == nil {
		return
	}
	gauge("keyquorum_certificate_days_left", "Days until the first of this node's certificates and its CAs' runs out.", func() float64 {
		at, _ := n.cfg.Certs.Expiry()
		return n.cfg.Wall().Sub(at).Hours() / -24
	})
}

// voterGauges tell what was measured of the voters.
func (n *Node) voterGauges() {
	n.perVoter("keyquorum_clock_offset_seconds", "How far a voter's wall clock is ahead of the cluster's time, as this node measured it.",
		func() map[string]time.Duration { return n.clock.Offsets() })
	n.perVoter("keyquorum_round_trip_seconds", "How long a question to a voter and the answer take at least, as this node measured it lately.",
		func() map[string]time.Duration { return n.clock.RoundTrips() })
}

// keyringGauges tell of the master keyring.
func (n *Node) keyringGauges(gauge func(name, help string, value func() float64)) {
	gauge("keyquorum_keys_to_rewrap", "Keys that are sealed under another master key than the primary one.",
		func() float64 { return float64(n.fsm.View().SealedElsewhere()) })
	gauge("keyquorum_keyring_provider_up", "1 while the provider of the master keyring can be asked, as far as this node knows.",
		func() float64 { return truth(!n.look.lost.Load()) })
	gauge("keyquorum_keyring_refused", "1 while the provider gives a master keyring that this node does not take on.",
		func() float64 { return truth(n.look.refused.Load()) })
}

// rewrapCounter is the leader's.
func rewrapCounter(factory promauto.Factory) prometheus.Counter {
	return factory.NewCounter(prometheus.CounterOpts{
		Name: "keyquorum_keys_rewrapped_total", Help: "Keys sealed anew under the primary master key, by this node as the leader.",
	})
}

func (m *metrics) batch(commands int) { m.batches.Observe(float64(commands)) }

func (m *metrics) expired(e fsm.Expired) {
	m.rotations.Add(float64(e.Rotated))
	for _, lag := range e.Lag {
		m.lag.Observe(lag.Seconds())
	}
	m.deleted.Add(float64(e.Deleted))
	m.forgotten.Add(float64(e.Forgotten))
}

func (m *metrics) rewrap(keys int) { m.rewrapped.Add(float64(keys)) }

func (m *metrics) round(took time.Duration, err error) {
	outcome := "fresh"
	if err != nil {
		outcome = "failed"
	}
	m.rounds.WithLabelValues(outcome).Observe(took.Seconds())
}

func (m *metrics) settle(took time.Duration, f revocation.Finality) {
	outcome := "applied"
	if f.Expired > 0 {
		outcome = "expired"
	}
	m.settled.WithLabelValues(outcome).Observe(took.Seconds())
}

func (n *Node) lastContact() float64 {
	if n.raft.State() == raft.Leader {
		return 0
	}
	last := n.raft.LastContact()
	if last.IsZero() {
		return -1
	}
	return time.Since(last).Seconds()
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// perVoter collects what was measured of the voters, whoever votes at the time.
type perVoter struct {
	node     *Node
	desc     *prometheus.Desc
	measured func() map[string]time.Duration
}

// perVoter registers a gauge of what was measured of each voter.
func (n *Node) perVoter(name, help string, measured func() map[string]time.Duration) {
	desc := prometheus.NewDesc(name, help, []string{"voter"}, nil)
	n.cfg.Registry.MustRegister(&perVoter{node: n, measured: measured, desc: desc})
}

// Describe implements prometheus.Collector.
func (p *perVoter) Describe(ch chan<- *prometheus.Desc) { ch <- p.desc }

// Collect implements prometheus.Collector.
func (p *perVoter) Collect(ch chan<- prometheus.Metric) {
	for id, value := range p.measured() {
		name := id
		if m, ok := p.node.fsm.View().Member(id); ok {
			name = m.Name
		}
		ch <- prometheus.MustNewConstMetric(p.desc, prometheus.GaugeValue, value.Seconds(), name)
	}
}

// auditMetrics registers what is told of the audit records.
func (n *Node) auditMetrics() {
	factory := promauto.With(n.cfg.Registry)
	gauge := func(name, help string, of func(auditing.Health) float64) {
		factory.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return of(n.trail.Health()) })
	}
	counter := func(name, help string, of func(auditing.Health) uint64) {
		factory.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 { return float64(of(n.trail.Health())) })
	}
	gauge("keyquorum_audit_head", "Number of the audit chain's last record, as this node has applied it.",
		func(auditing.Health) float64 { return float64(n.fsm.View().AuditHead().Sequence) })
	gauge("keyquorum_audit_stored", "Number of the last audit record in this node's files.", func(h auditing.Health) float64 { return float64(h.Head) })
	gauge("keyquorum_audit_waiting", "Audit records that wait to be written.", func(h auditing.Health) float64 { return float64(h.Waiting) })
	gauge("keyquorum_audit_missing", "Audit records that this node's files lack, and that it looks for at the others.", func(h auditing.Health) float64 { return float64(h.Missing) })
	gauge("keyquorum_audit_failing", "1 while the audit file cannot be written.", func(h auditing.Health) float64 { return truth(h.Failing) })
	counter("keyquorum_audit_written_total", "Audit records written as they came.", func(h auditing.Health) uint64 { return h.Written })
	counter("keyquorum_audit_filled_total", "Audit records got from other nodes.", func(h auditing.Health) uint64 { return h.Filled })
	counter("keyquorum_audit_dropped_total", "Audit records that came faster than they could be written.", func(h auditing.Health) uint64 { return h.Dropped })
	counter("keyquorum_audit_failures_total", "Attempts to write audit records that failed.", func(h auditing.Health) uint64 { return h.Failures })
}
