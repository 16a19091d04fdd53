package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

type verifyCommand struct {
	Token       string      `arg:"" help:"The token, or - to read it from stdin. Prefer -: other users of this machine can see a command's arguments."`
	Audience    string      `placeholder:"NAME" help:"Who you are, where the token names whom it is for."`
	Consistency consistency `percall:"" placeholder:"LEVEL" help:"How old the state may be that the node judges on: bounded, at most the cluster's max-staleness; linearizable, not at all; stale-ok, whatever it has. Default: bounded."`
	OmitClaims  bool        `percall:"" help:"Leave the claims out of the answer."`

	connection
	format
}

func (*verifyCommand) Help() string {
	return "Exits 0 if the token is valid and 1 if it is not; the answer says why."
}

func (c *verifyCommand) run(ctx context.Context, s *session) error {
	token, err := c.token(ctx, s.stdin)
	if err != nil {
		return err
	}
	cluster, err := c.client()
	if err != nil {
		return err
	}
	defer cluster.Close()
	res, err := cluster.Verify(ctx, &v1.VerifyRequest{Token: token, Audience: c.Audience, OmitClaims: c.OmitClaims, Consistency: v1.VerifyRequest_Consistency(c.Consistency)})
	if err != nil {
		return err
	}
	if err := c.print(s.out, res); err != nil {
		return err
	}
	if !res.GetValid() {
		return errInvalidToken
	}
	return nil
}

func (c *verifyCommand) token(ctx context.Context, stdin io.Reader) (string, error) {
	if c.Token != "-" {
		return c.Token, nil
	}
	data, err := readInput(ctx, func() ([]byte, error) { return readAtMost(stdin, "stdin") })
	switch {
	case errors.Is(err, errTooLong), err != nil && ctx.Err() != nil:
		return "", err
	case err != nil:
		return "", usagef("TOKEN: %s", err)
	}
	token := strings.TrimSpace(string(data))
	if token == "" {
		return "", usagef("TOKEN: there is none on stdin")
	}
	return token, nil
}

func (c *verifyCommand) print(p *printer, res *v1.VerifyResponse) error {
	if c.JSON {
		return p.json(res)
	}
	if !res.GetValid() {
		p.printf("%s: %s (%s)\n", p.paint(red, "invalid"), res.GetReason(),
			cmp.Or(reasons[res.GetReason()], "a reason that this version does not know"))
	} else {
		p.printf("%s\n", p.paint(green, "valid"))
	}
	claims, err := claimsText(res)
	if err != nil {
		return err
	}
	list := fields{}
	list.add("subject", res.GetSubject())
	list.add("key", res.GetKeyId())
	list.add("issued", stamp(res.GetIssuedAt()))
	list.add("expires", stamp(res.GetExpiresAt()))
	list.add("claims", claims)
	list.add("revision", strconv.FormatUint(res.GetRevision(), 10))
	list.add("staleness", staleness(res.GetStaleness()))
	list.add("node", res.GetNode())
	p.fields(list)
	return nil
}

// consistency is a level by its name on the command line.
type consistency v1.VerifyRequest_Consistency

func parseConsistency(_ consistency, given texts) (consistency, error) {
	switch given[0] {
	case "bounded":
		return consistency(v1.VerifyRequest_BOUNDED), nil
	case "linearizable":
		return consistency(v1.VerifyRequest_LINEARIZABLE), nil
	case "stale-ok":
		return consistency(v1.VerifyRequest_STALE_OK), nil
	}
	return 0, fmt.Errorf("%s is no level: it is bounded, linearizable or stale-ok", quoted(given[0]))
}

// staleness is how old a state can be, as all commands print it; empty where it is not known.
func staleness(d *durationpb.Duration) string {
	if d == nil {
		return ""
	}
	return d.AsDuration().Round(time.Millisecond).String()
}

// reasons say what each verdict means to its reader.
var reasons = map[v1.VerifyResponse_Reason]string{
	v1.VerifyResponse_MALFORMED:         "not a Keyquorum token, or damaged",
	v1.VerifyResponse_EXPIRED:           "past its lifetime",
	v1.VerifyResponse_KEY_NOT_FOUND:     "its key was rotated away, revoked, or never there",
	v1.VerifyResponse_SIGNATURE_INVALID: "not signed with the key it names",
	v1.VerifyResponse_NOT_YET_VALID:     "its time has not come yet",
	v1.VerifyResponse_ISSUER_MISMATCH:   "another cluster's",
	v1.VerifyResponse_AUDIENCE_MISMATCH: "its audience and --audience do not agree",
}

func claimsText(res *v1.VerifyResponse) (string, error) {
	if res.GetClaims() == nil {
		return "", nil
	}
	return jsonText(res.GetClaims())
}

// stamp is a message's time as all commands print it; empty for none.
func stamp(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return instant(t.AsTime())
}
