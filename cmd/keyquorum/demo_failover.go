package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

// killLeader is the sixth chapter: a leader dies, and the work goes on.
func (d *demo) killLeader(ctx context.Context) error {
	d.chapter("The leader is killed")
	victim, err := d.leader(ctx)
	if err != nil {
		return err
	}
	died := time.Now()
	victim.plug.Pull()
	d.nodes = slices.DeleteFunc(d.nodes, func(n *demoNode) bool { return n == victim })
	defer func() { d.nodes = append(d.nodes, victim) }()
	d.say("%s is gone, from one moment to the next. The others have to find out and elect.", victim.name)
	verified, issued, err := d.workOn(ctx)
	if err != nil {
		return err
	}
	d.fact("issuing", "works again after %s", rounded(issued.Sub(died)))
	d.fact("verifying", "never stopped: %d of %d verifications at the survivors gave the right verdict meanwhile", verified, verified)
	leader, err := d.leader(ctx)
	if err != nil {
		return err
	}
	d.fact("leader", "%s, by vote of the two that are left", leader.name)
	if err := d.everywhere(ctx, "ada's new token", d.ada.GetToken(), v1.VerifyResponse_NONE); err != nil {
		return err
	}
	return d.everywhere(ctx, "bob's token, from before", d.bob.GetToken(), v1.VerifyResponse_NONE)
}

// workOn verifies at the survivors until one of them can issue again.
func (d *demo) workOn(ctx context.Context) (verified int, issued time.Time, err error) {
	for {
		for _, n := range d.nodes {
			res, err := n.client.Verify(ctx, &v1.VerifyRequest{Token: d.bob.GetToken()})
			if err != nil {
				return 0, issued, fmt.Errorf("verify at %s without a leader: %w", n.name, err)
			}
			if !res.GetValid() {
				return 0, issued, fmt.Errorf("%s called bob's token invalid: %s", n.name, res.GetReason())
			}
			verified++
		}
		attempt, cancel := context.WithTimeout(ctx, 250*time.Millisecond)
		res, err := d.issue(attempt, d.nodes[0], "ada", time.Hour)
		cancel()
		if err == nil {
			d.ada = res
			return verified, time.Now(), nil
		}
		if ctx.Err() != nil {
			return 0, issued, fmt.Errorf("no new leader took over: %w", err)
		}
	}
}

// comeBack is the last chapter: the killed node returns to what it kept, and learns what it missed.
func (d *demo) comeBack(ctx context.Context) error {
	d.chapter("The killed node comes back")
	victim := d.nodes[len(d.nodes)-1]
	if err := victim.end(); err != nil {
		return fmt.Errorf("clear away %s: %w", victim.name, err)
	}
	var seeds []string
	for _, n := range d.nodes[:len(d.nodes)-1] {
		seeds = append(seeds, n.member.GossipAddress)
	}
	started := time.Now()
	back, err := d.launch(victim.name, seeds)
	if err != nil {
		return err
	}
	d.nodes[len(d.nodes)-1] = back
	if err := awaitReady(ctx, back.member.RPCAddress); err != nil {
		return err
	}
	res, err := back.client.Verify(ctx, &v1.VerifyRequest{Token: d.ada.GetToken()})
	if err != nil {
		return fmt.Errorf("verify at %s: %w", back.name, err)
	}
	if !res.GetValid() {
		return errors.New(back.name + " came back and does not know what it missed")
	}
	d.fact(back.name, "read its log from disk, caught up, and verifies the token that was made without it: %s after its start", since(started))
	return nil
}
