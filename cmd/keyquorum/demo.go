package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"connectrpc.com/connect"

	"github.com/keyquorum/keyquorum/client"
	"github.com/keyquorum/keyquorum/internal/member"
	"github.com/keyquorum/keyquorum/internal/seal"
	"github.com/keyquorum/keyquorum/node"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
	"github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1/keyquorumv1connect"
)

// demoCommand tells Keyquorum's story on three real nodes.
type demoCommand struct{}

func (*demoCommand) Help() string {
	return "Three nodes in this process, on loopback, with their logs in a temporary folder that is removed at the end. " +
		"Nothing is left behind, and nothing else is touched. It is open: no TLS, no access control."
}

// demoTiming fails over quickly: on loopback a heartbeat needs no time.
var demoTiming = node.Timing{Heartbeat: 250 * time.Millisecond, Stable: 200 * time.Millisecond, Drain: 5 * time.Second}

func (*demoCommand) run(ctx context.Context, s *session) (err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	// A reader that went away, as head does, ends the story, and not the process before it has cleaned up.
	signal.Ignore(syscall.SIGPIPE)
	defer signal.Reset(syscall.SIGPIPE)
	d, err := newDemo(s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	started := time.Now()
	for _, chapter := range []func(context.Context) error{
		d.start, d.logIn, d.verifyEverywhere, d.expire, d.revoke, d.killLeader, d.comeBack,
	} {
		if err := chapter(ctx); err != nil {
			return err
		}
		if s.out.failed != nil {
			return nil
		}
	}
	s.out.printf("\nThat was Keyquorum, in %.1f s. Try it yourself: keyquorum dev\n", time.Since(started).Seconds())
	return nil
}

// demo is the story's stage.
type demo struct {
	*story
	dir     string
	keyring *seal.Keyring
	nodes   []*demoNode
	// ada and bob are the tokens in play.
	ada, bob *v1.IssueResponse
}

// demoNode is one of the three, running or not.
type demoNode struct {
	name   string
	member *member.Member
	client *client.Client
	plug   *member.Plug
	stop   context.CancelFunc
	done   chan error
}

func newDemo(s *session) (*demo, error) {
	keyring, err := seal.NewKeyring()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "keyquorum-demo-")
	if err != nil {
		return nil, fmt.Errorf("make a temporary folder: %w", err)
	}
	return &demo{story: &story{out: s.out}, dir: dir, keyring: keyring}, nil
}

func (d *demo) close() error {
	var faults []error
	for _, n := range d.nodes {
		faults = append(faults, n.end())
	}
	return errors.Join(append(faults, os.RemoveAll(d.dir))...)
}

// launch starts a node on its own folder; a name that ran before finds what it left.
func (d *demo) launch(name string, seeds []string) (*demoNode, error) {
	n := &demoNode{name: name, plug: member.NewPlug(), done: make(chan error, 1)}
	var err error
	n.member, err = member.Open(member.Config{
		Name: name, DataDir: filepath.Join(d.dir, name), Version: thisBuild().Version, Keyring: d.keyring,
		RPCListen: "127.0.0.1:0", RaftListen: "127.0.0.1:0", GossipListen: "127.0.0.1:0",
		Seeds: seeds, Timing: demoTiming, Logger: slog.New(slog.DiscardHandler), Plug: n.plug,
	})
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	ctx, stop := context.WithCancel(context.Background())
	n.stop = stop
	go func() { n.done <- n.member.Run(ctx) }()
	n.client, err = client.New([]string{n.member.RPCAddress}, client.InOrder())
	return n, err
}

// end stops a node in the orderly way; one that was killed is gone already.
func (n *demoNode) end() error {
	if n.stop == nil {
		return nil
	}
	n.stop()
	n.stop = nil
	return <-n.done
}

// start is the first chapter: a cluster.
func (d *demo) start(ctx context.Context) error {
	d.chapter("Three nodes, one cluster")
	var seeds []string
	for _, name := range []string{"north", "east", "west"} {
		n, err := d.launch(name, seeds)
		if err != nil {
			return err
		}
		d.nodes = append(d.nodes, n)
		seeds = append(seeds, n.member.GossipAddress)
	}
	founded := time.Now()
	if err := d.found(ctx); err != nil {
		return err
	}
	if err := d.awaitVoters(ctx, len(d.nodes)); err != nil {
		return err
	}
	d.say("Founded at %s; the others found it by gossip, joined, and vote. It took %s.", d.nodes[0].name, since(founded))
	leader, err := d.leader(ctx)
	if err != nil {
		return err
	}
	for _, n := range d.nodes {
		d.fact(n.name, "http://%s%s", n.member.RPCAddress, note(n == leader, "  leader"))
	}
	d.say("Each keeps its log in %s, and every key in it sealed.", d.dir)
	return nil
}

