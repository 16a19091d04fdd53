package seal

import (
	"encoding/hex"
	"os"
	"testing"
)

// What an earlier build wrote stays readable: the keyring's file, a sealed key and a proof. The keyring is of this
// test only.
func TestGoldenKeyring(t *testing.T) {
	content, err := os.ReadFile("testdata/keyring-format1.json")
	if err != nil {
		t.Fatal(err)
	}
	ring, err := decode(content)
	if err != nil {
		t.Fatalf("the keyring %v", err)
	}
	key, err := ring.Open("ada", 0x0102030405060708, unhex(t, goldenSealed))
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(key.Bytes()); got != goldenKey {
		t.Errorf("the key opened to %s, want %s", got, goldenKey)
	}
	if err := ring.CheckProof("found", "c1", unhex(t, goldenProof)); err != nil {
		t.Error(err)
	}
	if got := hex.EncodeToString(ring.GossipKey()); got != goldenGossip {
		t.Errorf("the gossip key is %s, want %s", got, goldenGossip)
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const (
	goldenSealed = "01a5541ca956a133f9ddb973fece82edaded1e293bf70fe09e21a39ee792caa82c47c5af731db42ac1c7d22ed12c96100bb50ab2164159169b3c166e7d96fd0eaa"
	goldenKey    = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
	goldenProof  = "01a5541ca9044c59ba28f81deb6b5cc84205930ffb302bd047946e42fb73b6a7ad3a330587fe3d71193e8cfd06075ad97fdc6a6d4a2918cb5c0d2260"
	goldenGossip = "55f8262f007bc615db94fae50ced0daa8d0f8790dc1ca01d31a2176f0c83acbd"
)
