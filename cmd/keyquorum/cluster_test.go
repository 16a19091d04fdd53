package main

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

func TestStatusAsksEachMemberForItself(t *testing.T) {
	one, two, other := &fakeNode{}, &fakeNode{}, &fakeNode{}
	hostPort := func(n *fakeNode) string { return strings.TrimPrefix(n.serve(t), "http://") }
	members := []*v1.Member{
		{NodeId: "id-1", Name: "n1", Role: v1.Member_VOTER, RpcAddress: hostPort(one), Region: "eu"},
		{NodeId: "id-2", Name: "n2", Role: v1.Member_VOTER, RpcAddress: hostPort(two)},
		{NodeId: "id-3", Name: "n3", Role: v1.Member_NON_VOTER, RpcAddress: strings.TrimPrefix(nobody(t), "http://")},
		{NodeId: "id-4", Name: "n4", Role: v1.Member_NON_VOTER, Replica: true, RpcAddress: hostPort(other)},
	}
	clock := &v1.Clock{Known: true, Time: timestamppb.New(began), Offset: durationpb.New(-3 * time.Millisecond)}
	one.status = &v1.StatusResponse{
		ClusterId: "c-1", Node: members[0], LeaderId: "id-2", Ready: true, Term: 4, Revision: 9, Users: 2, Keys: 3,
		AppliedIndex: 40, CommitIndex: 41, Clock: clock, Members: members, Staleness: durationpb.New(1234567 * time.Microsecond),
	}
	two.status = &v1.StatusResponse{Node: members[1], NotReadyBecause: "catching up", AppliedIndex: 44, CommitIndex: 45, Clock: &v1.Clock{}}
	other.status = &v1.StatusResponse{Node: &v1.Member{NodeId: "a stranger"}, Ready: true}

	out := at(t, members[0].GetRpcAddress()).must(0, "cluster", "status").out
	wants(t, out, "cluster   c-1", "leader    n2", "term      4", "revision  9", "users     2, with 3 keys",
		"time      2026-11-01T12:00:00Z", "seen by   n1", "n2 is not ready: catching up")
	rows := map[string][]string{}
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) > 8 {
			rows[f[0]] = f[1:7]
		}
	}
	for name, want := range map[string]string{
		"NAME": "ROLE READY LAG STALENESS CLOCK REGION",
		"n1":   "voter yes 5 1.235s -3ms eu",
		"n2":   "leader no 1 - unknown -",
		"n3":   "joining no answer - - -",
		"n4":   "replica no answer - - -", // another node answers there
	} {
		if got := strings.Join(rows[name], " "); got != want {
			t.Errorf("%s: %q, want %q\n%s", name, got, want, out)
		}
	}
}

func TestStatusOfANodeInNoCluster(t *testing.T) {
	n := &fakeNode{status: &v1.StatusResponse{Node: &v1.Member{Name: "n1"}, NotReadyBecause: "in no cluster yet"}}
	out := at(t, n.serve(t)).must(0, "cluster", "status").out
	wants(t, out, "not founded yet", "none that this node knows of", "not ready: in no cluster yet")
}

// However many members a node tells of, only some are asked at a time, and only some shown.
func TestStatusOfTooManyMembers(t *testing.T) {
	crowd, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer crowd.Close()
	n := &fakeNode{status: &v1.StatusResponse{ClusterId: "c-1", Node: &v1.Member{Name: "n1"}}}
	for i := range 3 * maxShown {
		n.status.Members = append(n.status.Members, &v1.Member{NodeId: fmt.Sprint("id-", i), Name: "crowd", RpcAddress: crowd.Addr().String()})
	}
	sh, done := at(t, n.serve(t)), make(chan string)
	go func() { done <- sh.run("cluster", "status").out }()

	var asked []net.Conn
	for range maxAsked {
		asked = append(asked, accept(t, crowd))
	}
	// Whoever else was asked now is waiting at the door already.
	if err := crowd.SetDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if more, err := crowd.Accept(); err == nil {
		_ = more.Close()
		t.Errorf("more than %d are asked at a time", maxAsked)
	}
	_ = crowd.Close()
	for _, c := range asked {
		_ = c.Close()
	}
	out := <-done
	if rows := strings.Count(out, "no answer"); rows != maxShown {
		t.Errorf("%d members are shown", rows)
	}
	wants(t, out, fmt.Sprintf("and %d more, which were not asked", 2*maxShown))
}

func accept(t *testing.T, l net.Listener) net.Conn {
	t.Helper()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return c
}
