package fsm

import (
	"time"

	"github.com/keyquorum/keyquorum/internal/subject"
)

// Bounds of the settings. Durations are in whole milliseconds.
const (
	// MinLifetime is the shortest that a token's lifetime can be set to: expiries count in seconds.
	MinLifetime = time.Second
	// MaxLifetime is the longest, a leap year. It bounds how long a retiring key can stay.
	MaxLifetime = 366 * 24 * time.Hour
	// MaxForgetAfter is the longest that an idle user can be set to be kept, if not for ever.
	MaxForgetAfter = 10 * MaxLifetime
	// MaxRetiringLimit is the most retiring keys that users can be allowed.
	MaxRetiringLimit = 1024
	// MaxWantedVoters is the most voters a cluster can be set to grow to: each commit waits for a majority.
	MaxWantedVoters = 9
	// MinStaleness and MaxStalenessLimit bound Settings.MaxStaleness: it takes a few round trips to be fresh at all, and a
	// revocation in a partition waits for a quarter longer than it.
	MinStaleness      = time.Second
	MaxStalenessLimit = 20 * time.Second
)

// Validate tells the first fault, as a *Refusal whose field is named as in the JSON of requests; nil if the
// settings can be a cluster's.
func (s Settings) Validate() error {
	if r := s.check(); r != nil {
		return r
	}
	return nil
}

func (s *Settings) check() *Refusal {
	if s.Mode != Overlap && s.Mode != Strict {
		return invalid("mode", "must be OVERLAP or STRICT")
	}
	if s.ForgetAfter != 0 {
		if r := checkDuration("forgetAfter", s.ForgetAfter, MaxForgetAfter); r != nil {
			return r
		}
	}
	if err := subject.Check(s.Issuer); err != nil {
		return invalid("issuer", "%v", err)
	}
	if r := s.checkLifetimes(); r != nil {
		return r
	}
	if s.MaxRetiring < 1 || s.MaxRetiring > MaxRetiringLimit {
		return invalid("maxRetiringKeys", "must be from 1 to %d", MaxRetiringLimit)
	}
	if s.WantedVoters < 1 || s.WantedVoters > MaxWantedVoters || s.WantedVoters%2 == 0 {
		return invalid("wantedVoters", "must be odd, from 1 to %d", MaxWantedVoters)
	}
	if r := checkText("leaderRegion", s.LeaderRegion, false); r != nil {
		return r
	}
	return s.checkStaleness()
}

func (s *Settings) checkStaleness() *Refusal {
	const field = "maxStaleness"
	if s.MaxStaleness < MinStaleness || s.MaxStaleness > MaxStalenessLimit {
		return invalid(field, "must be from %s to %s", inSeconds(MinStaleness), inSeconds(MaxStalenessLimit))
	}
	return checkDuration(field, s.MaxStaleness, MaxStalenessLimit)
}

func (s *Settings) checkLifetimes() *Refusal {
	if r := checkDuration("minTtl", s.MinTTL, MaxLifetime); r != nil {
		return r
	}
	if r := checkDuration("maxTtl", s.MaxTTL, MaxLifetime); r != nil {
		return r
	}
	if s.MinTTL > s.MaxTTL {
		return invalid("maxTtl", "must not be below minTtl, which is %s", inSeconds(s.MinTTL))
	}
	if s.DefaultTTL < s.MinTTL || s.DefaultTTL > s.MaxTTL {
		return invalid("defaultTtl", "must be from minTtl to maxTtl, %s to %s", inSeconds(s.MinTTL), inSeconds(s.MaxTTL))
	}
	return checkDuration("defaultTtl", s.DefaultTTL, MaxLifetime)
}

// checkDuration bounds what is set as a duration; none of them means anything below a second.
func checkDuration(field string, d, most time.Duration) *Refusal {
	if d < MinLifetime || d > most {
		return invalid(field, "must be from %s to %s", inSeconds(MinLifetime), inSeconds(most))
	}
	if d%time.Millisecond != 0 {
		return invalid(field, "must be in whole milliseconds")
	}
	return nil
}

// With gives the settings with the present fields of op in place of their own. They are not checked.
func (s Settings) With(op UpdateSettings) Settings {
	set(&s.Mode, op.Mode)
	set(&s.ForgetAfter, op.ForgetAfter)
	set(&s.Issuer, op.Issuer)
	set(&s.MinTTL, op.MinTTL)
	set(&s.DefaultTTL, op.DefaultTTL)
	set(&s.MaxTTL, op.MaxTTL)
	set(&s.MaxRetiring, op.MaxRetiring)
	set(&s.WantedVoters, op.WantedVoters)
	set(&s.LeaderRegion, op.LeaderRegion)
	set(&s.AuditIssued, op.AuditIssued)
	return s
}

func set[T any](field *T, to *T) {
	if to != nil {
		*field = *to
	}
}

// updateSettings changes what holds from now on; keys that are there keep the tokens they have.
func (d *draft) updateSettings(op UpdateSettings, r *Result) *Refusal {
	next := d.settings.With(op)
	if refusal := next.check(); refusal != nil {
		return refusal
	}
	d.auditSettings(d.settings, next)
	d.settings = next
	r.Settings = next
	return nil
}
