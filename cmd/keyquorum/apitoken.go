package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

type apiTokenCommand struct {
	Create apiTokenCreateCommand `cmd:"" help:"Make an API token."`
	List   apiTokenListCommand   `cmd:"" help:"List the API tokens, without what is secret of them."`
	Revoke apiTokenRevokeCommand `cmd:"" help:"End an API token."`
}

type apiTokenCreateCommand struct {
	Role []string      `required:"" percall:"" placeholder:"ROLE" help:"What it allows: verifier, issuer, operator or auditor; may be given more than once."`
	Name string        `percall:"" placeholder:"NAME" help:"What it is for, for people."`
	TTL  time.Duration `name:"ttl" percall:"" placeholder:"2160h" help:"How long it is good for. Default: until it is revoked."`

	connection
	format
}

func (*apiTokenCreateCommand) Help() string {
	return "Prints the token alone, this once: the cluster keeps a hash of it. Whoever has it may do what its roles allow, from anywhere: send it as \"Authorization: Bearer TOKEN\", and give it to this program by --api-token-file."
}

func (c *apiTokenCreateCommand) check() (faults []string) {
	for _, role := range c.Role {
		if _, ok := apiRole(role); !ok {
			faults = append(faults, "--role: "+quoted(role)+" is none of verifier, issuer, operator, auditor")
		}
	}
	if c.TTL < 0 {
		faults = append(faults, "--ttl: must not be negative")
	}
	return slices.Concat(faults, c.connection.check())
}

func apiRole(name string) (v1.ApiToken_Role, bool) {
	n, ok := v1.ApiToken_Role_value[strings.ToUpper(name)]
	return v1.ApiToken_Role(n), ok && n != 0 && name == strings.ToLower(name)
}

func (c *apiTokenCreateCommand) run(ctx context.Context, s *session) error {
	cluster, err := c.client()
	if err != nil {
		return err
	}
	defer cluster.Close()
	req := &v1.CreateTokenRequest{Name: c.Name}
	for _, name := range c.Role {
		role, _ := apiRole(name)
		req.Roles = append(req.Roles, role)
	}
	if c.TTL > 0 {
		req.Ttl = durationpb.New(c.TTL)
	}
	res, err := cluster.CreateToken(ctx, req)
	if err != nil {
		return err
	}
	if c.JSON {
		return s.out.json(res)
	}
	s.out.printf("%s\n", clean(res.GetToken()))
	s.err.printf("API token %s: keep it, it is not shown again.\n", clean(res.GetId()))
	return nil
}

type apiTokenListCommand struct {
	connection
	format
}

func (c *apiTokenListCommand) run(ctx context.Context, s *session) error {
	cluster, err := c.client()
	if err != nil {
		return err
	}
	defer cluster.Close()
	res, err := cluster.ListTokens(ctx)
	if err != nil {
		return err
	}
	if c.JSON {
		return s.out.json(res)
	}
	var rows [][]string
	for _, t := range res.GetTokens() {
		var roles []string
		for _, r := range t.GetRoles() {
			roles = append(roles, strings.ToLower(r.String()))
		}
		rows = append(rows, []string{
			t.GetId(), t.GetName(), strings.Join(roles, ","), stamp(t.GetCreatedAt()), stamp(t.GetExpiresAt()), t.GetCreator(),
		})
	}
	newTable(s.out, "ID", "NAME", "ROLES", "CREATED", "EXPIRES", "BY").print(rows)
	return nil
}

type apiTokenRevokeCommand struct {
	ID string `arg:"" placeholder:"ID" help:"The token's id: what stands between kq_ and the next _."`

	connection
	format
}

func (c *apiTokenRevokeCommand) run(ctx context.Context, s *session) error {
	cluster, err := c.client()
	if err != nil {
		return err
	}
	defer cluster.Close()
	res, err := cluster.RevokeToken(ctx, &v1.RevokeTokenRequest{Id: c.ID})
	if err != nil {
		return err
	}
	if c.JSON {
		return s.out.json(res)
	}
	_, err = fmt.Fprintf(s.out, "Revoked API token %s.\n", clean(c.ID))
	return err
}
