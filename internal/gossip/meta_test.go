package gossip

import (
	"bytes"
	"encoding/hex"
	"log/slog"
	"strings"
	"testing"
)

// The bytes that nodes of other releases exchange with this one: version, RPC address, name, Raft address.
const metaV1 = "01" + "0d" + "31302e302e302e313a37343030" + "03" + "6f6e65" + "06" + "683a37343031"

func TestMetadataStaysReadable(t *testing.T) {
	want := meta{RPCAddress: "10.0.0.1:7400", Name: "one", RaftAddress: "h:7401"}
	golden, err := hex.DecodeString(metaV1)
	if err != nil {
		t.Fatal(err)
	}
	if got := want.encode(); !bytes.Equal(got, golden) {
		t.Errorf("encoded as %x, was %x", got, golden)
	}
	for name, buf := range map[string][]byte{"as it is": golden, "with fields to come": append(golden, 3, 'n', 'e', 'w')} {
		if got, err := decodeMeta(buf); err != nil || got != want {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	for n := range golden {
		if got, err := decodeMeta(golden[:n]); err == nil {
			t.Errorf("the first %d bytes are read as %+v", n, got)
		}
	}
}

func FuzzDecodeMeta(f *testing.F) {
	f.Add([]byte(nil))
	f.Add(meta{RPCAddress: "host:7400", Name: "one"}.encode())
	f.Add([]byte{metaVersion, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01})
	f.Fuzz(func(t *testing.T, buf []byte) {
		m, err := decodeMeta(buf)
		if err != nil {
			return
		}
		again, err := decodeMeta(m.encode())
		if err != nil || again != m {
			t.Fatalf("%+v became %+v (%v)", m, again, err)
		}
	})
}

func TestMemberlistsLogLevels(t *testing.T) {
	for line, want := range map[string]string{
		"[DEBUG] memberlist: a":  "level=DEBUG msg=\"gossip: a\"\n",
		"[INFO] memberlist: b":   "level=INFO msg=\"gossip: b\"\n",
		"[WARN] memberlist: c\n": "level=WARN msg=\"gossip: c\"\n",
		"[ERR] memberlist: d":    "level=WARN msg=\"gossip: d\"\n",
		"[ERR] e":                "level=WARN msg=\"gossip: e\"\n",
		"f":                      "level=INFO msg=\"gossip: f\"\n",
	} {
		var out bytes.Buffer
		log := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
		w := &logWriter{log: log}
		if n, err := w.Write([]byte(line)); n != len(line) || err != nil {
			t.Errorf("%q: %d, %v", line, n, err)
		}
		if !strings.HasSuffix(out.String(), want) {
			t.Errorf("%q became %s", line, out.String())
		}
	}
}
