package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/keyquorum/keyquorum/internal/seal"
)

type keyringCommand struct {
	Init keyringInitCommand `cmd:"" help:"Make the master keyring and the gossip key for all members of a cluster."`
}

type keyringInitCommand struct {
	File      string `arg:"" placeholder:"FILE" help:"Where to write it; nothing may be there yet."`
	IfMissing bool   `percall:"" help:"Where a keyring is there already, leave it as it is, and call that no failure."`
}

func (*keyringInitCommand) Help() string {
	return "Run it once for a cluster and give each member the same file. It seals every user's key: if it is lost, all of them are."
}

func (c *keyringInitCommand) run(ctx context.Context, s *session) error {
	switch err := seal.Init(ctx, c.File); {
	case errors.Is(err, fs.ErrExist) && c.IfMissing:
		return c.keep(ctx, s)
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
func (c *keyringInitCommand) keep(ctx context.Context, s *session) error {
	if _, err := seal.File(c.File).Load(ctx); err != nil {
		return err
	}
	s.out.printf("There is a keyring at %s already, and it was left as it is.\n", clean(c.File))
	return nil
}
