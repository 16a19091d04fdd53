package bench

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// quantile gives the q-th of what was measured, which is sorted by it.
func quantile(took []time.Duration, q float64) time.Duration {
	slices.Sort(took)
	return took[min(len(took)-1, int(q*float64(len(took))))]
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// fsyncs is how many times a second the disk under the benchmark's folder makes a page durable, for one who waits for
// each. It takes a good half second.
func fsyncs(b *testing.B) float64 {
	b.Helper()
	f, err := os.Create(filepath.Join(b.TempDir(), "page"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	page := make([]byte, 4096)
	start, n := time.Now(), 0
	for time.Since(start) < 500*time.Millisecond {
		if _, err := f.WriteAt(page, 0); err != nil {
			b.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			b.Fatal(err)
		}
		n++
	}
	return float64(n) / time.Since(start).Seconds()
}

// counter reads a counter, or a histogram's sum and count.
func (s *seat) counter(b *testing.B, name string) (sum, count float64) {
	b.Helper()
	families, err := s.registry.Gather()
	if err != nil {
		b.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			sum += m.GetCounter().GetValue() + m.GetHistogram().GetSampleSum()
			count += float64(m.GetHistogram().GetSampleCount())
		}
	}
	return sum, count
}
