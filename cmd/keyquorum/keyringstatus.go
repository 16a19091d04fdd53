package main

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/keyquorum/keyquorum/internal/seal"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

type keyringStatusCommand struct {
	Keyring string `arg:"" optional:"" placeholder:"KEYRING" help:"A keyring to compare with: a file, or vault+https://HOST/MOUNT/KEY?file=PATH."`
	connection
	format
}

func (*keyringStatusCommand) Help() string {
	return "A master key that is next becomes the primary one once all members hold it; then all keys of users are sealed anew under it. An older one that seals nothing any more can be retired, and a retired one dropped. With KEYRING it also shows which of them that has; --json has the cluster's answer alone."
}

func (c *keyringStatusCommand) run(ctx context.Context, s *session) error {
	var ring *seal.Keyring
	if c.Keyring != "" {
		store, err := s.store("KEYRING", c.Keyring)
		if err != nil {
			return err
		}
		if ring, err = store.Load(ctx); err != nil {
			return err
		}
	}
	cluster, err := c.client()
	if err != nil {
		return err
	}
	defer cluster.Close()
	res, err := cluster.KeyringStatus(ctx)
	if err != nil {
		return err
	}
	if c.JSON {
		return s.out.json(res)
	}
	printKeyring(s.out, res, ring)
	return nil
}

// printKeyring shows the master keys, and those that only the given keyring has; it may be nil.
func printKeyring(p *printer, status *v1.KeyringStatusResponse, ring *seal.Keyring) {
	header := []string{"MASTER KEY", "STATE", "KEYS", "HELD BY"}
	if ring != nil {
		header = slices.Insert(header, 3, "IN FILE")
	}
	var rows [][]string
	add := func(id uint32, state, keys, held string) {
		row := []string{strconv.FormatUint(uint64(id), 10), state, keys, held}
		if ring != nil {
			row = slices.Insert(row, 3, yesNo(ring.Has(id)))
		}
		rows = append(rows, row)
	}
	for _, k := range status.GetMasterKeys() {
		add(k.GetId(), stateName(k.GetState()), strconv.FormatUint(k.GetKeys(), 10), holders(status, k))
	}
	if ring != nil {
		for _, id := range ring.IDs() {
			if masterKeyOf(status, id) == nil {
				add(id, "new", "0", holders(status, nil))
			}
		}
	}
	newTable(p, header...).print(rows)
	if left := status.GetKeysToRewrap(); left > 0 {
		p.printf("\n%d of %d keys are still to be sealed anew, under the primary master key\n", left, status.GetKeys())
	}
}

func stateName(s v1.MasterKey_State) string { return strings.ToLower(s.String()) }
