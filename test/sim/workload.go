package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/keyquorum/keyquorum/client"
	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/node"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

const (
	callersPerUser = 2
	// think is the mean time between two operations of a caller.
	think = 350 * time.Millisecond
	// remembered is how many tokens of a user are kept for verification.
	remembered = 60
)

// held is a token in some caller's hands.
type held struct {
	raw     string
	key     fsm.KeyID
	expires time.Time
}

// book is what the callers of one user know.
type book struct {
	user string

	mu     sync.Mutex
	tokens []held
	active fsm.KeyID // as last heard
}

func (b *book) add(h held) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tokens = append(b.tokens, h)
	if len(b.tokens) > remembered {
		b.tokens = b.tokens[1:]
	}
	b.active = h.key
}

func (b *book) saw(active fsm.KeyID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.active = active
}

func (b *book) expected() fsm.KeyID {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.active
}

// pick gives a token, mostly a late one; false if there is none.
func (b *book) pick(r *rand.Rand) (held, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := len(b.tokens)
	switch {
	case n == 0:
		return held{}, false
	case r.IntN(10) < 8:
		return b.tokens[n-1-r.IntN(min(n, 5))], true
	}
	return b.tokens[r.IntN(n)], true
}

// live gives all tokens that have not expired.
func (b *book) live() (live []held) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, h := range b.tokens {
		if h.expires.After(time.Now()) {
			live = append(live, h)
		}
	}
	return live
}

// worker is one caller, with one operation at a time.
type worker struct {
	world *World
	book  *book
	rng   *rand.Rand
	lib   *client.Client
}

// work has all callers call until the world's time is over.
func (w *World) work(books []*book, lib *client.Client, until time.Time) {
	var callers sync.WaitGroup
	for _, b := range books {
		for i := range callersPerUser {
			c := &worker{world: w, book: b, rng: w.random(fmt.Sprintf("caller %s %d", b.user, i)), lib: lib}
			callers.Go(func() { c.run(until) })
		}
	}
	callers.Wait()
}

func (c *worker) run(until time.Time) {
	for time.Now().Before(until) {
		c.once()
		time.Sleep(time.Duration(c.rng.Int64N(int64(2 * think))))
	}
}

// once carries out one operation drawn by chance.
func (c *worker) once() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(200+c.rng.IntN(4000))*time.Millisecond)
	defer cancel()
	patient, cancelPatient := context.WithTimeout(context.Background(), time.Duration(2000+c.rng.IntN(10000))*time.Millisecond)
	defer cancelPatient() // a revocation waits for longer than maxStaleness
	switch n := c.rng.IntN(100); {
	case c.world.opts.Deleting && n%4 == 0:
		c.change(patient, Delete)
	case n < 32:
		c.issue(ctx)
	case n < 72:
		c.verify(ctx)
	case n < 76:
		c.batch(ctx)
	case n < 82:
		c.change(ctx, Rotate)
	case n < 87:
		c.change(patient, Revoke)
	case n < 89:
		c.change(patient, Delete)
	case n < 96:
		c.get(ctx)
	case n < 98:
		c.list(ctx)
	default:
		c.settings(ctx)
	}
}

// service is what both a node and the client library are to a caller.
type service struct {
	member *member // nil for the library
	lib    *client.Client
}

// somewhere picks a node, or now and then the library.
func (c *worker) somewhere() service {
	if c.rng.IntN(8) == 0 {
		return service{lib: c.lib}
	}
	return service{member: c.world.members[c.rng.IntN(len(c.world.members))]}
}

// attempts counts how often the library sends a request.
type attempts struct{}

func counting(ctx context.Context) (context.Context, *atomic.Int32) {
	n := new(atomic.Int32)
	return context.WithValue(ctx, attempts{}, n), n
}

func countAttempts(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		if n, ok := ctx.Value(attempts{}).(*atomic.Int32); ok {
			n.Add(1)
		}
		return next(ctx, req)
	}
}

