package node

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"connectrpc.com/connect"

	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/internal/certs"
	"github.com/keyquorum/keyquorum/internal/fault"
	"github.com/keyquorum/keyquorum/node/membership"
	peerv1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/peer/v1"
	"github.com/keyquorum/keyquorum/rpc/gen/keyquorum/peer/v1/peerv1connect"
)

// peers asks other nodes.
type peers struct {
	http   *http.Client
	scheme string
	dials  *dials
	// address finds a member's RPC address by its id.
	address func(id string) (string, bool)
}

// newPeers makes a client that speaks HTTP/2 to each peer, over one connection each; without TLS if there are no
// certificates.
func newPeers(dial certs.Dial, secure *certs.Source, address func(string) (string, bool)) *peers {
	protocols, scheme := new(http.Protocols), "http"
	dials := newDials(dial)
	connect := unsent(dials.connect)
	if secure == nil {
		protocols.SetUnencryptedHTTP2(true)
	} else {
		protocols.SetHTTP2(true)
		scheme, connect = "https", unsent(secure.Dialer(dials.connect, "h2"))
	}
	return &peers{address: address, dials: dials, scheme: scheme, http: &http.Client{Transport: &http.Transport{
		DialContext:     connect, // by the scheme, one of the two is used
		DialTLSContext:  connect,
		Protocols:       protocols,
		IdleConnTimeout: time.Minute,
		HTTP2: &http.HTTP2Config{
			// A peer that is cut off says nothing: ask whether it is there, so that there is another connection while the
			// state is still fresh.
			SendPingTimeout: time.Second,
			PingTimeout:     1500 * time.Millisecond,
		},
	}}}
}

func (p *peers) close() {
	p.http.CloseIdleConnections()
	p.dials.close()
}

func (p *peers) peer(address string) peerv1connect.PeerServiceClient {
	return peerv1connect.NewPeerServiceClient(p.http, p.scheme+"://"+address)
}

// clock reads a node's wall clock.
func (p *peers) clock(ctx context.Context, id string) (time.Time, error) {
	address, ok := p.address(id)
	if !ok {
		return time.Time{}, fmt.Errorf("no address is known for node %s", id)
	}
	who, wall, err := p.readClock(ctx, address)
	if err == nil && who != id {
		err = fmt.Errorf("%s is node %s, not %s", address, who, id)
	}
	return wall, err
}

func (p *peers) readClock(ctx context.Context, address string) (id string, wall time.Time, err error) {
	res, err := p.peer(address).Clock(ctx, connect.NewRequest(&peerv1.ClockRequest{}))
	if err != nil {
		return "", time.Time{}, err
	}
	return res.Msg.GetNodeId(), time.Unix(0, res.Msg.GetWallNs()), nil
}

// whoIs asks a node for its id.
func (p *peers) whoIs(ctx context.Context, address string) (string, error) {
	id, _, err := p.readClock(ctx, address)
	return id, err
}

// process asks a node for its id, and for what tells its process from another under that id.
func (p *peers) process(ctx context.Context, address string) (id string, process []byte, err error) {
	res, err := p.standing(ctx, address)
	return res.GetNodeId(), res.GetProcess(), err
}

// applied asks a member how far it has applied the log.
func (p *peers) applied(ctx context.Context, member fsm.Member) (uint64, error) {
	res, err := p.standing(ctx, member.RPCAddress)
	if err == nil && res.GetNodeId() != member.ID {
		err = fmt.Errorf("%s is node %s, not %s", member.RPCAddress, res.GetNodeId(), member.ID)
	}
	return res.GetAppliedIndex(), err
}

// holds asks a member for the ids of the master keys that it holds.
func (p *peers) holds(ctx context.Context, member fsm.Member) ([]uint32, error) {
	address, ok := p.address(member.ID)
	if !ok {
		address = member.RPCAddress
	}
	res, err := p.standing(ctx, address)
	if err == nil && res.GetNodeId() != member.ID {
		err = fmt.Errorf("%s is node %s, not %s", address, res.GetNodeId(), member.ID)
	}
	return res.GetMasterKeys(), err
}

// tick asks a member that leads for a tick.
func (p *peers) tick(ctx context.Context, leader string, req *peerv1.TickRequest) (uint64, error) {
	address, ok := p.address(leader)
	if !ok {
		return 0, fmt.Errorf("%w that this node has an address for", fault.ErrNoLeader)
	}
	res, err := p.peer(address).Tick(ctx, connect.NewRequest(req))
	if err != nil {
		return 0, fmt.Errorf("ask the leader at %s for a tick: %w", address, err)
	}
	return res.Msg.GetPosition(), nil
}

// reached waits until a member has applied the position, and gives how far it has come.
func (p *peers) reached(ctx context.Context, member fsm.Member, position uint64) (uint64, error) {
	address, ok := p.address(member.ID)
	if !ok {
		address = member.RPCAddress
	}
	res, err := p.peer(address).Applied(ctx, connect.NewRequest(&peerv1.AppliedRequest{Position: position}))
	if err != nil {
		return 0, err
	}
	if res.Msg.GetNodeId() != member.ID {
		return 0, fmt.Errorf("%s is node %s, not %s", address, res.Msg.GetNodeId(), member.ID)
	}
	return res.Msg.GetPosition(), nil
}

// standing asks a node what it is part of.
func (p *peers) standing(ctx context.Context, address string) (*peerv1.StandingResponse, error) {
	res, err := p.peer(address).Standing(ctx, connect.NewRequest(&peerv1.StandingRequest{}))
	if err != nil {
		return nil, err
	}
	return res.Msg, nil
}

// forward has the leader carry out a write. The leader's own answer, refusals included, passes through. Where
// there was none the outcome is open, unless the request was never sent. It is never sent twice.
func (p *peers) forward(ctx context.Context, address string, req *peerv1.ForwardRequest) (*peerv1.ForwardResponse, error) {
	res, err := p.peer(address).Forward(ctx, connect.NewRequest(req))
	var unsent *dialError
	switch {
	case err == nil:
		return res.Msg, nil
	case connect.IsWireError(err):
		return nil, err
	case errors.As(err, &unsent):
		return nil, fmt.Errorf("%w that can be reached (%w)", fault.ErrNoLeader, unsent)
	default:
		return nil, fmt.Errorf("%w: the leader at %s did not answer (%w)", fault.ErrOutcomeUnknown, address, err)
	}
}

// challenge gives what a proof to the node at an address has to be bound to, and the master key to make it with.
func (p *peers) challenge(ctx context.Context, address string) (challenge []byte, master uint32, err error) {
	res, err := p.peer(address).Challenge(ctx, connect.NewRequest(&peerv1.ChallengeRequest{}))
	if err != nil {
		return nil, 0, err
	}
	return res.Msg.GetChallenge(), res.Msg.GetMasterKey(), nil
}

// leave asks the node at an address to take this one out.
func (p *peers) leave(ctx context.Context, address string, req *peerv1.LeaveRequest) error {
	_, err := p.peer(address).Leave(ctx, connect.NewRequest(req))
	return err
}

// join asks the node at an address to admit a member, and gives its answer.
func (p *peers) join(ctx context.Context, address string, req *peerv1.JoinRequest) (*peerv1.JoinResponse, error) {
	res, err := p.peer(address).Join(ctx, connect.NewRequest(req))
	if err == nil {
		return res.Msg, nil
	}
	if connect.IsWireError(err) && connect.CodeOf(err) == connect.CodeInvalidArgument {
		return nil, fmt.Errorf("%w: the node at %s does not admit this one: %w", membership.ErrMendable, address, err)
	}
	return nil, err
}
