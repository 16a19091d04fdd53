package model

// Rule is the name of one rule of the protocol. docs/PROTOCOL.md has a section for each.
type Rule string

// The rules of a freshness round.
const (
	TickAfterQuestion   Rule = "tick-after-question"
	AnswerAfterCommit   Rule = "answer-after-commit"
	AnswerAfterApplied  Rule = "answer-after-leader-applied"
	AskerIsMember       Rule = "asker-is-member"
	MemberAsOfTick      Rule = "member-as-of-tick"
	PositionApplied     Rule = "position-applied"
	NotedBeforeQuestion Rule = "noted-before-question"
	JoinLaterRounds     Rule = "join-later-rounds"
	TickNotBelief       Rule = "tick-not-belief"
	TickNotContact      Rule = "tick-not-contact"
	StateNotRaft        Rule = "state-not-raft"
)

// The rules of a verification and of the state that it reads.
const (
	AgeEachTime           Rule = "age-each-time"
	AgeCountsPauses       Rule = "age-counts-pauses"
	ClockAfterRequest     Rule = "clock-after-request"
	StateAfterFreshness   Rule = "state-after-freshness"
	FreshnessOfObject     Rule = "freshness-of-object"
	RevisionBeforeKey     Rule = "revision-before-key"
	KeyPublishedFirst     Rule = "key-published-first"
	RestartDropsFreshness Rule = "restart-drops-freshness"
	RestoreDropsFreshness Rule = "restore-drops-freshness"
	RestoreDropsRounds    Rule = "restore-drops-rounds"
	OldSnapshotsRefused   Rule = "old-snapshots-refused"
	FutureTakesARound     Rule = "future-takes-a-round"
	NoRoundNoVerdict      Rule = "no-round-no-verdict"
	LinearizableTakesOne  Rule = "linearizable-takes-a-round"
)

// The rules of a revocation and of who has to have heard of it.
const (
	WaitForAll            Rule = "wait-for-all"
	NonVotersHold         Rule = "non-voters-hold"
	FormerMembersHold     Rule = "former-members-hold"
	FormerFromApplication Rule = "former-from-application"
	NewLeaderCountsFormer Rule = "new-leader-counts-former"
	StartCountsFormer     Rule = "start-counts-former"
	RestoreCountsFormer   Rule = "restore-counts-former"
	ForgetAfterWindow     Rule = "forget-after-window"
	QuarterLonger         Rule = "quarter-longer"
	StrictlyLonger        Rule = "strictly-longer"
	CountFromArrival      Rule = "count-from-arrival"
	CountFromLeading      Rule = "count-from-leading"
	ReignOfTheTerm        Rule = "reign-of-the-term"
	HoldersOfTheEntry     Rule = "holders-of-the-entry"
	FallenIsUnknown       Rule = "fallen-leader-is-unknown"
	RetryCommitsAgain     Rule = "retry-commits-again"
)

// Rules lists every rule.
func Rules() []Rule {
	return []Rule{
		TickAfterQuestion, AnswerAfterCommit, AnswerAfterApplied, AskerIsMember, MemberAsOfTick, PositionApplied,
		NotedBeforeQuestion, JoinLaterRounds, TickNotBelief, TickNotContact, StateNotRaft,
		AgeEachTime, AgeCountsPauses, ClockAfterRequest, StateAfterFreshness, FreshnessOfObject, RevisionBeforeKey,
		KeyPublishedFirst, RestartDropsFreshness, RestoreDropsFreshness, RestoreDropsRounds, OldSnapshotsRefused,
		FutureTakesARound, NoRoundNoVerdict, LinearizableTakesOne,
		WaitForAll, NonVotersHold, FormerMembersHold, FormerFromApplication, NewLeaderCountsFormer, StartCountsFormer,
		RestoreCountsFormer, ForgetAfterWindow, QuarterLonger, StrictlyLonger, CountFromArrival, CountFromLeading,
		ReignOfTheTerm, HoldersOfTheEntry, FallenIsUnknown, RetryCommitsAgain,
	}
}