// newLibrary makes the client library's client, on a host of its own.
func (w *World) newLibrary() (lib *client.Client, done func(), err error) {
	transport := &http.Transport{DialContext: w.net.Dialer("app"), MaxIdleConnsPerHost: 20}
	var addresses []string
	for _, m := range w.members {
		addresses = append(addresses, m.host+":7400")
	}
	lib, err = client.New(addresses, client.WithHTTPClient(&http.Client{Transport: transport}), client.WithTimeout(0),
		client.WithInterceptors(connect.UnaryInterceptorFunc(countAttempts)))
	return lib, func() { lib.Close(); transport.CloseIdleConnections() }, err
}

// ask calls a node or the library, and notes outcome and process.
func ask[Req, Res any](ctx context.Context, o *Op, s service, req Req,
	local func(context.Context, *node.Node, Req) (Res, error), lib func(*client.Client, context.Context, Req) (Res, error),
) (res Res, sent int) {
	var err error
	if s.lib != nil {
		var n *atomic.Int32
		ctx, n = counting(ctx)
		res, err = lib(s.lib, ctx, req)
		sent = int(n.Load())
	} else {
		o.Direct = true
		sent = 1
		res, o.Process, err = direct(ctx, s.member, func(ctx context.Context, n *node.Node) (Res, error) { return local(ctx, n, req) })
	}
	o.Outcome = outcomeOf(err)
	if err != nil {
		o.Err = err.Error()
	}
	return res, sent
}

func (c *worker) issue(ctx context.Context) {
	h := c.world.history
	ttl := time.Duration(1+c.rng.IntN(20)) * time.Second
	if c.rng.IntN(8) == 0 {
		ttl = time.Minute
	}
	s := c.somewhere()
	o := h.begin(Issue, c.book.user)
	o.TTL = ttl
	res, sent := ask(ctx, o, s, &v1.IssueRequest{Subject: c.book.user, Ttl: durationpb.New(ttl)},
		func(ctx context.Context, n *node.Node, req *v1.IssueRequest) (*v1.IssueResponse, error) {
			return n.Issue(ctx, caller, req)
		}, (*client.Client).Issue)
	o.Hidden = sent > 1
	if o.Outcome == OK {
		o.Key, o.Expires = c.key(res.GetKeyId()), res.GetExpiresAt().AsTime()
	}
	h.end(o)
	if o.Outcome == OK {
		c.book.add(held{raw: res.GetToken(), key: o.Key, expires: o.Expires})
	}
}

func (c *worker) key(text string) fsm.KeyID {
	id, err := fsm.ParseKeyID(text)
	if err != nil {
		c.world.violation("key id %q: %v", text, err)
	}
	return id
}

func (c *worker) verify(ctx context.Context) {
	if token, ok := c.book.pick(c.rng); ok {
		c.judge(ctx, c.somewhere(), c.level(), token)
	}
}

// level draws the consistency that a verification asks for.
func (c *worker) level() Level {
	switch n := c.rng.IntN(20); {
	case n < 3:
		return Linearizable
	case n < 5:
		return StaleOK
	}
	return Bounded
}

var consistency = map[Level]v1.VerifyRequest_Consistency{
	Bounded: v1.VerifyRequest_BOUNDED, Linearizable: v1.VerifyRequest_LINEARIZABLE, StaleOK: v1.VerifyRequest_STALE_OK,
}

// judge has one token verified.
func (c *worker) judge(ctx context.Context, s service, level Level, token held) {
	h := c.world.history
	o := h.begin(Verify, c.book.user)
	o.Level, o.Key, o.Expires = level, token.key, token.expires
	res, _ := ask(ctx, o, s, &v1.VerifyRequest{Token: token.raw, Consistency: consistency[level]},
		func(ctx context.Context, n *node.Node, req *v1.VerifyRequest) (*v1.VerifyResponse, error) {
			return n.Verify(ctx, req)
		}, (*client.Client).Verify)
	if o.Outcome == OK {
		c.world.verdict(o, res)
	}
	h.end(o)
}

