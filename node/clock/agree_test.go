package clock_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/keyquorum/keyquorum/node/clock"
)

var (
	epoch = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	rules = clock.Rules{MaxAge: clock.DefaultMaxAge, Agreement: clock.DefaultAgreement}
	year  = 365 * 24 * time.Hour
)

// readAt is a sample taken at now that is off the true time by offset. The true time is epoch + now.
func readAt(now time.Duration, voter string, offset, err time.Duration) clock.Sample {
	return clock.Sample{Voter: voter, Wall: epoch.Add(now + offset), Mono: now, Err: err, Seen: now}
}

func TestAgree(t *testing.T) {
	const now = time.Hour
	const ms = time.Millisecond
	read := func(voter string, offset time.Duration) clock.Sample { return readAt(now, voter, offset, 0) }
	aged := func(age time.Duration, voter string, offset time.Duration) clock.Sample {
		return readAt(now-age, voter, offset, 0)
	}
	tests := map[string]struct {
		voters  []string
		samples []clock.Sample
		known   bool
		offset  time.Duration // of the estimate
		group   []string
	}{
		"no voters":     {},
		"one voter":     {[]string{"a"}, []clock.Sample{read("a", 0)}, true, 0, []string{"a"}},
		"none measured": {[]string{"a"}, nil, false, 0, nil},
		"three alike": {
			[]string{"a", "b", "c"},
			[]clock.Sample{read("a", 0), read("b", 10*ms), read("c", 20*ms)},
			true, 10 * ms,
			[]string{"a", "b", "c"},
		},
		"one a year ahead": {
			[]string{"a", "b", "c"},
			[]clock.Sample{read("a", year), read("b", 0), read("c", 10*ms)},
			true, 5 * ms,
			[]string{"b", "c"},
		},
		"one in another age": {
			[]string{"a", "b", "c"},
			[]clock.Sample{read("a", -1000*year), read("b", 0), read("c", 0)},
			true, 0,
			[]string{"b", "c"},
		},
		"own clock in another age": {
			[]string{"a", "b", "c"},
			[]clock.Sample{read("b", -280*year), read("c", 280*year), read("a", 0)},
			false, 0, nil,
		},
		"half is no majority": {
			[]string{"a", "b", "c", "d"},
			[]clock.Sample{read("a", 0), read("b", 0), read("c", year), read("d", year)},
			false, 0, nil,
		},
		"just close enough": {
			[]string{"a", "b"},
			[]clock.Sample{read("a", 0), read("b", 500*ms)},
			true, 250 * ms,
			[]string{"a", "b"},
		},
		"just too far": {[]string{"a", "b"}, []clock.Sample{read("a", 0), read("b", 501*ms)}, false, 0, nil},
		"errors count": {
			[]string{"a", "b"},
			[]clock.Sample{read("a", 0), readAt(now, "b", 450*ms, 51*ms)},
			false, 0, nil,
		},
		"most voters win": {
			[]string{"a", "b", "c", "d", "e"},
			[]clock.Sample{read("a", 0), read("b", 0), read("c", 0), read("d", 400*ms), read("e", -600*ms)},
			true, 200 * ms,
			[]string{"a", "b", "c", "d"},
		},
		"closest of equals wins": {
			[]string{"a", "b", "c"},
			[]clock.Sample{read("a", 0), read("b", 400*ms), read("c", 700*ms)},
			true, 550 * ms,
			[]string{"b", "c"},
		},
		"earliest of equals wins": {
			[]string{"a", "b", "c"},
			[]clock.Sample{read("c", 0), read("b", 400*ms), read("a", 800*ms)},
			true, 200 * ms,
			[]string{"b", "c"},
		},
		"strangers do not count":          {[]string{"a", "b"}, []clock.Sample{read("a", 0), read("x", 0), read("y", 0)}, false, 0, nil},
		"a voter named twice counts once": {[]string{"b", "a", "b"}, []clock.Sample{read("a", 0), read("a", 0)}, false, 0, nil},
		"old samples do not count": {
			[]string{"a", "b"},
			[]clock.Sample{read("a", 0), aged(10*time.Second+1, "b", 0)},
			false, 0, nil,
		},
		"samples of ten seconds count": {
			[]string{"a", "b"},
			[]clock.Sample{read("a", 0), aged(10*time.Second, "b", 0)},
			true, 0,
			[]string{"a", "b"},
		},
		"a vague sample does not count": {[]string{"a"}, []clock.Sample{readAt(now, "a", 0, 251*ms)}, false, 0, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			est, known := clock.Agree(tt.samples, tt.voters, now, rules)
			if known != tt.known {
				t.Fatalf("known = %v, want %v", known, tt.known)
			}
			if !known {
				return
			}
			if got := est.Base.Sub(epoch); got != tt.offset {
				t.Errorf("estimate is off by %v, want %v", got, tt.offset)
			}
			if !slices.Equal(est.Group, tt.group) {
				t.Errorf("group = %v, want %v", est.Group, tt.group)
			}
		})
	}
}

