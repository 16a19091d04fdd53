package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/internal/fault"
	"github.com/keyquorum/keyquorum/internal/seal"
	"github.com/keyquorum/keyquorum/internal/secret"
	"github.com/keyquorum/keyquorum/node/masterkey"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

// keyring is the node's master keyring. It seals under the master key that the state says, so that a node seals nothing
// that another one cannot open.
type keyring struct {
	ring *seal.Keyring
	view func() *fsm.View
}

// primary gives the master key to seal under; before there is a cluster, the one that a cluster would be founded with.
func (k *keyring) primary() uint32 {
	if id := k.view().PrimaryMasterKey(); id != 0 {
		return id
	}
	return k.ring.Primary()
}

func (k *keyring) NewKey(subject string) (random uint64, sealed []byte, err error) {
	return k.ring.NewKeyUnder(k.primary(), subject)
}

func (k *keyring) Open(subject string, random uint64, sealed []byte) (*secret.Key, error) {
	return k.ring.Open(subject, random, sealed)
}

// ProveUnder proves that this node holds the keyring, to a node that asked for a proof under the master key with the id;
// with another one if this node lacks that, or was asked for none.
func (k *keyring) ProveUnder(id uint32, purpose, text string) ([]byte, error) {
	if !k.ring.Has(id) {
		id = k.primary()
	}
	if !k.ring.Has(id) {
		id = k.ring.Primary()
	}
	return k.ring.ProveUnder(id, purpose, text)
}

func (k *keyring) CheckProof(purpose, text string, proof []byte) error {
	return k.ring.CheckProof(purpose, text, proof)
}

// missing says which master key the state needs and this node lacks, or gives nil.
func (k *keyring) missing(v *fsm.View) error {
	if !v.Founded() {
		return nil
	}
	for _, m := range v.MasterKeys() {
		needed := m.State == fsm.MasterKeyPrimary || m.Keys > 0
		if needed && !k.ring.Has(m.ID) {
			return fmt.Errorf("%w: it lacks master key %d, under which %d of the users' keys are sealed", fault.ErrKeyring, m.ID, m.Keys)
		}
	}
	return nil
}

// check tells whether this is the keyring of the cluster that the state is of.
func (k *keyring) check(v *fsm.View) error {
	return errors.Join(k.CheckProof(proofFound, v.ClusterID(), v.KeyringCheck()), k.missing(v))
}

// keeps tells whether the node is not to lose a master key that it holds: it told the others that it holds it, and they
// may seal under it at any time, until the state says that nobody ever will.
func (n *Node) keeps(id uint32) bool {
	state, known := n.fsm.View().MasterKeyState(id)
	return !known || state != fsm.MasterKeyRetired
}

// checkKeyring ends a node that turns out not to hold the cluster's keyring. A node that was away can have a state from
// before a master key was retired that it has not been given any more: what counts is the state that it catches up with.
func (n *Node) checkKeyring(ctx context.Context) error {
	if len(n.servers()) == 0 {
		n.log.Info("this node is in no cluster yet: it waits for one to be founded, or for the others to take it in")
	}
	view, err := n.fsm.Wait(ctx, isFounded)
	if err != nil {
		return nil //nolint:nilerr // the node ends before it belongs to a cluster
	}
	n.clock.Kick() // there will be voters to measure
	n.log.Info("this node is in a cluster", "cluster", view.ClusterID(), "revision", view.Revision())
	first := n.keyring.check(view)
	if first == nil {
		return nil
	}
	n.log.Warn("this node's keyring does not go with its state as it was left; whether it goes with the cluster's shows once this node has caught up",
		"error", first)
	for ctx.Err() == nil {
		if err := n.freshness.Round(ctx, false); err == nil {
			return n.keyring.check(n.fsm.View())
		}
		pause(ctx, 100*time.Millisecond)
	}
	return nil
}

// HoldsMasterKey tells whether the node holds the master key with the id.
func (n *Node) HoldsMasterKey(id uint32) bool { return n.cfg.Keyring.Has(id) }

// lookout looks at the provider of the keyring while the node runs.
type lookout struct {
	// told is what the log was last told is wrong; empty if nothing is.
	told string
	// lost is set while the provider cannot be asked, and refused while what it gives is not taken.
	lost, refused atomic.Bool
}

// watchKeyring takes on what is added to the keyring, and gives up what is dropped from it, while the node runs. What goes
// wrong changes nothing: what was loaded stays.
func (n *Node) watchKeyring(ctx context.Context) error {
	if n.cfg.KeyringProvider == nil {
		return nil
	}
	ticker := time.NewTicker(n.cfg.KeyringInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			n.lookAtKeyring(ctx)
		}
	}
}

func (n *Node) lookAtKeyring(ctx context.Context) {
	bounded, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	next, err := n.cfg.KeyringProvider.Load(bounded)
	if ctx.Err() != nil {
		return
	}
	n.look.lost.Store(err != nil)
	if err == nil {
		err = n.takeKeyring(next)
		n.look.refused.Store(err != nil)
	}
	switch {
	case err != nil && err.Error() != n.look.told:
		n.look.told = err.Error()
		n.log.Error("the master keyring cannot be taken on as it is now; what was loaded stays in use", "error", err)
	case err == nil && n.look.told != "":
		n.look.told = ""
		n.log.Info("the master keyring is all right again")
	}
}

// takeKeyring takes on a changed keyring. What others are told of it comes last: by then a restart would find it too.
func (n *Node) takeKeyring(next *seal.Keyring) error {
	change, err := n.cfg.Keyring.Compare(next, n.keeps)
	if err != nil || change.Empty() {
		return err
	}
	if err := n.cfg.KeyringHeld(next); err != nil {
		return fmt.Errorf("note it in the data directory: %w", err)
	}
	n.cfg.Keyring.Take(next)
	for _, id := range change.Added {
		n.log.Info("a master key was added to the keyring", "master_key", id)
	}
	for _, id := range change.Dropped {
		n.log.Info("a retired master key was dropped from the keyring", "master_key", id)
	}
	return nil
}

