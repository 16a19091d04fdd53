package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/keyquorum/keyquorum/internal/provider"
	"github.com/keyquorum/keyquorum/internal/seal"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

type keyringCommand struct {
	Init   keyringInitCommand   `cmd:"" help:"Make the master keyring and the gossip key for all members of a cluster."`
	Rotate keyringRotateCommand `cmd:"" help:"Add a new master key to the keyring."`
	Status keyringStatusCommand `cmd:"" help:"Show the master keys, what is sealed under them, and who holds them."`
	Retire keyringRetireCommand `cmd:"" help:"Have nothing be sealed under a master key any more."`
	Drop   keyringDropCommand   `cmd:"" help:"Take a retired master key out of the keyring."`
}

// keyringArgument is the keyring that a command works on. It makes no setting: that is a node's.
type keyringArgument struct {
	Keyring string `arg:"" placeholder:"KEYRING" help:"The keyring: a file, or vault+https://HOST/MOUNT/KEY?file=PATH."`
}

// store gives the keyring that a setting or an argument names.
func (s *session) store(what, spec string) (*seal.Store, error) {
	store, err := provider.Open(spec, s.env)
	if err != nil {
		return nil, usagef("%s: %v", what, err)
	}
	return store, nil
}

// masterKeyFlag names a master key. It belongs to one call.
type masterKeyFlag struct {
	MasterKey uint32 `percall:"" placeholder:"ID" help:"The master key's id, as \"keyring status\" shows it. Required."`
}

func (f *masterKeyFlag) check() []string {
	if f.MasterKey == 0 {
		return []string{`--master-key: say which master key; "keyquorum keyring status" shows them`}
	}
	return nil
}

type keyringInitCommand struct {
	File      string `arg:"" placeholder:"FILE" help:"Where to write it, a file or vault+https://HOST/MOUNT/KEY?file=PATH; nothing may be there yet."`
	IfMissing bool   `percall:"" help:"Where a keyring is there already, leave it as it is, and call that no failure."`
}

func (*keyringInitCommand) Help() string {
	return "Run it once for a cluster and give each member the same file. It seals every user's key: if it is lost, all of them are."
}

func (c *keyringInitCommand) run(ctx context.Context, s *session) error {
	store, err := s.store("FILE", c.File)
	if err != nil {
		return err
	}
	switch err := store.Init(ctx); {
	case errors.Is(err, fs.ErrExist) && c.IfMissing:
		return c.keep(ctx, s, store)
	case errors.Is(err, fs.ErrExist):
		return fmt.Errorf("%s is there already and was left as it is: a cluster's keys may depend on it", c.File)
	case err != nil:
		return err
	}
	s.out.printf("Wrote the master keyring and the gossip key to %s, readable by its owner only.\n\n", clean(c.File))
	s.out.printf("%s Every user's key is sealed with it:\n", s.out.paint(bold, "Back this file up now."))
	s.out.printf("if it is lost, every key is lost, and no token can be verified any more.\n")
	s.out.printf("Whoever else gets hold of it can open every key. Each member of the cluster needs this same file.\n")
	return nil
}

// keep leaves what is there, if that is a keyring which a node would start with.
func (c *keyringInitCommand) keep(ctx context.Context, s *session, store *seal.Store) error {
	if _, err := store.Load(ctx); err != nil {
		return err
	}
	s.out.printf("There is a keyring at %s already, and it was left as it is.\n", clean(c.File))
	return nil
}

type keyringRetireCommand struct {
	masterKeyFlag
	connection
	format
}

func (c *keyringRetireCommand) check() []string {
	return slices.Concat(c.masterKeyFlag.check(), c.connection.check())
}

func (*keyringRetireCommand) Help() string {
	return "Refused for the primary master key, and while a user's key is sealed under it. A retired master key never comes back; \"keyring drop\" then takes it out of the keyring."
}

func (c *keyringRetireCommand) run(ctx context.Context, s *session) error {
	cluster, err := c.client()
	if err != nil {
		return err
	}
	defer cluster.Close()
	res, err := cluster.RetireMasterKey(ctx, &v1.RetireMasterKeyRequest{MasterKey: c.MasterKey})
	if err != nil {
		return err
	}
	if c.JSON {
		return s.out.json(res)
	}
	s.out.printf("Master key %d is retired. Take it out of the keyring with \"keyquorum keyring drop\".\n", c.MasterKey)
	return nil
}

type keyringDropCommand struct {
	keyringArgument
	masterKeyFlag
	connection
}

func (c *keyringDropCommand) check() []string {
	return slices.Concat(c.masterKeyFlag.check(), c.connection.check())
}

func (*keyringDropCommand) Help() string {
	return "Asks the cluster first, and refuses unless it says that the master key is retired. Give each member the file afterwards: the nodes drop the key by themselves. Copies of the file that have it still, such as backups, open what was sealed under it: old logs, snapshots and backups."
}

func (c *keyringDropCommand) run(ctx context.Context, s *session) error {
	store, err := s.store("KEYRING", c.Keyring)
	if err != nil {
		return err
	}
	cluster, err := c.client()
	if err != nil {
		return err
	}
	defer cluster.Close()
	status, err := cluster.KeyringStatus(ctx)
	if err != nil {
		return err
	}
	primary, err := droppable(status, c.MasterKey)
	if err != nil {
		return err
	}
	if err := store.Drop(ctx, c.MasterKey, primary); err != nil {
		return err
	}
	s.out.printf("Dropped master key %d from %s. Give each member this file; the nodes drop the key by themselves.\n", c.MasterKey, clean(c.Keyring))
	return nil
}

// droppable says why a master key is needed still; otherwise it gives the one that is primary.
func droppable(status *v1.KeyringStatusResponse, id uint32) (primary uint32, err error) {
	var found *v1.MasterKey
	for _, k := range status.GetMasterKeys() {
		if k.GetState() == v1.MasterKey_PRIMARY {
			primary = k.GetId()
		}
		if k.GetId() == id {
			found = k
		}
	}
	switch state := found.GetState(); {
	case primary == 0:
		return 0, fmt.Errorf("%w: it names no primary master key", errNonsense)
	case found == nil:
		return 0, fmt.Errorf("master key %d is not dropped: the cluster knows of no such master key", id)
	case state == v1.MasterKey_RETIRED:
		return primary, nil
	case state == v1.MasterKey_PRIMARY:
		return 0, fmt.Errorf("master key %d is not dropped: it is the primary one, under which all that is new is sealed", id)
	case found.GetKeys() > 0:
		return 0, fmt.Errorf("master key %d is not dropped: %d of the users' keys are sealed under it; they are being sealed anew, see \"keyquorum keyring status\"", id, found.GetKeys())
	}
	return 0, fmt.Errorf("master key %d is not dropped: it is not retired: run \"keyquorum keyring retire --master-key %d\" first", id, id)
}