// verdict reads what a node answered.
func (w *World) verdict(o *Op, res *v1.VerifyResponse) {
	o.Reason, o.Revision, o.Staleness = res.GetReason(), res.GetRevision(), res.GetStaleness().AsDuration()
	if o.Process == "" {
		o.Process = res.GetNode()
	}
	o.Early, o.Late = w.leniency(o)
	if res.GetValid() != (o.Reason == v1.VerifyResponse_NONE) || res.GetValid() && (res.GetSubject() != o.User || res.GetKeyId() != o.Key.String()) {
		w.violation("a verdict that contradicts itself or its token: %v", o)
	}
}

// batch has some tokens verified at once; each verdict is an operation of its own.
func (c *worker) batch(ctx context.Context) {
	h := c.world.history
	req := &v1.VerifyBatchRequest{}
	var tokens []held
	for range 2 + c.rng.IntN(6) {
		if token, ok := c.book.pick(c.rng); ok {
			tokens = append(tokens, token)
			req.Tokens = append(req.Tokens, token.raw)
		}
	}
	if len(tokens) == 0 {
		return
	}
	s := c.somewhere()
	whole := h.begin(Verify, c.book.user)
	whole.Level = c.level()
	req.Consistency = consistency[whole.Level]
	res, _ := ask(ctx, whole, s, req,
		func(ctx context.Context, n *node.Node, req *v1.VerifyBatchRequest) (*v1.VerifyBatchResponse, error) {
			return n.VerifyBatch(ctx, req)
		}, (*client.Client).VerifyBatch)
	ops := make([]*Op, len(tokens))
	for i, token := range tokens {
		o := *whole
		o.Key, o.Expires = token.key, token.expires
		if o.Outcome == OK {
			c.world.verdict(&o, res.GetVerdicts()[i])
		}
		ops[i] = &o
	}
	h.end(ops...)
}

// changed is what the three changes of a user's keys answer.
type changed interface{ GetRevision() uint64 }

// change rotates, revokes or deletes.
func (c *worker) change(ctx context.Context, kind Kind) {
	h := c.world.history
	var expected fsm.KeyID
	if c.rng.IntN(2) == 0 {
		expected = c.book.expected()
	}
	s := c.somewhere()
	o := h.begin(kind, c.book.user)
	o.Expected = expected
	var res changed
	var sent int
	var id string
	switch kind {
	case Rotate:
		r, n := ask(ctx, o, s, &v1.RotateRequest{Subject: o.User, ExpectedKeyId: expected.String()},
			func(ctx context.Context, n *node.Node, req *v1.RotateRequest) (*v1.RotateResponse, error) {
				return n.Rotate(ctx, caller, req)
			}, (*client.Client).Rotate)
		res, sent, id = r, n, r.GetKeyId()
	case Revoke:
		r, n := ask(ctx, o, s, &v1.RevokeRequest{Subject: o.User, ExpectedKeyId: expected.String()},
			func(ctx context.Context, n *node.Node, req *v1.RevokeRequest) (*v1.RevokeResponse, error) {
				return n.Revoke(ctx, caller, req)
			}, (*client.Client).Revoke)
		res, sent, id = r, n, r.GetKeyId()
	default:
		res, sent = ask(ctx, o, s, &v1.DeleteRequest{Subject: o.User, ExpectedKeyId: expected.String()},
			func(ctx context.Context, n *node.Node, req *v1.DeleteRequest) (*v1.DeleteResponse, error) {
				return n.Delete(ctx, caller, req)
			}, (*client.Client).Delete)
	}
	switch {
	case o.Outcome == OK:
		o.Revision = res.GetRevision()
		if id != "" {
			o.Key = c.key(id)
			c.book.saw(o.Key)
		}
	case sent > 1 && (o.Outcome == NotFound || o.Outcome == Conflict):
		o.Outcome = Open // an earlier attempt may have been what changed the key
	}
	h.end(o)
	if o.Outcome == OK || o.Outcome == NotFound {
		c.probe()
	}
}

