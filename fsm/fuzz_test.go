package fsm

import (
	"bytes"
	"reflect"
	"testing"

	"github.com/hashicorp/raft"
)

// FuzzDecodeEntry: bytes are an entry or an error. What is taken for an entry can be said again, just as long,
// and can be applied.
func FuzzDecodeEntry(f *testing.F) {
	for _, op := range everyOp() {
		b, err := EncodeEntry(Entry{Time: at(1), Commands: commands([]Op{op})})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := DecodeEntry(b)
		if err != nil {
			return
		}
		again, err := EncodeEntry(e)
		if err != nil || len(again) != len(b) {
			t.Fatalf("%x\nis said again as\n%x (%v)", b, again, err)
		}
		if e2, err := DecodeEntry(again); err != nil || !reflect.DeepEqual(e, e2) {
			t.Fatalf("%+v\nbecame\n%+v (%v)", e, e2, err)
		}
		r := someState(t)
		r.Apply(&raft.Log{Index: 1000, Type: raft.LogCommand, Data: b})
		if r.Err() != nil {
			t.Fatal(r.Err())
		}
		want := snapshotOf(t, r.FSM)
		if got := snapshotOf(t, restored(t, want)); !bytes.Equal(got, want) {
			t.Fatalf("%x leads to a state that changes by being restored", b)
		}
	})
}

// FuzzRestore: the records of a snapshot, in a good frame, are a state or an error. A state gives the same
// records again.
func FuzzRestore(f *testing.F) {
	for _, fsm := range []*FSM{New(Config{}), someState(f).FSM, newRig(f, strict).FSM} {
		f.Add(recordsOf(f, snapshotOf(f, fsm)))
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, records []byte) {
		if _, err := ReadSnapshot(bytes.NewReader(records)); err == nil {
			t.Fatal("records without a frame are taken")
		}
		b := framed(records)
		v, err := ReadSnapshot(bytes.NewReader(b))
		if err != nil {
			return
		}
		var again bytes.Buffer
		if err := v.WriteSnapshot(&again); err != nil {
			t.Fatal(err)
		}
		if again.Len() != len(b) {
			t.Fatalf("%x\nis said again as\n%x", b, again.Bytes())
		}
		v.Due(at(1e9), 10)
		v.NextDue()
	})
}

// recordsOf takes the frame off a snapshot, framed puts it on.
func recordsOf(t tb, b []byte) []byte {
	t.Helper()
	return b[len(magic)+4 : len(b)-1-32]
}

func framed(records []byte) []byte {
	var b bytes.Buffer
	w := newRecordWriter(&b)
	w.emit(records)
	if err := w.finish(); err != nil {
		panic(err)
	}
	return b.Bytes()
}
