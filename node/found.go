package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/raft"

	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/internal/fault"
	"github.com/keyquorum/keyquorum/rpc"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

// What the proofs that holders of the keyring give each other are for.
const (
	proofFound = "cluster" // in the state: bound to the cluster's id
	proofJoin  = "join"    // from a node that asks to be admitted: bound to its id and addresses
	proofAdmit = "admit"   // from the one that admitted it: bound to that one's id
	proofLeave = "leave"   // from a member that leaves: bound to its id
)

func isFounded(v *fsm.View) bool { return v.Founded() }

// Init implements rpc.Node: it founds a cluster with this node as its only voter. Where it was cut short before,
// it goes on from there; where the node is in a cluster, it changes nothing.
func (n *Node) Init(ctx context.Context, by rpc.Caller, req *v1.InitRequest) (*v1.InitResponse, error) {
	n.founding.Lock()
	defer n.founding.Unlock()
	if view := n.fsm.View(); view.Founded() {
		return &v1.InitResponse{ClusterId: view.ClusterID(), AlreadyFounded: true}, nil
	}
	settings := fsm.DefaultSettings().With(rpc.SettingsChange(req.GetSettings()))
	if err := settings.Validate(); err != nil {
		return nil, err
	}
	if err := n.alone(ctx); err != nil {
		return nil, err
	}
	if err := n.bootstrap(ctx); err != nil {
		return nil, err
	}
	if view := n.fsm.View(); view.Founded() { // by an earlier run, whose log has only now been applied
		return &v1.InitResponse{ClusterId: view.ClusterID(), AlreadyFounded: true}, nil
	}
	return n.found(ctx, by, settings)
}

// alone refuses to found a second cluster beside one that discovery can see.
func (n *Node) alone(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	var mu sync.Mutex
	var clusters []error
	var silent []string
	var asked sync.WaitGroup
	for _, address := range n.cfg.Discovery.Peers() {
		asked.Go(func() {
			status, err := n.peers.status(ctx, address)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err != nil:
				silent = append(silent, address)
			case status.GetClusterId() != "":
				clusters = append(clusters, fmt.Errorf("the node at %s is in cluster %s, which this node will join", address, status.GetClusterId()))
			}
		})
	}
	asked.Wait()
	if len(clusters) > 0 {
		return fault.Invalid("settings", errors.Join(clusters...).Error())
	}
	if len(silent) > 0 {
		return fmt.Errorf("%w; whether there is a cluster already cannot be told while %s does not answer",
			fault.ErrNotFounded, strings.Join(silent, ", "))
	}
	return nil
}

// bootstrap makes this node the only voter and waits until it leads.
func (n *Node) bootstrap(ctx context.Context) error {
	err := n.raft.BootstrapCluster(raft.Configuration{Servers: []raft.Server{{
		ID: raft.ServerID(n.cfg.ID), Address: raft.ServerAddress(n.cfg.RaftAddress), Suffrage: raft.Voter,
	}}}).Error()
	if err != nil && !errors.Is(err, raft.ErrCantBootstrap) {
		return fmt.Errorf("bootstrap raft: %w", err)
	}
	n.clock.Kick() // there is a voter to measure now
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for !n.leading.Load() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: this node did not win the founding election in time", fault.ErrNoLeader)
		case <-poll.C:
		}
	}
	return nil
}

// found records the founding, and the founder.
func (n *Node) found(ctx context.Context, by rpc.Caller, settings fsm.Settings) (*v1.InitResponse, error) {
	id := uuid.NewString()
	check, err := n.cfg.Keyring.Prove(proofFound, id)
	if err != nil {
		return nil, fmt.Errorf("prove the keyring: %w", err)
	}
	_, err = n.proposer.Propose(ctx, fsm.Command{Origin: originOf(by), Op: fsm.Found{
		ClusterID: id, Settings: settings, KeyringCheck: check,
	}})
	if err != nil {
		return nil, fmt.Errorf("found the cluster: %w", err)
	}
	if err := n.members.Admit(ctx, n.self, true); err != nil {
		return nil, err
	}
	n.log.Info("cluster founded", "cluster", id)
	return &v1.InitResponse{ClusterId: id}, nil
}
