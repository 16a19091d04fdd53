package node

import (
	"errors"
	"testing"
	"time"

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
