package raftnet

import "errors"

// errSeated answers a leader that wants to hand over to a node that does not stand.
var errSeated = errors.New("this node does not stand for leader")

// Stand lets this node stand for leader, as it does from the start, or keeps it from that: it asks nobody for a
// pre-vote, and takes no leadership that is handed to it. It goes on to vote and to follow, and lets go of a leader
// that it no longer hears as quickly as ever, so that the others can elect another. The only voter of a cluster asks
// nobody in any case, and leads.
func (t *Transport) Stand(yes bool) { t.seated.Store(!yes) }
