package member_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/keyquorum/keyquorum/internal/datadir"
	"github.com/keyquorum/keyquorum/internal/fault"
	"github.com/keyquorum/keyquorum/internal/member"
	"github.com/keyquorum/keyquorum/internal/seal"
	"github.com/keyquorum/keyquorum/node"
	"github.com/keyquorum/keyquorum/rpc"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

func testKeyring(t *testing.T) *seal.Keyring {
	t.Helper()
	k, err := seal.NewKeyring()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func testMember(dir string, keyring *seal.Keyring, logs io.Writer) member.Config {
	return member.Config{
		Name: "one", DataDir: dir, Keyring: keyring,
		Timing:    node.Timing{Heartbeat: 20 * time.Millisecond, Lease: 10 * time.Millisecond},
		RPCListen: "127.0.0.1:0", RaftListen: "127.0.0.1:0", GossipListen: "127.0.0.1:0",
		Logger: slog.New(slog.NewTextHandler(logs, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Tune: func(c *node.Config) {
			c.SnapshotInterval, c.SnapshotThreshold, c.TrailingLogs = 20*time.Millisecond, 1, 1
		},
	}
}

// runMember founds a cluster of one, does something with it, and ends it.
func runMember(t *testing.T, cfg member.Config, do func(context.Context, *member.Member)) {
	t.Helper()
	m, err := member.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	if _, err := m.Init(ctx, rpc.Caller{Actor: "test"}, &v1.InitRequest{}); err != nil {
		t.Error(err)
	}
	do(ctx, m)
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestNoKeyMaterialReachesTheDiskOrTheLog(t *testing.T) {
	dir, keyring := t.TempDir(), testKeyring(t)
	var logs bytes.Buffer
	var needles [][]byte
	runMember(t, testMember(dir, keyring, &logs), func(ctx context.Context, m *member.Member) {
		for i := range 20 {
			subject := fmt.Sprintf("user-%d", i)
			res, err := m.Issue(ctx, rpc.Caller{Actor: "test", Node: "one"}, &v1.IssueRequest{Subject: subject, Ttl: durationpb.New(time.Hour)})
			if err != nil {
				t.Fatal(err)
			}
			user, _ := m.View().User(subject)
			key, err := keyring.Open(subject, user.Active.ID.Random, user.Active.Sealed)
			if err != nil {
				t.Fatal(err)
			}
			signature := res.GetToken()[strings.LastIndex(res.GetToken(), ".")+1:]
			needles = append(needles, spellings(key.Bytes())...)
			needles = append(needles, []byte(signature))
		}
		needles = append(needles, spellings(keyring.GossipKey())...)
		awaitSnapshot(t, dir)
	})
	files, size := 0, 0
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		files, size = files+1, size+len(content)
		search(t, path, content, needles)
		return err
	})
	if err != nil || files < 4 || size < 20*100 {
		t.Errorf("searched %d files of %d bytes: %v", files, size, err)
	}
	search(t, "the log", logs.Bytes(), needles)
	if !bytes.Contains(logs.Bytes(), []byte("leads")) {
		t.Error("the log that was searched has nothing in it")
	}
}

// spellings are the ways in which a secret could be written down.
func spellings(b []byte) [][]byte {
	return [][]byte{
		bytes.Clone(b), []byte(hex.EncodeToString(b)), []byte(base64.StdEncoding.EncodeToString(b)),
		[]byte(base64.RawURLEncoding.EncodeToString(b)), []byte(fmt.Sprint(b)),
	}
}

func search(t *testing.T, where string, content []byte, needles [][]byte) {
	t.Helper()
	for _, needle := range needles {
		if bytes.Contains(content, needle) {
			t.Fatalf("%s holds a secret in the open", where)
		}
	}
}

// awaitSnapshot waits until a snapshot with users in it is on disk.
func awaitSnapshot(t *testing.T, dir string) {
	t.Helper()
	await(t, "a snapshot", func() bool {
		found, err := filepath.Glob(filepath.Join(dir, "snapshots", "*", "state.bin"))
		return err == nil && slices.ContainsFunc(found, func(path string) bool {
			content, err := os.ReadFile(path)
			return err == nil && bytes.Contains(content, []byte("user-19"))
		})
	})
}

// await waits until ok, or until the test is out of time.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatalf("waited in vain for %s", what)
		case <-ticker.C:
		}
	}
}

func TestAMemberFindsWhatItLeft(t *testing.T) {
	dir, keyring := t.TempDir(), testKeyring(t)
	var logs bytes.Buffer
	var token string
	runMember(t, testMember(dir, keyring, &logs), func(ctx context.Context, m *member.Member) {
		res, err := m.Issue(ctx, rpc.Caller{Actor: "test", Node: "one"}, &v1.IssueRequest{Subject: "ada"})
		if err != nil {
			t.Fatal(err)
		}
		token = res.GetToken()
	})
	runMember(t, testMember(dir, keyring, &logs), func(ctx context.Context, m *member.Member) {
		await(t, "the member to be ready", func() bool { return m.Ready() == nil })
		res, err := m.Verify(ctx, &v1.VerifyRequest{Token: token})
		if err != nil || !res.GetValid() {
			t.Errorf("after a restart: %v, %v", res, err)
		}
	})
}

func TestAnotherKeyringIsRefusedBeforeAnythingIsWritten(t *testing.T) {
	dir := t.TempDir()
	var logs bytes.Buffer
	runMember(t, testMember(dir, testKeyring(t), &logs), func(context.Context, *member.Member) {})
	before := contents(t, dir)
	_, err := member.Open(testMember(dir, testKeyring(t), &logs))
	if !errors.Is(err, fault.ErrKeyring) {
		t.Errorf("got %v", err)
	}
	if after := contents(t, dir); after != before {
		t.Error("the directory was changed")
	}
}

func TestADirectoryInUseIsRefused(t *testing.T) {
	dir, keyring := t.TempDir(), testKeyring(t)
	var logs bytes.Buffer
	runMember(t, testMember(dir, keyring, &logs), func(context.Context, *member.Member) {
		if _, err := member.Open(testMember(dir, keyring, &logs)); !errors.Is(err, datadir.ErrInUse) {
			t.Errorf("got %v", err)
		}
	})
}

// contents is all that a directory's files hold.
func contents(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || entry.Name() == "lock" {
			return err
		}
		content, err := os.ReadFile(path)
		fmt.Fprintf(&all, "%s %x\n", path, content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}
