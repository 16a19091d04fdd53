package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect"

	"github.com/keyquorum/keyquorum/internal/audit"
	"github.com/keyquorum/keyquorum/internal/auditfile"
	"github.com/keyquorum/keyquorum/rpc"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
	"github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1/keyquorumv1connect"
)

// keeper is a node that tells who the members are, and what is on record.
type keeper struct {
	keyquorumv1connect.UnimplementedClusterServiceHandler
	keyquorumv1connect.UnimplementedAuditServiceHandler

	id      string
	members []*v1.Member
	mu      sync.Mutex
	chain   []audit.Entry
	// next is what the chain is once somebody has asked for a record that it has not; nil for no change.
	next []audit.Entry
}

func (k *keeper) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle(keyquorumv1connect.NewClusterServiceHandler(k))
	mux.Handle(keyquorumv1connect.NewAuditServiceHandler(k))
	return mux
}

// serve runs the node at one more port of loopback, and returns HOST:PORT.
func (k *keeper) serve(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(k.handler())
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func (k *keeper) Members(context.Context, *connect.Request[v1.MembersRequest]) (*connect.Response[v1.MembersResponse], error) {
	return connect.NewResponse(&v1.MembersResponse{Members: k.members}), nil
}

func (k *keeper) Head(context.Context, *connect.Request[v1.AuditServiceHeadRequest]) (*connect.Response[v1.AuditServiceHeadResponse], error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	last := k.chain[len(k.chain)-1]
	return connect.NewResponse(&v1.AuditServiceHeadResponse{NodeId: k.id, Sequence: last.Sequence, Hash: last.Hash.String()}), nil
}

func (k *keeper) List(_ context.Context, r *connect.Request[v1.AuditServiceListRequest]) (*connect.Response[v1.AuditServiceListResponse], error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	from := min(int(r.Msg.GetFrom())-1, len(k.chain))
	upTo := min(from+int(r.Msg.GetPageSize()), len(k.chain))
	found := k.chain[from:upTo]
	if len(found) == 0 && k.next != nil {
		k.chain = k.next
	}
	return connect.NewResponse(&v1.AuditServiceListResponse{Records: rpc.AuditMessages(found)}), nil
}

// history is a chain of eight records, of which those from one on are not the true ones; 9 for none.
func history(from int) []audit.Entry {
	var head audit.Head
	var all []audit.Entry
	for i := 1; i <= 8; i++ {
		e := audit.Entry{Record: audit.Record{Sequence: uint64(i), Position: uint64(i), Kind: audit.KeyRotated, Subject: "alice", Actor: "login"}}
		if i >= from {
			e.Actor = "another"
		}
		head, _ = head.Next(&e.Record, nil)
		e.Hash = head.Hash
		all = append(all, e)
	}
	return all
}

// filesOf keeps a chain as a node does.
func filesOf(t *testing.T, chain []audit.Entry) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "audit")
	s, err := auditfile.Open(dir, auditfile.Options{MaxSize: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Append(audit.Head{}, chain); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

// keepers runs nodes that have those chains, id-1 named n1 and so on, and know each other.
func keepers(t *testing.T, chains ...[]audit.Entry) []*keeper {
	t.Helper()
	var all []*keeper
	var members []*v1.Member
	for i, chain := range chains {
		k := &keeper{id: fmt.Sprint("id-", i+1), chain: chain}
		all = append(all, k)
		members = append(members, memberAt(k.id, k.serve(t)))
	}
	for _, k := range all {
		k.members = members
	}
	return all
}

// memberAt is id-1 by the name n1, and so on.
func memberAt(id, address string) *v1.Member {
	return &v1.Member{NodeId: id, Name: strings.Replace(id, "id-", "n", 1), RpcAddress: address, Role: v1.Member_VOTER}
}

// home is where the cluster has the node.
func (k *keeper) home() string {
	for _, m := range k.members {
		if m.GetNodeId() == k.id {
			return m.GetRpcAddress()
		}
	}
	return ""
}

// conspire has nodes with those ids tell what this one does, and names them as members.
func (k *keeper) conspire(t *testing.T, ids ...string) {
	t.Helper()
	var others []*keeper
	all := slices.Clone(k.members)
	for _, id := range ids {
		other := &keeper{id: id, chain: k.chain}
		others = append(others, other)
		all = append(all, memberAt(id, other.serve(t)))
	}
	for _, other := range append(others, k) {
		other.members = all
	}
}

func verifyAudit(t *testing.T, code int, files string, addresses ...string) result {
	t.Helper()
	return at(t, strings.Join(addresses, ",")).must(code, "audit", "verify", files)
}

func TestAuditVerifyNamesWhoVouches(t *testing.T) {
	files := filesOf(t, history(9))
	k := keepers(t, history(9), history(9), history(9))
	hash := k[0].chain[7].Hash.String()
	wants(t, verifyAudit(t, 0, files, k[1].home()).out,
		"good: records 1 to 8 are as 3 of 3 members have them; the head is record 8, "+hash, "  vouching  n1, n2, n3\n")
	wants(t, at(t, k[1].home()).must(0, "audit", "verify", files, "--json").out,
		`{"good":true,"first":1,"last":8,"head":8,"headHash":"`+hash+`","members":3,"vouching":["id-1","id-2","id-3"]}`)
	wants(t, verifyAudit(t, 1, filesOf(t, history(5)), k[0].home()).out,
		"bad: record 5 is rewritten; 3 of 3 members agree on the head", "  vouching  n1, n2, n3\n")
}

func TestAuditVerifyIsOutvotedByNoSingleMember(t *testing.T) {
	files := filesOf(t, history(9))
	k := keepers(t, history(9), history(5), history(9))
	for _, asked := range k {
		wants(t, verifyAudit(t, 0, files, asked.home()).out, "good: ", "2 of 3 members", "  vouching   n1, n3\n", "  differing  n2\n")
		wants(t, verifyAudit(t, 1, filesOf(t, history(5)), asked.home()).out, "bad: record 5 is rewritten; 2 of 3 members")
	}
	k = keepers(t, history(9), history(5), history(6))
	for _, asked := range k {
		wants(t, verifyAudit(t, 3, files, asked.home()).errors, "no majority of the members tells the same, about record 8", "n1: ", "n2: ", "n3: ")
	}
}

func TestAuditVerifyTellsWhoIsSilent(t *testing.T) {
	files := filesOf(t, history(9))
	k := keepers(t, history(9), history(9), history(9))
	k[0].members[2].RpcAddress = strings.TrimPrefix(nobody(t), "http://")
	wants(t, verifyAudit(t, 0, files, k[0].home()).out, "2 of 3 members", "  vouching  n1, n2\n", "  silent    n3 at 127.0.0.1:", "connection refused")
	k[0].members[1].RpcAddress = strings.TrimPrefix(nobody(t), "http://")
	wants(t, verifyAudit(t, 3, files, k[0].home()).errors, "no majority", "of 3 that the nodes name, these answered: n1; n2 at ")
}

// Root at one node has its audit files rewritten, and the node answer whatever suits it.
func TestAuditVerifyIsNotFooledByOneNode(t *testing.T) {
	for name, lie := range map[string]struct {
		tell func(t *testing.T, liar *keeper)
		code int
		told string
	}{
		"it is alone": {func(_ *testing.T, liar *keeper) { liar.members = liar.members[1:2] }, 1, "2 of 3 members"},
		"it is there three times": {func(t *testing.T, liar *keeper) {
			liar.members = []*v1.Member{memberAt("id-2", liar.home()), memberAt("id-2", liar.serve(t)), memberAt("id-2", liar.serve(t))}
		}, 1, "2 of 3 members"},
		"there are others, who say the same": {func(t *testing.T, liar *keeper) {
			liar.members = liar.members[1:2]
			liar.conspire(t, "id-8", "id-9")
		}, 3, "of 3 that "},
		"there are others besides": {func(t *testing.T, liar *keeper) {
			liar.conspire(t, "id-7", "id-8", "id-9")
		}, 3, "of 3 that "},
		"the others are where it answers for them": {func(t *testing.T, liar *keeper) {
			liar.members = liar.members[1:2]
			liar.conspire(t, "id-1", "id-3")
		}, 3, "n2: "},
		"there is a crowd": {func(_ *testing.T, liar *keeper) {
			for i := range maxPlaces {
				liar.members = append(liar.members, memberAt(fmt.Sprint("id-", i), liar.home()))
			}
		}, 3, "the nodes name more than 256"},
	} {
		t.Run(name, func(t *testing.T) {
			k := keepers(t, history(9), history(5), history(9))
			lie.tell(t, k[1])
			files, honest, liar := filesOf(t, k[1].chain), k[0].home(), k[1].home()
			for _, addresses := range [][]string{{liar, honest}, {honest, liar}, {honest}} {
				r := verifyAudit(t, lie.code, files, addresses...)
				wants(t, r.out+r.errors, lie.told)
			}
		})
	}
}

// With nobody else to ask, the answer says so.
func TestAuditVerifyTellsThatOneNodeVouchesAlone(t *testing.T) {
	liar := keepers(t, history(5))[0]
	files := filesOf(t, liar.chain)
	alone := "  vouching  n1 alone: no node names another member\n"
	wants(t, verifyAudit(t, 0, files, liar.home()).out, "1 of 1 members", alone)
	for range 2 {
		liar.members = append(liar.members, memberAt(liar.id, liar.serve(t)))
	}
	wants(t, verifyAudit(t, 0, files, liar.home()).out, "1 of 1 members", alone)
	for _, m := range liar.members {
		m.Name = "n1"
	}
	for i, id := range []string{"id-8", "id-9"} {
		liar.members[i+1] = &v1.Member{NodeId: id, Name: "n1", RpcAddress: (&keeper{id: id, members: liar.members, chain: liar.chain}).serve(t)}
	}
	wants(t, verifyAudit(t, 3, files, liar.home()).errors, "no majority") // one name has one vote
}

func TestAuditVerifyCountsOnlyTheMemberThatWasAsked(t *testing.T) {
	files := filesOf(t, history(9))
	k := keepers(t, history(9), history(9), history(9))
	k[2].id = "id-1"
	wants(t, verifyAudit(t, 0, files, k[0].home()).out, "2 of 3 members", "  vouching  n1, n2\n", "another node answers: id-1")
	k[1].id = "id-1"
	wants(t, verifyAudit(t, 3, files, k[0].members[0].GetRpcAddress()).errors, "no majority", "these answered: n1;")
}

// A node that hides its last records has everybody's cut off if the head is the last one that all have.
func TestAuditVerifyTakesNoEarlierHeadOfOneNode(t *testing.T) {
	files := filesOf(t, history(9)[:5])
	t.Run("the others answer", func(t *testing.T) {
		t.Parallel() // it takes the time that a node has for writing its last records
		k := keepers(t, history(9), history(9)[:5], history(9))
		wants(t, verifyAudit(t, 1, files, k[1].home()).out, "bad: record 6 is cut off; 2 of 3 members agree on the head, record 8", "  lagging   n2\n")
	})
	t.Run("one other answers", func(t *testing.T) {
		t.Parallel()
		k := keepers(t, history(9), history(9)[:5], history(9))
		k[0].members[2].RpcAddress = strings.TrimPrefix(nobody(t), "http://")
		wants(t, verifyAudit(t, 3, files, k[1].home()).errors, "no majority of the members tells the same, about record 8")
	})
}

// A node that runs may be about to write a record: it is waited for, and does not tell otherwise.
func TestAuditVerifyWaitsForTheLastRecordsOfAMember(t *testing.T) {
	k := keepers(t, history(9), history(9)[:7], history(9))
	k[1].next = history(9)
	wants(t, verifyAudit(t, 0, filesOf(t, history(9)), k[0].home()).out, "as 3 of 3 members have them", "  vouching  n1, n2, n3\n")
}
