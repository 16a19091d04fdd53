package main

import (
	"fmt"

	"github.com/keyquorum/keyquorum/node"
)

// timing is how far the voters are from each other.
type timing string

const (
	lan timing = "lan"
	wan timing = "wan"
)

func parseTiming(_ timing, given texts) (timing, error) {
	if t := timing(given[0]); t == lan || t == wan {
		return t, nil
	}
	return "", fmt.Errorf("%s is neither %s nor %s", quoted(given[0]), lan, wan)
}

// of gives the node's timing.
func (t timing) of() node.Timing {
	if t == wan {
		return node.WAN()
	}
	return node.LAN()
}
