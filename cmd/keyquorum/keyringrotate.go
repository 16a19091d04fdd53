package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/keyquorum/keyquorum/client"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

type keyringRotateCommand struct {
	keyringArgument
	Wait bool `percall:"" help:"Wait until all members hold the new master key and nothing is sealed under an older one, and show how far that is."`
	connection
	format
}

func (*keyringRotateCommand) Help() string {
	return "Nothing is sealed under the new master key by that alone. Give each member the file, as at the beginning: the nodes take the key on by themselves. Once all hold it, it becomes the primary one, and all users' keys are sealed anew under it, while everything goes on."
}

func (c *keyringRotateCommand) run(ctx context.Context, s *session) error {
	store, err := s.store("KEYRING", c.Keyring)
	if err != nil {
		return err
	}
	cluster, err := c.client()
	if err != nil {
		return err
	}
	defer cluster.Close()
	id, err := store.Rotate(ctx)
	if err != nil {
		return err
	}
	if !c.JSON {
		s.out.printf("Added master key %d to %s.\n\n", id, clean(c.Keyring))
		s.out.printf("%s Then give each member this file, as you did at the beginning.\n", s.out.paint(bold, "Back this file up now."))
		s.out.printf("The nodes take the key on by themselves, and use it once all of them hold it:\n")
		s.out.printf("\"keyquorum keyring status\" shows how far that is.\n")
	}
	key := &v1.MasterKey{Id: id, State: v1.MasterKey_NEXT}
	if c.Wait {
		if key, err = awaitRotation(ctx, s, cluster, id); err != nil {
			return err
		}
	}
	if c.JSON {
		return s.out.json(key)
	}
	if c.Wait {
		s.out.printf("\nAll keys are sealed under master key %d. Retire the older ones with \"keyquorum keyring retire\".\n", id)
	}
	return nil
}

// progressPause is the time between two looks at a rotation.
const progressPause = time.Second

// awaitRotation waits until the master key is the primary one and nothing is sealed under another. It tells how far that
// is, whenever that has changed; nodes that do not answer are asked again.
func awaitRotation(ctx context.Context, s *session, cluster *client.Client, id uint32) (*v1.MasterKey, error) {
	told := ""
	for {
		status, err := cluster.KeyringStatus(ctx)
		var now string
		switch {
		case errors.Is(err, client.ErrUnavailable) || errors.Is(err, client.ErrDeadlineExceeded):
			now = "no node answers"
		case err != nil:
			return nil, err
		default:
			key := masterKeyOf(status, id)
			if key.GetState() == v1.MasterKey_PRIMARY && status.GetKeysToRewrap() == 0 {
				return key, nil
			}
			if key.GetState() > v1.MasterKey_PRIMARY {
				return nil, fmt.Errorf("master key %d is %s by now", id, stateName(key.GetState()))
			}
			now = progress(status, key)
		}
		if now != told {
			s.err.printf("%s\n", clean(now))
			told = now
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(progressPause):
		}
	}
}

func masterKeyOf(status *v1.KeyringStatusResponse, id uint32) *v1.MasterKey {
	for _, k := range status.GetMasterKeys() {
		if k.GetId() == id {
			return k
		}
	}
	return nil
}

// progress says what a rotation waits for.
func progress(status *v1.KeyringStatusResponse, key *v1.MasterKey) string {
	if key.GetState() == v1.MasterKey_PRIMARY {
		keys, left := status.GetKeys(), status.GetKeysToRewrap()
		return fmt.Sprintf("sealed anew: %d of %d keys", keys-min(keys, left), keys)
	}
	return "held by " + holders(status, key)
}

// holders says how many members hold a master key, and which do not.
func holders(status *v1.KeyringStatusResponse, key *v1.MasterKey) string {
	held := make(map[string]bool)
	for _, id := range key.GetHolders() {
		held[id] = true
	}
	var lack, silent []string
	for _, m := range status.GetMembers() {
		switch {
		case held[m.GetNodeId()]:
		case m.GetAnswered():
			lack = append(lack, m.GetName())
		default:
			silent = append(silent, m.GetName())
		}
	}
	text := fmt.Sprintf("%d of %d", len(held), len(status.GetMembers()))
	if len(lack) > 0 && key.GetState() != v1.MasterKey_RETIRED {
		text += "; not by " + strings.Join(lack, ", ")
	}
	if len(silent) > 0 {
		text += "; no answer from " + strings.Join(silent, ", ")
	}
	return text
}
