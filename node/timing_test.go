package node

import (
	"testing"
	"time"
)

func TestATimingSuitsTheDistanceOfAMajority(t *testing.T) {
	const ms = time.Millisecond
	voters := []string{"a", "b", "c", "d", "e"}
	tests := map[string]struct {
		timing   Timing
		voters   []string
		measured map[string]time.Duration
		want     fit
	}{
		"near, lan":       {LAN(), voters, map[string]time.Duration{"b": ms, "c": ms, "d": ms, "e": ms}, fits},
		"just near, lan":  {LAN(), voters, map[string]time.Duration{"b": 50 * ms, "c": 50 * ms}, fits},
		"far, lan":        {LAN(), voters, map[string]time.Duration{"b": ms, "c": 51 * ms, "d": 80 * ms, "e": 90 * ms}, tooShort},
		"a far minority":  {LAN(), voters, map[string]time.Duration{"b": ms, "c": ms, "d": 150 * ms, "e": 250 * ms}, fits},
		"far, wan":        {WAN(), voters, map[string]time.Duration{"b": ms, "c": 80 * ms, "d": 80 * ms}, fits},
		"just far, wan":   {WAN(), voters, map[string]time.Duration{"b": 10 * ms, "c": 10 * ms}, fits},
		"near, wan":       {WAN(), voters, map[string]time.Duration{"b": ms, "c": 9 * ms, "d": 150 * ms}, tooLong},
		"too few answers": {LAN(), voters, map[string]time.Duration{"b": 150 * ms}, fits},
		"strangers":       {LAN(), voters, map[string]time.Duration{"x": 150 * ms, "y": 150 * ms, "a": 150 * ms}, fits},
		"alone":           {WAN(), []string{"a"}, nil, fits},
		"none":            {WAN(), nil, nil, fits},
		"four voters":     {LAN(), []string{"a", "b", "c", "d"}, map[string]time.Duration{"b": ms, "c": 60 * ms, "d": 70 * ms}, tooShort},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := fits
			if trip, measured := tripToMajority("a", tt.voters, tt.measured); measured {
				got = tt.timing.suits(trip)
			}
			if got != tt.want {
				t.Errorf("%v, want %v", got, tt.want)
			}
		})
	}
}
