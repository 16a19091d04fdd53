package fsm

import (
	"fmt"
	"io"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	"github.com/keyquorum/keyquorum/fsm/internal/logpb"
)

// Snapshot keeps the present View, at no cost. It fails once the FSM has halted.
func (f *FSM) Snapshot() (raft.FSMSnapshot, error) {
	if err := f.Err(); err != nil {
		return nil, err
	}
	return snapshot{f.View(), f.audit}, nil
}

// snapshot is a View to be written.
type snapshot struct {
	view  *View
	audit Audit
}

// Persist writes the View, while entries go on being applied. The audit records of what it stands for are kept first: the
// log that they follow from may be dropped once there is a snapshot.
func (s snapshot) Persist(sink raft.SnapshotSink) error {
	if s.audit != nil {
		if err := s.audit.Flush(s.view.audited); err != nil {
			_ = sink.Cancel()
			return fmt.Errorf("keep the audit records before a snapshot: %w", err)
		}
	}
	if err := s.view.WriteSnapshot(sink); err != nil {
		_ = sink.Cancel() // the first error says more
		return err
	}
	if err := sink.Close(); err != nil {
		return fmt.Errorf("finish snapshot: %w", err)
	}
	return nil
}

// Release has nothing to do: a View is garbage like any other.
func (snapshot) Release() {}

// WriteSnapshot writes the View in the format of snapshots. Equal states give equal bytes, on every node.
func (v *View) WriteSnapshot(w io.Writer) error {
	if err := v.write(newRecordWriter(w)); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	return nil
}

func (v *View) write(w *recordWriter) error {
	if err := v.writeHead(w); err != nil {
		return err
	}
	var b []byte
	for u := range v.users.All() {
		b = appendUser(b[:0], u)
		if err := w.record(b); err != nil {
			return fmt.Errorf("user %q: %w", u.Subject, err)
		}
	}
	return w.finish()
}

func (v *View) writeHead(w *recordWriter) error {
	m, err := v.proto()
	if err != nil {
		return err
	}
	if err := writeMessage(w, m); err != nil {
		return err
	}
	for i := range v.members {
		m, err := v.members[i].proto()
		if err != nil {
			return err
		}
		if err := writeMessage(w, m); err != nil {
			return err
		}
	}
	return nil
}

func writeMessage(w *recordWriter, m proto.Message) error {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return err
	}
	return w.record(b)
}

// proto gives the snapshot's first record. Before the founding there are no settings.
func (v *View) proto() (*logpb.SnapshotHeader, error) {
	m := &logpb.SnapshotHeader{
		Format:       Format,
		Position:     v.position,
		Revision:     v.revision,
		TimeMs:       v.now,
		ClusterId:    v.clusterID,
		KeyringCheck: v.keyringCheck,
		Members:      uint64(len(v.members)),
		Users:        uint64(v.users.Len()),
		Removed:      v.removed,
		Former:       v.former,
		MasterKeys:   masterKeysProto(v.masterKeys),
	}
	if v.audited.Sequence != 0 {
		m.AuditSequence, m.AuditHash = v.audited.Sequence, v.audited.Hash[:]
	}
	for i := range v.apiTokens {
		m.ApiTokens = append(m.ApiTokens, v.apiTokens[i].proto())
	}
	if !v.Founded() {
		return m, nil
	}
	var err error
	m.Settings, err = v.settings.proto()
	return m, err
}