// probe has tokens of before verified at some nodes, right after a change.
func (c *worker) probe() {
	for range 1 + c.rng.IntN(3) {
		c.probeAt(c.world.members[c.rng.IntN(len(c.world.members))])
	}
}

// probeAt has a token verified at a node.
func (c *worker) probeAt(m *member) {
	token, ok := c.book.pick(c.rng)
	if !ok {
		return
	}
	level := Bounded
	if c.rng.IntN(2) == 0 {
		level = Linearizable
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	c.judge(ctx, service{member: m}, level, token)
}

// greet has every user's tokens verified at a member that was away for some time, as soon as it can answer. It is called
// while the member is still away; the calls that it returns with are waited for by wait.
func (w *World) greet(m *member) (wait func()) {
	var calls sync.WaitGroup
	for i, b := range w.books {
		c := &worker{world: w, book: b, rng: w.random(fmt.Sprintf("greet %s %d %v", m.host, i, w.at()))}
		calls.Go(func() {
			for range 2 {
				c.probeAt(m)
			}
		})
	}
	return calls.Wait
}

func (c *worker) get(ctx context.Context) { c.look(ctx, c.somewhere(), Bounded) }

// newest reads the keys where nothing is missing: at the leader of a cluster that is settled.
func (c *worker) newest(ctx context.Context, s service) { c.look(ctx, s, Linearizable) }

// look reads which keys the user has.
func (c *worker) look(ctx context.Context, s service, level Level) {
	h := c.world.history
	o := h.begin(Get, c.book.user)
	o.Level = level
	res, _ := ask(ctx, o, s, &v1.GetRequest{Subject: o.User},
		func(ctx context.Context, n *node.Node, req *v1.GetRequest) (*v1.GetResponse, error) {
			return n.Get(ctx, req)
		}, (*client.Client).Get)
	if o.Outcome == OK {
		o.Revision = res.GetRevision()
		o.Key = c.key(res.GetKeys()[0].GetKeyId())
		c.book.saw(o.Key)
	}
	h.end(o)
}

// list reads a page, and looks whether it is in order.
func (c *worker) list(ctx context.Context) {
	h := c.world.history
	s := c.somewhere()
	o := h.begin("list", "")
	res, _ := ask(ctx, o, s, &v1.ListRequest{PageSize: 3},
		func(ctx context.Context, n *node.Node, req *v1.ListRequest) (*v1.ListResponse, error) {
			return n.List(ctx, req)
		}, (*client.Client).List)
	o.Revision = res.GetRevision()
	h.end(o)
	last := ""
	for _, user := range res.GetSubjects() {
		if user.GetSubject() <= last || len(user.GetKeys()) == 0 || user.GetKeys()[0].GetState() != v1.Key_ACTIVE {
			c.world.violation("a page that is out of order: %v", res)
		}
		last = user.GetSubject()
	}
}

// settings changes one that the checks do not depend on.
func (c *worker) settings(ctx context.Context) {
	member := c.world.members[c.rng.IntN(len(c.world.members))]
	most := uint32(20 + c.rng.IntN(40))
	_, _, err := direct(ctx, member, func(ctx context.Context, n *node.Node) (*v1.UpdateSettingsResponse, error) {
		return n.UpdateSettings(ctx, caller, &v1.UpdateSettingsRequest{Settings: &v1.Settings{MaxRetiringKeys: &most}})
	})
	if o := outcomeOf(err); o != OK && o != Failed && o != Open {
		c.world.violation("a change of the settings: %v", err)
	}
}
