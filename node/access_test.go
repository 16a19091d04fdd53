package node

import (
	"errors"
	"testing"
	"time"

	"github.com/keyquorum/keyquorum/internal/certs/certstest"
	"github.com/keyquorum/keyquorum/internal/fault"
)

// An API token that has an end is taken only where the time is known: a node that never knew it cannot tell.
func TestAnAPITokenEnds(t *testing.T) {
	end := time.UnixMilli(1_800_000_000_000)
	before, after := end.Add(-time.Millisecond), end.Add(time.Millisecond)
	for name, c := range map[string]struct {
		expires, last, log time.Time
		ever               bool
		want               error
	}{
		"no end":                                {time.Time{}, after, after, true, nil},
		"no end, and no time":                   {want: nil},
		"before":                                {end, before, before, true, nil},
		"at its end":                            {end, end, before, true, fault.ErrUnauthenticated},
		"after":                                 {end, after, before, true, fault.ErrUnauthenticated},
		"after, by the log's time":              {end, before, after, true, fault.ErrUnauthenticated},
		"no time was ever known":                {end, time.Time{}, before, false, fault.ErrTimeUnknown},
		"none was known, and the log's is past": {end, time.Time{}, after, false, fault.ErrUnauthenticated},
	} {
		if err := checkEnd(c.expires, c.last, c.ever, c.log); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// How long the certificates are good for is what an alert goes by.
func TestTheDaysLeftOfACertificateAreMeasured(t *testing.T) {
	source := certstest.Open(t, certstest.New(t).Node(t, "n1", "127.0.0.1"))
	now := source.Certificate().NotAfter.Add(-10 * 24 * time.Hour)
	n := &Node{cfg: Config{Certs: source, Wall: func() time.Time { return now }}}
	read := func() (days float64) {
		n.certificateGauge(func(name, _ string, value func() float64) {
			if name == "keyquorum_certificate_days_left" {
				days = value()
			}
		})
		return days
	}
	if days := read(); days != 10 {
		t.Errorf("%v days are left, want 10", days)
	}
	now = now.Add(11 * 24 * time.Hour)
	if days := read(); days != -1 {
		t.Errorf("a day after the end, %v are left", days)
	}
}