// flags are the rules that are switched off, looked at millions of times: hence not a map.
type flags struct {
	tickAfterQuestion, answerAfterCommit, answerAfterApplied, askerIsMember, memberAsOfTick, positionApplied,
	notedBeforeQuestion, joinLaterRounds, tickNotBelief, tickNotContact, stateNotRaft,
	ageEachTime, ageCountsPauses, clockAfterRequest, stateAfterFreshness, freshnessOfObject, revisionBeforeKey,
	keyPublishedFirst, restartDropsFreshness, restoreDropsFreshness, restoreDropsRounds, oldSnapshotsRefused,
	futureTakesARound, noRoundNoVerdict, linearizableTakesOne,
	waitForAll, nonVotersHold, formerMembersHold, formerFromApplication, newLeaderCountsFormer, startCountsFormer,
	restoreCountsFormer, forgetAfterWindow, quarterLonger, strictlyLonger, countFromArrival, countFromLeading,
	reignOfTheTerm, holdersOfTheEntry, fallenIsUnknown, retryCommitsAgain bool
}

func without(rules []Rule) (off flags) {
	for _, r := range rules {
		*off.of(r) = true
	}
	return off
}

func (f *flags) of(r Rule) *bool {
	if at := f.ofRound(r); at != nil {
		return at
	}
	if at := f.ofVerification(r); at != nil {
		return at
	}
	if at := f.ofRevocation(r); at != nil {
		return at
	}
	panic("model: there is no rule " + string(r))
}

func (f *flags) ofRound(r Rule) *bool {
	return map[Rule]*bool{
		TickAfterQuestion: &f.tickAfterQuestion, AnswerAfterCommit: &f.answerAfterCommit,
		AnswerAfterApplied: &f.answerAfterApplied, AskerIsMember: &f.askerIsMember, MemberAsOfTick: &f.memberAsOfTick,
		PositionApplied: &f.positionApplied, NotedBeforeQuestion: &f.notedBeforeQuestion,
		JoinLaterRounds: &f.joinLaterRounds, TickNotBelief: &f.tickNotBelief, TickNotContact: &f.tickNotContact,
		StateNotRaft: &f.stateNotRaft,
	}[r]
}

func (f *flags) ofVerification(r Rule) *bool {
	return map[Rule]*bool{
		AgeEachTime: &f.ageEachTime, AgeCountsPauses: &f.ageCountsPauses, ClockAfterRequest: &f.clockAfterRequest,
		StateAfterFreshness: &f.stateAfterFreshness, FreshnessOfObject: &f.freshnessOfObject,
		RevisionBeforeKey: &f.revisionBeforeKey, KeyPublishedFirst: &f.keyPublishedFirst,
		RestartDropsFreshness: &f.restartDropsFreshness, RestoreDropsFreshness: &f.restoreDropsFreshness,
		RestoreDropsRounds: &f.restoreDropsRounds, OldSnapshotsRefused: &f.oldSnapshotsRefused,
		FutureTakesARound: &f.futureTakesARound, NoRoundNoVerdict: &f.noRoundNoVerdict,
		LinearizableTakesOne: &f.linearizableTakesOne,
	}[r]
}

func (f *flags) ofRevocation(r Rule) *bool {
	return map[Rule]*bool{
		WaitForAll: &f.waitForAll, NonVotersHold: &f.nonVotersHold, FormerMembersHold: &f.formerMembersHold,
		FormerFromApplication: &f.formerFromApplication, NewLeaderCountsFormer: &f.newLeaderCountsFormer,
		ForgetAfterWindow: &f.forgetAfterWindow, QuarterLonger: &f.quarterLonger, StrictlyLonger: &f.strictlyLonger,
		CountFromArrival: &f.countFromArrival, CountFromLeading: &f.countFromLeading,
		StartCountsFormer: &f.startCountsFormer, RestoreCountsFormer: &f.restoreCountsFormer,
		ReignOfTheTerm: &f.reignOfTheTerm, HoldersOfTheEntry: &f.holdersOfTheEntry, FallenIsUnknown: &f.fallenIsUnknown,
		RetryCommitsAgain: &f.retryCommitsAgain,
	}[r]
}