func (d *demo) found(ctx context.Context) error {
	cluster := keyquorumv1connect.NewClusterServiceClient(http.DefaultClient, "http://"+d.nodes[0].member.RPCAddress)
	if _, err := cluster.Init(ctx, connect.NewRequest(&v1.InitRequest{})); err != nil {
		return fmt.Errorf("found the cluster: %w", err)
	}
	return nil
}

// logIn is the second chapter: keys and tokens.
func (d *demo) logIn(ctx context.Context) (err error) {
	d.chapter("Ada and Bob log in")
	d.say("The application has checked their passwords; Keyquorum never sees one. It asks %s for tokens.", d.nodes[2].name)
	if d.ada, err = d.issue(ctx, d.nodes[2], "ada", 3*time.Second); err != nil {
		return err
	}
	if d.bob, err = d.issue(ctx, d.nodes[2], "bob", time.Hour); err != nil {
		return err
	}
	d.fact("ada", "key %s, made for her just now; token %s, for 3 s", d.ada.GetKeyId(), short(d.ada.GetToken()))
	d.fact("bob", "key %s, his own; token %s, for 1 h", d.bob.GetKeyId(), short(d.bob.GetToken()))
	if d.ada.GetKeyId() == d.bob.GetKeyId() {
		return errors.New("two users share a key")
	}
	return nil
}

// verifyEverywhere is the third: any node verifies, from its own memory.
func (d *demo) verifyEverywhere(ctx context.Context) error {
	d.chapter("Any node verifies, from its own memory")
	if err := d.everywhere(ctx, "ada's token", d.ada.GetToken(), v1.VerifyResponse_NONE); err != nil {
		return err
	}
	forged := []byte(d.bob.GetToken())
	last := len(forged) - 10
	forged[last] = map[bool]byte{true: 'B', false: 'A'}[forged[last] == 'A']
	return d.everywhere(ctx, "bob's token with one letter changed", string(forged), v1.VerifyResponse_SIGNATURE_INVALID)
}

// expire is the fourth: expiry and rotation.
func (d *demo) expire(ctx context.Context) error {
	d.chapter("Ada's token expires, and the cluster rotates her key")
	old := d.ada
	expiry := old.GetExpiresAt().AsTime()
	d.say("Nobody asks for it. The leader's scheduler waits for %s.", expiry.Local().Format(time.TimeOnly))
	key, err := d.awaitRotation(ctx, "ada", old.GetKeyId())
	if err != nil {
		return err
	}
	d.fact("before", "%s", old.GetKeyId())
	d.fact("after", "%s, made %s after the expiry", key.GetKeyId(), rounded(key.GetCreatedAt().AsTime().Sub(expiry)))
	if err := d.everywhere(ctx, "the old token", old.GetToken(), v1.VerifyResponse_EXPIRED); err != nil {
		return err
	}
	if d.ada, err = d.issue(ctx, d.nodes[0], "ada", time.Hour); err != nil {
		return err
	}
	if d.ada.GetKeyId() != key.GetKeyId() {
		return fmt.Errorf("a new token is signed with %s, not with the new key", d.ada.GetKeyId())
	}
	return d.everywhere(ctx, "a new token, of the new key", d.ada.GetToken(), v1.VerifyResponse_NONE)
}

// revoke is the fifth: all of one user's tokens end.
func (d *demo) revoke(ctx context.Context) error {
	d.chapter("Ada's laptop is stolen: revoke")
	started := time.Now()
	res, err := d.nodes[1].client.Revoke(ctx, &v1.RevokeRequest{Subject: "ada"})
	if err != nil {
		return fmt.Errorf("revoke: %w", err)
	}
	d.fact("revoked", "in %s, asked at %s; her key is now %s", since(started), d.nodes[1].name, res.GetKeyId())
	if err := d.awaitRevision(ctx, res.GetRevision()); err != nil {
		return err
	}
	if err := d.everywhere(ctx, "ada's token, with an hour to go", d.ada.GetToken(), v1.VerifyResponse_KEY_NOT_FOUND); err != nil {
		return err
	}
	return d.everywhere(ctx, "bob's token", d.bob.GetToken(), v1.VerifyResponse_NONE)
}
