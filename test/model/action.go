package model

import (
	"fmt"
	"strconv"
	"strings"
)

// kind is what can happen.
type kind uint8

const (
	timePasses kind = iota
	timePassesAsleep
	commits
	applies
	publishesKey
	publishesRevision
	publishesRest
	elected
	electedWithout
	restarts
	restored
	isAsked
	asks
	proposesTick
	answers
	answersEarly
	answersKnown
	refuses
	takesOldTick
	hearsLeader
	reaches
	becomesFresh
	proposesIssue
	issueReturns
	proposesRevoke
	revokeFindsNothing
	revokeSettles
	revokeRunsOut
	adds
	removes
	forgets
	verificationSteps
	seesFuture
	refusesStale
	getsNoRound
	accepts
	callsInvalid
)

// Action is one step of a run.
type Action struct {
	kind             kind
	node, other, pos uint8
	some             set
}

// words are what an Action says: %node is its node, %other the other node, %pos the position.
var words = map[kind]string{
	timePasses:         "time passes: half of S by a slow clock",
	timePassesAsleep:   "time passes while %node is paused",
	commits:            "entry %pos is committed",
	applies:            "%node applies entry %pos",
	publishesKey:       "%node applies entry %pos: the key is published, the revision not yet",
	publishesRevision:  "%node applies entry %pos: the revision is published, the key not yet",
	publishesRest:      "%node publishes the rest of entry %pos",
	elected:            "%node is elected; the leader before does not know",
	electedWithout:     "%node is elected, and what was not committed is lost; the leader before does not know",
	restarts:           "%node restarts, with its state at position %pos",
	restored:           "%node has its state replaced by that of position %pos",
	isAsked:            "the question of %node arrives at %other",
	asks:               "%node notes its clock and asks %other for a tick",
	answers:            "%node answers %other with position %pos",
	answersEarly:       "%node, deposed, answers %other with position %pos, where it has just put a tick that nobody commits",
	answersKnown:       "%node answers %other with position %pos, the last that it knows committed",
	refuses:            "%node is told that it is no member",
	takesOldTick:       "%node is given the tick that was proposed before, at position %pos",
	hearsLeader:        "%node hears a heartbeat, and takes its state for fresh",
	reaches:            "%node sees that it has come to position %pos",
	becomesFresh:       "%node is fresh through the time that it noted",
	proposesIssue:      "Issue: %node proposes entry %pos",
	issueReturns:       "the Issue returns its token",
	proposesRevoke:     "Revoke: %node proposes entry %pos",
	revokeFindsNothing: "Revoke, sent again, finds nothing to do at %node and returns",
	revokeSettles:      "the Revoke at %node returns: those who are waited for have it",
	revokeRunsOut:      "the Revoke at %node returns: its time has run out",
	adds:               "%node is added by entry %pos",
	removes:            "%node is removed by entry %pos",
	forgets:            "%node is forgotten as a former member by entry %pos",
	seesFuture:         "the verification at %node sees a token from the future, and waits for a round",
	refusesStale:       "the verification at %node is refused: the state is stale",
	getsNoRound:        "the verification at %node gets no round, and says that it cannot tell",
	accepts:            "the verification at %node reads the rest, and accepts the token",
	callsInvalid:       "the verification at %node reads the rest, and calls the token invalid",
}

var stepWords = map[uint8]string{
	arrives:       "a verification arrives at %s",
	loads:         "the verification at %s loads the state object",
	readsClock:    "the verification at %s reads the clock",
	checks:        "the verification at %s finds the state fresh",
	readsRevision: "the verification at %s reads the revision",
	readsKey:      "the verification at %s reads the key",
}

// String says in plain words what happened.
func (a Action) String() string {
	switch a.kind {
	case verificationSteps:
		return fmt.Sprintf(stepWords[a.pos], name(a.node))
	case proposesTick:
		return fmt.Sprintf("%s proposes a tick at position %d for %s", name(a.node), a.pos, a.some)
	default:
		return strings.NewReplacer("%node", name(a.node), "%other", name(a.other), "%pos", strconv.Itoa(int(a.pos))).
			Replace(words[a.kind])
	}
}

func name(n uint8) string { return string(rune('A' + n)) }

// String lists the names.
func (s set) String() string {
	var names []string
	for n := range uint8(maxNodes) {
		if s.has(n) {
			names = append(names, name(n))
		}
	}
	return strings.Join(names, " and ")
}
