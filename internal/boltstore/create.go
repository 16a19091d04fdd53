package boltstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"

	"github.com/keyquorum/keyquorum/internal/plainfile"
)

// tailIndex is where the tail stands in the bucket of the log: behind every entry that there can be.
const tailIndex = math.MaxUint64

// tail gives the record that says which entry is the last; 0 for none.
func tail(last uint64) (*raft.Log, error) {
	return wrap(&raft.Log{Index: tailIndex, Data: binary.BigEndian.AppendUint64(nil, last)})
}

// wrap gives the entry that raft-boltdb is given for l: its index, and all else in the envelope.
func wrap(l *raft.Log) (*raft.Log, error) {
	b, err := encodeEntry(l)
	return &raft.Log{Index: l.Index, Data: b}, err
}

// boltOptions has fixed pages, so that the survey finds the second meta page, and no freelist on disk: it is worked out
// from the pages in use when the file is opened, and costs no write with each commit.
func boltOptions() *bbolt.Options {
	return &bbolt.Options{
		Timeout:        time.Second,
		NoFreelistSync: true,
		FreelistType:   bbolt.FreelistMapType,
		PageSize:       pageSize,
	}
}

// create makes an empty store at path, whole or not at all.
func create(path string) error {
	tmp := path + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := fill(tmp); err != nil {
		return fmt.Errorf("boltstore: making %s: %w", path, err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("boltstore: making %s: %w", path, err)
	}
	return plainfile.Sync(filepath.Dir(path))
}

func fill(path string) error {
	conn, err := raftboltdb.New(raftboltdb.Options{Path: path, BoltOptions: boltOptions()})
	if err != nil {
		return err
	}
	t, err := tail(0)
	if err == nil {
		err = conn.StoreLog(t)
	}
	if err == nil {
		err = conn.Set([]byte(stableKey), stable{}.encode())
	}
	return errors.Join(err, conn.Close())
}
