package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sync/errgroup"
)

// Run works until ctx ends, or something happens that the node must not outlive, which is then the error. On the
// way out it takes no more requests, hands leadership over, finishes what is in flight, and joins all that it
// started.
func (n *Node) Run(ctx context.Context) error {
	work, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stop(nil)
	var rooms errgroup.Group
	start := func(what string, run func(context.Context) error) {
		rooms.Go(func() error {
			if err := run(work); err != nil {
				err = fmt.Errorf("%s: %w", what, err)
				stop(err)
				return err
			}
			return nil
		})
	}
	start("clock", n.clock.Run)
	start("leadership", n.watchLeadership)
	start("own clock", n.watchOwnClock)
	start("timing", n.watchTiming)
	start("membership", n.join)
	start("keyring", n.checkKeyring)
	start("keyring's provider", n.watchKeyring)
	start("ticks", n.ticks.Run)
	start("freshness", n.freshness.Run)
	start("revocation", n.revoked.Run)
	start("audit", n.trail.Run)
	start("audit failure", n.watchAudit)

	var log errgroup.Group // outlives the rooms: they propose until they are done
	proposing, stopProposing := context.WithCancel(context.WithoutCancel(ctx))
	log.Go(func() error { return n.proposer.Run(proposing) })
	var front errgroup.Group
	front.Go(func() error { return n.serve(n.server, n.cfg.RPCListener, stop) })
	var probes errgroup.Group // they answer until the end, also that the node drains
	if n.probes != nil {
		probes.Go(func() error { return n.serve(n.probes, n.cfg.ProbeListener, stop) })
	}

	halted := n.untilEnd(ctx, work)
	n.draining.Store(true)
	close(n.closing)
	if halted == nil {
		halted = n.drain(context.WithoutCancel(ctx), &front)
	}
	if halted != nil {
		n.cutOff()
	}
	stop(nil)
	ended := make(chan error, 1)
	go func() {
		err := errors.Join(front.Wait(), rooms.Wait())
		stopProposing()
		ended <- errors.Join(err, log.Wait(), n.close(), probes.Wait())
	}()
	return n.joined(halted, ended)
}

// ErrStuck says that a node could not end what it had started: what it stands on, a disk that hangs, never
// answered. The process has to end without closing its stores, which would wait for the same.
var ErrStuck = errors.New("the node could not be ended in good order: end the process")

// joined waits until all that Run started has ended. A node that halted may stand on something that never
// answers: it waits no longer than it drains.
func (n *Node) joined(halted error, ended <-chan error) error {
	if halted == nil {
		var err error
		if halted, err = n.unlessHalted(ended); halted == nil {
			return err
		}
		n.cutOff()
	}
	timer := time.NewTimer(n.cfg.Timing.Drain)
	defer timer.Stop()
	select {
	case err := <-ended:
		return errors.Join(halted, err)
	case <-timer.C:
		return errors.Join(halted, ErrStuck)
	}
}

// cutOff has nobody hear of a node that halted any more: it can be trusted neither with what is in flight nor with
// leadership, and its heartbeats would keep others from standing.
func (n *Node) cutOff() {
	_ = n.transport.Close()
	_ = n.server.Close()
}

// unlessHalted waits for what done brings, or for what halts the node.
func (n *Node) unlessHalted(done <-chan error) (halted, err error) {
	select {
	case err = <-done:
		return nil, err
	case halted = <-n.halted:
		return halted, nil
	case halted = <-n.cfg.Halted:
		return halted, nil
	}
}

// untilEnd waits for what ends the node.
func (n *Node) untilEnd(ctx, work context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-n.halted:
		return err
	case err := <-n.cfg.Halted:
		return err
	case <-work.Done():
		return nil // the room that failed has the error
	}
}

// serve answers requests until the server is shut down; by TLS where it has a config for that.
func (n *Node) serve(server *http.Server, listener net.Listener, stop context.CancelCauseFunc) error {
	var err error
	if server.TLSConfig != nil {
		err = server.ServeTLS(listener, "", "")
	} else {
		err = server.Serve(listener)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	err = fmt.Errorf("serve %s: %w", listener.Addr(), err)
	stop(err)
	return err
}

// drain hands leadership over, and finishes the requests in flight while it takes no more. It gives up where the node
// halts meanwhile, and gives the reason; what it has begun is front's to wait for.
func (n *Node) drain(ctx context.Context, front *errgroup.Group) (halted error) {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.Timing.Drain)
	defer cancel()
	finished := make(chan error, 1)
	front.Go(func() error {
		if n.raft.State() == raft.Leader && len(n.voters()) > 1 {
			if err := n.handOver(ctx, nil); err != nil {
				n.log.Warn("leadership could not be handed over; the others will elect a leader", "error", err)
			}
		}
		finished <- n.server.Shutdown(ctx)
		return nil
	})
	halted, err := n.unlessHalted(finished)
	if err != nil {
		n.log.Warn("requests in flight were cut off", "error", err)
		_ = n.server.Close()
	}
	return halted
}

// close ends Raft and what lies under it.
func (n *Node) close() error {
	err := n.raft.Shutdown().Error()
	n.peers.close()
	if n.probes != nil {
		err = errors.Join(err, n.probes.Close())
	}
	return errors.Join(err, n.transport.Close())
}
