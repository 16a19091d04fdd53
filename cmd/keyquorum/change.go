package main

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/keyquorum/keyquorum/client"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

// change is the flags of the commands that change one user's keys.
type change struct {
	Subject       string `arg:"" help:"The user."`
	ExpectedKeyID string `name:"expected-key-id" percall:"" placeholder:"ID" help:"Do it only if this still is the user's active key. It can then be sent again where an answer got lost."`

	connection
	format
}

// finality tells how many nodes have a change, and how many cannot be fresh without it.
func finality(f *v1.Finality) string {
	told := fmt.Sprintf("; applied by %d of %d nodes in %s", f.GetAppliedNodes(), f.GetAppliedNodes()+f.GetExpiredNodes(), staleness(f.GetTook()))
	if f.GetExpiredNodes() > 0 {
		told += ", the others verify nothing until they have it"
	}
	return told
}

// do runs one call and prints its answer; told is the answer in words.
func (c *change) do(s *session, call func(*client.Client) (answer proto.Message, told string, err error)) error {
	cluster, err := c.client()
	if err != nil {
		return err
	}
	defer cluster.Close()
	answer, told, err := call(cluster)
	if err != nil {
		return err
	}
	if c.JSON {
		return s.out.json(answer)
	}
	s.out.printf("%s: %s\n", clean(c.Subject), told)
	return nil
}

type rotateCommand struct{ change }

func (*rotateCommand) Help() string {
	return "In overlap mode, what the old key signed stays valid until it expires; in strict mode it dies at once."
}

func (c *rotateCommand) run(ctx context.Context, s *session) error {
	return c.do(s, func(cluster *client.Client) (proto.Message, string, error) {
		res, err := cluster.Rotate(ctx, &v1.RotateRequest{Subject: c.Subject, ExpectedKeyId: c.ExpectedKeyID})
		return res, "rotated; the active key is " + clean(res.GetKeyId()), err
	})
}

type revokeCommand struct{ change }

func (*revokeCommand) Help() string {
	return "Deletes all of the user's keys and makes a new one. No token issued before is accepted by any node once this has returned."
}

func (c *revokeCommand) run(ctx context.Context, s *session) error {
	return c.do(s, func(cluster *client.Client) (proto.Message, string, error) {
		res, err := cluster.Revoke(ctx, &v1.RevokeRequest{Subject: c.Subject, ExpectedKeyId: c.ExpectedKeyID})
		return res, "revoked; the active key is " + clean(res.GetKeyId()) + finality(res.GetFinality()), err
	})
}

type deleteCommand struct{ change }

func (*deleteCommand) Help() string {
	return "As revoke, without a new key: nothing of the user is left, and the next issue begins anew."
}

func (c *deleteCommand) run(ctx context.Context, s *session) error {
	return c.do(s, func(cluster *client.Client) (proto.Message, string, error) {
		res, err := cluster.Delete(ctx, &v1.DeleteRequest{Subject: c.Subject, ExpectedKeyId: c.ExpectedKeyID})
		return res, "deleted" + finality(res.GetFinality()), err
	})
}
