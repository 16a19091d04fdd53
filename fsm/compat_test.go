package fsm

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/keyquorum/keyquorum/internal/audit"
)

var update = flag.Bool("update", false, "write the golden files of the present format anew")

// golden is where the files of the present format are. A released format keeps its folder, and its test, for ever.
var golden = filepath.Join("..", "test", "compat", "fsm", fmt.Sprintf("format-%d", Format))

// goldenFile gives the file's bytes; with -update it writes them first.
func goldenFile(t *testing.T, name string, now []byte) []byte {
	t.Helper()
	path := filepath.Join(golden, name)
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, now, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestGoldenEntries: an entry of each operation is read as what it was written from, and still written so.
func TestGoldenEntries(t *testing.T) {
	for i, op := range everyOp() {
		want := Entry{Time: at(float64(i) / 8), Commands: commands([]Op{op})}
		if i == 0 {
			want.Time = time.Time{}
		}
		now, err := EncodeEntry(want)
		if err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprintf("entry-%02d-%s.golden", i, strings.ToLower(reflect.TypeOf(op).Name()))
		b := goldenFile(t, name, now)
		got, err := DecodeEntry(b)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s is read as\n%+v\nnot as\n%+v", name, got, want)
		}
		if !bytes.Equal(now, b) {
			t.Errorf("%s would be written as\n%x\nnot as\n%x", name, now, b)
		}
	}
}

// TestGoldenHistory: a log of the past still leads to the same bytes. That is more than being able to read it:
// a node that replays it must come to the state of those that applied it when it was new.
func TestGoldenHistory(t *testing.T) {
	log, snapshot := history(t)
	var records kept
	f := New(Config{Audit: &records})
	for i, entry := range splitLog(t, goldenFile(t, "history.golden", log)) {
		f.Apply(&raft.Log{Index: uint64(i + 1), Type: raft.LogCommand, Data: entry})
	}
	if f.Err() != nil {
		t.Fatal(f.Err())
	}
	var lines []byte
	for i := range records.entries {
		lines, _ = audit.AppendLine(lines, &records.entries[i])
	}
	if want := goldenFile(t, "history.jsonl", lines); !bytes.Equal(lines, want) {
		t.Errorf("the log leads to the audit records\n%s\nnot to\n%s", lines, want)
	}
	want := goldenFile(t, "history.snap", snapshot)
	if got := snapshotOf(t, f); !bytes.Equal(got, want) {
		t.Fatalf("the log leads to\n%x\nnot to\n%x", got, want)
	}
	if got := snapshotOf(t, restored(t, want)); !bytes.Equal(got, want) {
		t.Fatalf("the snapshot is restored as\n%x", got)
	}
}

// history makes a log in which everything happens, refusals too, and the snapshot that it leads to. The log is
// its entries, each behind its length.
func history(t *testing.T) (log, snapshot []byte) {
	r := &rig{FSM: New(Config{}), t: t}
	send := func(now time.Time, ops ...Op) {
		l := r.log(now, ops...)
		log = binary.AppendUvarint(log, uint64(len(l.Data)))
		log = append(log, l.Data...)
		r.Apply(l)
	}
	sendDue := func(now time.Time) {
		op := Expire{Items: []ExpireItem{{Subject: "nobody"}}}
		for _, d := range r.View().Due(now, 1000) {
			op.Items = append(op.Items, ExpireItem{Subject: d.Subject, Key: d.Key, Candidate: r.cand()})
		}
		send(now, op)
	}
	issue := func(subject string, ttl time.Duration) Issue {
		return Issue{Subject: subject, TTL: ttl * time.Second, Candidate: r.cand(), TokenID: "jti-" + subject}
	}
	settings := DefaultSettings()
	settings.MaxRetiring = 2
	send(time.Time{}, Issue{Subject: "too early"})
	send(time.Time{}, Found{ClusterID: "9b2f2a5e-0000-4000-8000-000000000001", Settings: settings, KeyringCheck: []byte("check")})
	for i := range 3 {
		id := fmt.Sprintf("00000000-0000-4000-8000-00000000000%d", i)
		send(at(0), PutMember{Member{
			ID: id, Name: fmt.Sprint("node-", i), Region: "eu", RPCAddress: "10.0.0.1:7400",
			RaftAddress: "10.0.0.1:7401", Version: "0.1.0", Format: 1, Replica: i == 2,
		}})
	}
	send(at(0.25), RemoveMember{ID: "00000000-0000-4000-8000-000000000001"})
	send(at(0.25), RemoveMember{ID: "00000000-0000-4000-8000-000000000002"}, Tick{}, ForgetMembers{IDs: []string{"00000000-0000-4000-8000-000000000002", "nobody"}})
	send(at(0.5), issue("ada", 60), issue("ada", 90), issue("bob", 0), issue("ünï cødé", 5), Issue{Subject: "no candidate"})
	send(at(1), Rotate{Subject: "ada", Candidate: *r.cand()}, issue("ada", 120), issue("ada", 30))
	send(at(2), Rotate{Subject: "ada", Candidate: *r.cand()}, issue("ada", 20))
	send(at(3), issue("ada", 40), Rotate{Subject: "ada", Candidate: *r.cand()}) // both refused: too many
	send(time.Time{}, Revoke{Subject: "bob", Candidate: *r.cand()}, issue("bob", 10))
	send(at(1), issue("eve", 10), Delete{Subject: "eve"}, issue("eve", 10)) // the log's time stays
	sendDue(at(25))
	send(at(26), UpdateSettings{Mode: new(Strict), ForgetAfter: new(30 * time.Second), MaxRetiring: new(1)})
	send(at(27), issue("ada", 10), issue("ada", 50), issue("zoë", 3))
	sendDue(at(40))
	send(at(41), issue("ada", 600), issue("bob", 600), UpdateSettings{Issuer: new("")})
	// The master key is rotated: a key that it lacks a holder for, then one for all, and the first is retired.
	node0 := "00000000-0000-4000-8000-000000000000"
	send(at(42), UseMasterKey{ID: 7, KeyringCheck: sealedUnder(7, 1)}, UseMasterKey{ID: 7, KeyringCheck: sealedUnder(7, 1), Holders: []string{node0}})
	send(at(43), Rotate{Subject: "ada", Candidate: Candidate{Random: 70, Sealed: sealedUnder(7, 70)}})
	send(at(44), UseMasterKey{ID: 8, KeyringCheck: sealedUnder(8, 1), Holders: []string{node0}}, RetireMasterKey{ID: 7})
	ada, _ := r.View().User("ada")
	send(at(45), Rewrap{Items: []RewrapItem{{Subject: "ada", Key: ada.Active.ID, Sealed: sealedUnder(8, 71)}, {Subject: "eve", Key: ada.Active.ID, Sealed: sealedUnder(8, 1)}}})
	send(at(46), RetireMasterKey{ID: 7}, RetireMasterKey{ID: 9}, Revoke{Subject: "ada", Candidate: Candidate{Random: 72, Sealed: sealedUnder(7, 72)}})
	return log, snapshotOf(t, r.FSM)
}

func splitLog(t *testing.T, b []byte) (entries [][]byte) {
	t.Helper()
	for len(b) > 0 {
		n, size := binary.Uvarint(b)
		if size <= 0 || n > uint64(len(b)-size) {
			t.Fatal("the golden log is no sequence of entries")
		}
		entries = append(entries, b[size:size+int(n)])
		b = b[size+int(n):]
	}
	return entries
}
