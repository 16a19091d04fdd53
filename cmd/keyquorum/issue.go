package main

import (
	"context"
	"io"
	"os"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/keyquorum/keyquorum/client"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

type issueCommand struct {
	Subject  string         `arg:"" help:"The user, whom you have authenticated."`
	TTL      *time.Duration `name:"ttl" placeholder:"15m" help:"How long the token lives; the cluster's default unless given."`
	Audience texts          `placeholder:"NAME" help:"Whom the token is for; may repeat."`
	Claims   string         `percall:"" placeholder:"JSON" help:"Claims of your own: a JSON object, @FILE to read one from a file, or - for stdin."`

	connection
	format
}

func (*issueCommand) Help() string {
	return "Prints the token alone, so that it pipes. Whoever holds it is the user until it expires."
}

func (c *issueCommand) run(ctx context.Context, s *session) error {
	claims, err := c.claims(ctx, s.stdin)
	if err != nil {
		return err
	}
	req := &v1.IssueRequest{Subject: c.Subject, Audience: c.Audience, Claims: claims}
	if c.TTL != nil {
		req.Ttl = durationpb.New(*c.TTL)
	}
	cluster, err := c.client()
	if err != nil {
		return err
	}
	defer cluster.Close()
	res, err := cluster.Issue(ctx, req)
	if err != nil {
		return err
	}
	if c.JSON {
		return s.out.json(res)
	}
	s.out.printf("%s\n", clean(res.GetToken()))
	return nil
}

// claims are those that the flag gives or names; nil if it says nothing.
func (c *issueCommand) claims(ctx context.Context, stdin io.Reader) (*structpb.Struct, error) {
	if c.Claims == "" {
		return nil, nil
	}
	data, err := readInput(ctx, func() ([]byte, error) { return c.claimsText(stdin) })
	if err != nil && ctx.Err() != nil {
		return nil, err
	}
	var claims *structpb.Struct
	if err == nil {
		claims, err = client.ParseClaims(data)
	}
	if err != nil {
		return nil, usagef("--claims: %s", plainly(err))
	}
	return claims, nil
}

// claimsText may wait: for stdin, and for a pipe in a file's place, as a shell's <( ) makes.
func (c *issueCommand) claimsText(stdin io.Reader) ([]byte, error) {
	if c.Claims == "-" {
		return readAtMost(stdin, "stdin")
	}
	path, named := strings.CutPrefix(c.Claims, "@")
	if !named {
		return []byte(c.Claims), nil
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return readAtMost(file, path)
}