func TestAgreeVouchesAsLongAsAMajorityIsYoung(t *testing.T) {
	samples := []clock.Sample{
		readAt(1*time.Second, "a", 0, 0), readAt(4*time.Second, "b", 0, 0), readAt(6*time.Second, "c", 0, 0),
	}
	est, known := clock.Agree(samples, []string{"a", "b", "c"}, 7*time.Second, rules)
	if want := 14 * time.Second; !known || est.Until != want {
		t.Fatalf("known %v until %v, want until %v, when only c is left", known, est.Until, want)
	}
}

// cluster is a drawn set of measurements, of which an honest majority is close to the true time.
type cluster struct {
	voters       []string
	honest, lies []clock.Sample
	now          time.Duration
}

func voterNames(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("v%d", i)
	}
	return names
}

// drawCluster draws clocks and errors of measurement. Honest clocks are within half of Agreement of the true
// time; if close, they also agree for certain in spite of the errors.
func drawCluster(t *rapid.T, closely bool) cluster {
	n := rapid.IntRange(1, 9).Draw(t, "voters")
	c := cluster{voters: voterNames(n), now: time.Hour}
	liars := rapid.IntRange(0, (n-1)/2).Draw(t, "liars")
	half := int64(rules.Agreement / 2)
	for i, voter := range rapid.Permutation(c.voters).Draw(t, "order") {
		if i < liars {
			c.lies = append(c.lies, drawLie(t, voter, c.now))
			continue
		}
		worst := half
		if closely {
			worst = half / 2
		}
		err := rapid.Int64Range(0, worst).Draw(t, "err")
		room := half
		if closely {
			room = half - 2*err
		}
		clockOff := rapid.Int64Range(-room, room).Draw(t, "clock")
		path := rapid.Int64Range(-err, err).Draw(t, "path")
		c.honest = append(c.honest, readAt(c.now, voter, time.Duration(clockOff+path), time.Duration(err)))
	}
	return c
}

func drawLie(t *rapid.T, voter string, now time.Duration) clock.Sample {
	near := rapid.Int64Range(-int64(2*time.Second), int64(2*time.Second))
	far := rapid.Int64Range(-int64(100*year), int64(100*year))
	offset := time.Duration(rapid.OneOf(near, far).Draw(t, "lie"))
	return readAt(now, voter, offset, time.Duration(rapid.Int64Range(0, int64(time.Second)).Draw(t, "lie's err")))
}

func checkWithinBound(t *rapid.T, est clock.Estimate) {
	if off := est.Base.Sub(epoch).Abs(); off > rules.Agreement {
		t.Fatalf("estimate is off by %v, more than %v", off, rules.Agreement)
	}
}

func TestAnHonestMajorityGivesTheTime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := drawCluster(t, true)
		est, known := clock.Agree(slices.Concat(c.lies, c.honest), c.voters, c.now, rules)
		if !known {
			t.Fatal("an honest majority that agrees was not heard")
		}
		checkWithinBound(t, est)
	})
}

func TestNoErrorOfMeasurementBreaksTheBound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := drawCluster(t, false)
		if est, known := clock.Agree(slices.Concat(c.honest, c.lies), c.voters, c.now, rules); known {
			checkWithinBound(t, est)
		}
	})
}

func TestOneLiarMoreOrLessChangesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := drawCluster(t, true)
		for i := range c.lies {
			fewer := slices.Delete(slices.Clone(c.lies), i, i+1)
			est, known := clock.Agree(slices.Concat(c.honest, fewer), c.voters, c.now, rules)
			if !known {
				t.Fatal("a liar's silence made the time unknown")
			}
			checkWithinBound(t, est)
		}
	})
}

func TestOrderDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := drawCluster(t, false)
		samples := slices.Concat(c.honest, c.lies)
		a, knownA := clock.Agree(samples, c.voters, c.now, rules)
		b, knownB := clock.Agree(rapid.Permutation(samples).Draw(t, "samples"),
			rapid.Permutation(c.voters).Draw(t, "names"), c.now, rules)
		if knownA != knownB || !a.Base.Equal(b.Base) || a.Until != b.Until || !slices.Equal(a.Group, b.Group) {
			t.Fatalf("%+v %v and %+v %v", a, knownA, b, knownB)
		}
	})
}

// Any two nodes that know the time know it within the bound of each other's honest voters: their groups meet.
func TestTwoGroupsAlwaysShareAVoter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		voters := voterNames(rapid.IntRange(1, 9).Draw(t, "voters"))
		draw := func() []clock.Sample {
			var out []clock.Sample
			for _, v := range voters {
				out = append(out, drawLie(t, v, time.Hour))
			}
			return out
		}
		a, knownA := clock.Agree(draw(), voters, time.Hour, rules)
		b, knownB := clock.Agree(draw(), voters, time.Hour, rules)
		meets := slices.ContainsFunc(a.Group, func(v string) bool { return slices.Contains(b.Group, v) })
		if knownA && knownB && !meets {
			t.Fatalf("groups %v and %v of %v have nobody in common", a.Group, b.Group, voters)
		}
	})
}
