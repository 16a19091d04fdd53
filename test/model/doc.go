// Package model is the protocol of freshness and revocation as a small explicit-state model, which is explored
// exhaustively within bounds.
//
// Tests of the product see the runs that happen to come up. What breaks such a protocol is a leader that does not know
// that it was deposed, a machine that was paused between two reads, a snapshot that comes late: few steps in just the
// wrong order. Here each of them is a step, every order is gone through, the shortest runs first, and the promises P2, P3
// and P4 are held against each. Every rule of the protocol can be switched off by its name, and then a broken promise has
// to be found: that shows that the rule is needed, and that the model would see it missing.
//
// Raft's own safety is assumed: there is one log, and only the newest leader commits to it. docs/PROTOCOL.md explains the
// protocol rule by rule, by the same names.
package model
