package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/raft"

	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/internal/fault"
	"github.com/keyquorum/keyquorum/internal/pki"
	"github.com/keyquorum/keyquorum/node/membership"
	"github.com/keyquorum/keyquorum/node/raftnet"
	"github.com/keyquorum/keyquorum/rpc"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

func isFounded(v *fsm.View) bool { return v.Founded() }

// Init implements rpc.Node: it founds a cluster with this node as its only voter. Where it was cut short before,
// it goes on from there; where the node is in a cluster, it changes nothing.
//
// Of several nodes that are asked at the same time and see each other, one founds. Each says that it is about to
// before it asks the others whether they are in a cluster or about to found one, and does so only once nobody is: of
// any two, the one that asked later has heard of the other.
func (n *Node) Init(ctx context.Context, by rpc.Caller, req *v1.InitRequest) (*v1.InitResponse, error) {
	if err := n.takeTurn(ctx); err != nil {
		return nil, err
	}
	defer n.giveTurn()
	if view := n.fsm.View(); view.Founded() {
		return &v1.InitResponse{ClusterId: view.ClusterID(), AlreadyFounded: true}, nil
	}
	settings, err := n.foundingSettings(req.GetSettings())
	if err != nil {
		return nil, err
	}
	n.claiming.Store(true)
	defer n.claiming.Store(false)
	if err := n.alone(ctx); err != nil {
		return nil, err
	}
	if err := n.bootstrap(ctx); err != nil {
		return nil, err
	}
	if view := n.fsm.View(); view.Founded() { // by an earlier run, whose log has only now been applied
		return &v1.InitResponse{ClusterId: view.ClusterID(), AlreadyFounded: true}, nil
	}
	return n.found(ctx, by, settings, n.cfg.Certs != nil && !req.GetOmitOperatorToken())
}

// foundingSettings gives the settings of a cluster that this node founds.
func (n *Node) foundingSettings(asked *v1.Settings) (fsm.Settings, error) {
	defaults := fsm.DefaultSettings()
	least := n.cfg.Timing.staleness()
	if least > fsm.MaxStalenessLimit {
		return defaults, fault.Invalid("settings.maxStaleness", fmt.Sprintf("would have to be %v, %d times this node's heartbeat, and can be %v at most: "+
			"found the cluster at a node with a shorter heartbeat", least, heartbeats, fsm.MaxStalenessLimit))
	}
	defaults.MaxStaleness = max(defaults.MaxStaleness, least)
	settings := rpc.FoundingSettings(asked, defaults)
	if err := settings.Validate(); err != nil {
		return settings, ofSettings(err)
	}
	if settings.MaxStaleness < least {
		return settings, fault.Invalid("settings.maxStaleness", fmt.Sprintf("must be at least %v: %d times this node's heartbeat", least, heartbeats))
	}
	return settings, nil
}

// halfFounded tells whether this node began to found a cluster and has not finished.
func (n *Node) halfFounded() bool {
	servers := n.servers()
	return !n.fsm.View().Founded() && len(servers) == 1 && string(servers[0].ID) == n.cfg.ID
}

// errHalfFounded needs somebody to decide.
var errHalfFounded = fmt.Errorf("%w: %w: it began to found one: finish that, or empty its data directory",
	membership.ErrMendable, fault.ErrNotFounded)

// alone waits until nobody whom discovery can see is in a cluster or about to found one. Of two that are about to,
// the one with the lower id keeps to it.
func (n *Node) alone(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	for {
		seen := n.survey(ctx)
		if err := seen.refusal(n.cfg.ID); err != nil {
			if len(seen.clusters) > 0 && n.halfFounded() {
				err = errors.Join(err, errHalfFounded)
			}
			return err
		}
		if len(seen.founding) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return seen.blocked()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// survey is what the nodes that discovery can see say of themselves.
type survey struct {
	clusters []string          // "the node at … is in cluster …"
	silent   []string          // addresses
	founding map[string]string // addresses by id
}

func (n *Node) survey(ctx context.Context) survey {
	s := survey{founding: make(map[string]string)}
	var mu sync.Mutex
	var asked sync.WaitGroup
	for _, address := range n.cfg.Discovery.Peers() {
		asked.Go(func() {
			standing, err := n.peers.standing(ctx, address)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err != nil:
				s.silent = append(s.silent, address)
			case standing.GetClusterId() != "":
				s.clusters = append(s.clusters, fmt.Sprintf("the node at %s is in cluster %s", address, standing.GetClusterId()))
			case standing.GetFounding():
				s.founding[standing.GetNodeId()] = address
			}
		})
	}
	asked.Wait()
	return s
}

// refusal says why the node with the id founds no cluster, or nil if it does or has to ask again.
func (s survey) refusal(id string) error {
	switch {
	case len(s.clusters) > 0:
		return fmt.Errorf("%w; %s, which this node will join by itself", fault.ErrNotFounded, strings.Join(s.clusters, ", "))
	case len(s.silent) > 0:
		return fmt.Errorf("%w; whether there is a cluster already cannot be told while %s does not answer",
			fault.ErrNotFounded, strings.Join(s.silent, ", "))
	}
	for other := range s.founding {
		if other < id {
			return s.blocked()
		}
	}
	return nil
}

func (s survey) blocked() error {
	return fmt.Errorf("%w; the node at %s is founding one, or was cut short in that: finish it there",
		fault.ErrNotFounded, strings.Join(slices.Sorted(maps.Values(s.founding)), ", "))
}

// takeTurn waits for the turn to found a cluster here or to join one. Who has it gives it back with giveTurn.
func (n *Node) takeTurn(ctx context.Context) error {
	if n.turn.Acquire(ctx, 1) != nil {
		return fmt.Errorf("%w: it is busy founding or joining a cluster", fault.ErrOverloaded)
	}
	return nil
}

func (n *Node) giveTurn() { n.turn.Release(1) }

// raftAddress is this node's in Raft's configuration.
func (n *Node) raftAddress() raft.ServerAddress {
	return raftnet.Address(raft.ServerID(n.cfg.ID), raft.ServerAddress(n.cfg.RaftAddress))
}

// bootstrap makes this node the only voter and waits until it leads.
func (n *Node) bootstrap(ctx context.Context) error {
	err := n.raft.BootstrapCluster(raft.Configuration{Servers: []raft.Server{{
		ID: raft.ServerID(n.cfg.ID), Address: n.raftAddress(), Suffrage: raft.Voter,
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
func (n *Node) found(ctx context.Context, by rpc.Caller, settings fsm.Settings, withToken bool) (*v1.InitResponse, error) {
	id := uuid.NewString()
	check, err := n.cfg.Keyring.Prove(proofFound, id)
	if err != nil {
		return nil, fmt.Errorf("prove the keyring: %w", err)
	}
	found := fsm.Found{ClusterID: id, Settings: settings, KeyringCheck: check}
	var operator string
	if withToken {
		found.Operator = new(fsm.APIToken)
		*found.Operator, operator = newAPIToken("the first operator's, made with the cluster", []pki.Role{pki.Operator}, time.Time{})
	}
	_, err = n.propose(ctx, fsm.Command{Origin: originOf(by), Op: found})
	if err != nil {
		return nil, fmt.Errorf("found the cluster: %w", err)
	}
	if err := n.members.Admit(ctx, n.self, n.process); err != nil {
		return nil, err
	}
	n.log.Info("cluster founded", "cluster", id)
	return &v1.InitResponse{ClusterId: id, OperatorToken: operator}, nil
}
