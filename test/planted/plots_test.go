//go:build planted

package planted

import (
	"github.com/keyquorum/keyquorum/internal/plant"
	"github.com/keyquorum/keyquorum/test/model"
	"github.com/keyquorum/keyquorum/test/sim"
)

// plot is how a fault is brought to light. The zero value is the simulation as it is.
type plot struct {
	// options make likelier what a fault needs. The checks are the same for all.
	options sim.Options
	// rule is the one of the model's that the fault breaks, where the simulation cannot show it; why says why.
	rule model.Rule
	why  string
}

// only has nothing else go wrong than these.
func only(faults ...sim.Fault) plot { return plot{options: sim.Options{Faults: faults}} }

// plots has those of the faults that need one.
var plots = map[plant.Fault]plot{
	plant.VerifyLeader:       only(sim.Comeback),
	plant.UncommittedTick:    only(sim.Pause),
	plant.LateWaiter:         only(sim.Slow, sim.Halves, sim.Lone, sim.OneWay),
	plant.EarlyState:         only(sim.Lone, sim.Halves, sim.Pause),
	plant.StoppingClock:      only(sim.Pause),
	plant.ForgottenMember:    only(sim.Replace),
	plant.ForgetfulLeader:    only(sim.Replace),
	plant.ForgottenTicks:     only(sim.Lone, sim.Halves, sim.OneWay, sim.Pause),
	plant.IdleRevoke:         {options: sim.Options{Faults: []sim.Fault{sim.Lone, sim.Halves, sim.Pause}, Deleting: true}},
	plant.RestartedFreshness: only(sim.Crash, sim.Blackout),
	plant.OldSnapshot:        only(sim.Messages, sim.Lag, sim.Crash, sim.Lone),
	plant.CommitIndex:        only(sim.Comeback),
	plant.LostSync:           only(sim.Crash, sim.Blackout),
	plant.LeanSnapshot:       only(sim.Crash, sim.Lag),
	plant.LateHearing: {
		rule: model.CountFromArrival,
		why:  "a member would have to be away for seconds, ask once, and be away again before the answer is noted",
	},
	plant.StaleReign: {
		rule: model.ReignOfTheTerm,
		why:  "a node would have to lead, give way to one that gives a third a tick, lead again at once, and revoke before it takes up its duties, with the third away",
	},
	plant.RestoredFreshness: {
		rule: model.RestoreDropsFreshness,
		why:  "no state goes back unless an old snapshot is let through, and that alone breaks promises",
	},
}