// masterKeys is the leader's duty to the keyring.
func (n *Node) masterKeys() *masterkey.Duty {
	return masterkey.New(masterkey.Config{
		View: n.fsm.View, Keyring: n.cfg.Keyring, Holds: n.holds, Propose: n.propose, Origin: n.origin(),
		Check: func(id uint32) ([]byte, error) {
			return n.cfg.Keyring.ProveUnder(id, proofFound, n.fsm.View().ClusterID())
		},
		Rewrapped: n.metrics.rewrap, Logger: n.log,
	})
}

// holds tells which master keys a member holds.
func (n *Node) holds(ctx context.Context, m fsm.Member) ([]uint32, error) {
	if m.ID == n.cfg.ID {
		return n.cfg.Keyring.IDs(), nil
	}
	return n.peers.holds(ctx, m)
}

// statusPatience is how long members are waited for when somebody asks for the keyring's status.
const statusPatience = 1500 * time.Millisecond

// KeyringStatus implements rpc.Reader.
func (n *Node) KeyringStatus(ctx context.Context) (*v1.KeyringStatusResponse, error) {
	if err := n.reading(); err != nil {
		return nil, err
	}
	n.catchUp(ctx)
	view := n.fsm.View()
	if !view.Founded() {
		return nil, fault.ErrNotFounded
	}
	held := n.askHolders(ctx, view.Members())
	res := &v1.KeyringStatusResponse{Keys: uint64(view.KeyCount()), KeysToRewrap: uint64(view.SealedElsewhere())}
	for _, m := range view.Members() {
		_, answered := held[m.ID]
		res.Members = append(res.Members, &v1.Holder{NodeId: m.ID, Name: m.Name, Answered: answered})
	}
	for _, k := range view.MasterKeys() {
		res.MasterKeys = append(res.MasterKeys, &v1.MasterKey{Id: k.ID, State: stateOf(k.State), Keys: uint64(k.Keys)})
	}
	res.MasterKeys = append(res.MasterKeys, n.unused(view, held)...)
	for _, k := range res.GetMasterKeys() {
		for _, m := range view.Members() {
			if slices.Contains(held[m.ID], k.GetId()) {
				k.Holders = append(k.Holders, m.ID)
			}
		}
	}
	return res, nil
}

// catchUp waits until what was acknowledged before is in the state, for a moment: who retired a master key and asks another
// node is to hear of it. A node that is cut off tells what it has.
func (n *Node) catchUp(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, statusPatience/3)
	defer cancel()
	_ = n.freshness.Round(ctx, true)
}

func stateOf(s fsm.MasterKeyState) v1.MasterKey_State {
	switch s {
	case fsm.MasterKeyPrimary:
		return v1.MasterKey_PRIMARY
	case fsm.MasterKeyRetired:
		return v1.MasterKey_RETIRED
	default:
		return v1.MasterKey_OLDER
	}
}

// askHolders asks all members, and gives what those hold who answered.
func (n *Node) askHolders(ctx context.Context, members []fsm.Member) map[string][]uint32 {
	ctx, cancel := context.WithTimeout(ctx, statusPatience)
	defer cancel()
	held := make(map[string][]uint32)
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, m := range members {
		all.Go(func() {
			ids, err := n.holds(ctx, m)
			if err != nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			held[m.ID] = ids
		})
	}
	all.Wait()
	return held
}

// unused gives the master keys that members hold and the state has never heard of. The next to be used is the leader's
// newest.
func (n *Node) unused(view *fsm.View, held map[string][]uint32) []*v1.MasterKey {
	_, leader := n.raft.LeaderWithID()
	next, soon := masterkey.Next(view, held[string(leader)])
	var keys []*v1.MasterKey
	for _, m := range view.Members() {
		for _, id := range held[m.ID] {
			if _, known := view.MasterKeyState(id); known || slices.ContainsFunc(keys, func(k *v1.MasterKey) bool { return k.GetId() == id }) {
				continue
			}
			state := v1.MasterKey_UNUSED
			if soon && id == next {
				state = v1.MasterKey_NEXT
			}
			keys = append(keys, &v1.MasterKey{Id: id, State: state})
		}
	}
	return keys
}

// retire has nothing be sealed under a master key any more. One that was never used has to be some member's: a slip of the
// pen is not to be remembered for ever.
func (w *localWriter) retire(ctx context.Context, origin fsm.Origin, id uint32) (*v1.RetireMasterKeyResponse, error) {
	n := w.node
	view := n.fsm.View()
	if _, known := view.MasterKeyState(id); !known && !n.heldByAny(ctx, view.Members(), id) {
		return nil, fault.Invalid("masterKey", fmt.Sprintf("no member holds a master key %d", id))
	}
	if _, err := n.propose(ctx, fsm.Command{Origin: origin, Op: fsm.RetireMasterKey{ID: id}}); err != nil {
		return nil, err
	}
	n.log.Info("a master key is retired: it can be dropped from the keyring", "master_key", id)
	return &v1.RetireMasterKeyResponse{MasterKey: &v1.MasterKey{Id: id, State: v1.MasterKey_RETIRED}}, nil
}

// heldByAny tells whether a member says that it holds the master key.
func (n *Node) heldByAny(ctx context.Context, members []fsm.Member, id uint32) bool {
	for _, ids := range n.askHolders(ctx, members) {
		if slices.Contains(ids, id) {
			return true
		}
	}
	return false
}
