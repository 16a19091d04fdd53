package boltstore

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics has how long durable writes take. The count of each operation is the disk's rate of commits.
type metrics struct {
	registerer prometheus.Registerer
	write      *prometheus.HistogramVec
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		registerer: r,
		write: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "keyquorum_store_write_seconds",
			Help:    "How long a durable write to the Raft store took, its fsync included, by operation.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 2, 18), // 0.1 ms to 13 s
		}, []string{"operation"}),
	}
	if r == nil {
		return m, nil
	}
	return m, r.Register(m.write)
}

func (m *metrics) observe(op operation, start time.Time) {
	m.write.WithLabelValues(string(op)).Observe(time.Since(start).Seconds())
}

// close takes the metrics back, so that the store can be opened again in the same process.
func (m *metrics) close() error {
	if m.registerer != nil && !m.registerer.Unregister(m.write) {
		return errors.New("boltstore: the metrics were not registered")
	}
	return nil
}
