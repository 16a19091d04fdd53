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
	goldenSealed = "012de18fbd5951e75256d1345cec49b1444e144414d60ecc50b5b6abbf97ce6a08ad7b0116ebbb01af71508deb75ecf72b0407ce18dcdc74d10be16274357659db"
	goldenKey    = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
	goldenProof  = "012de18fbd6f91becfa69c612110dcd231af5f2d775d9f235062f488ab94631c7449594c0f47bd0b5c109d1a38583f1c0dda3b88b92b8ea3f759752b"
	goldenGossip = "49ab32e71d32c85a48bceae2d874d993f1717cac9432e721e91f51c9e035b319"
)
