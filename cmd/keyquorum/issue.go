package main

import (
	"context"
	"io"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/keyquorum/keyquorum/client"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

// maxInputBytes bounds what is read from a file or stdin: far more than any claims or token may have.
const maxInputBytes = 1 << 20

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
	claims, err := c.claims(s.stdin)
	if err != nil {
		return usagef("--claims: %s", err)
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

// claims reads them from where the flag says; nil if it says nothing.
func (c *issueCommand) claims(stdin io.Reader) (*structpb.Struct, error) {
	text, err := c.Claims, error(nil)
	var data []byte
	switch {
	case text == "":
		return nil, nil
	case text == "-":
		data, err = readAtMost(stdin, "stdin", maxInputBytes)
	case strings.HasPrefix(text, "@"):
		data, err = readLimited(text[1:], maxInputBytes)
	default:
		data = []byte(text)
	}
	if err != nil {
		return nil, err
	}
	claims, err := client.ParseClaims(data)
	return claims, plainly(err)
}
