package apitoken_test

import (
	"strings"
	"testing"

	"github.com/keyquorum/keyquorum/internal/apitoken"
)

// FuzzParse reads any text as an API token. What is taken for one has one spelling: no other text has its hash or, with another
// byte in it, is taken for the same.
func FuzzParse(f *testing.F) {
	_, text, _ := apitoken.New()
	f.Add(text, 20)
	f.Add("kq_aaaaaaaaaaaaaaaa_"+strings.Repeat("A", 43), 0)
	f.Add("kq_aaaaaaaaaaaaaaaa_"+strings.Repeat("A", 42)+"B", 62)
	f.Add("KQ_aaaaaaaaaaaaaaaa_"+strings.Repeat("A", 42)+"\n", 5)
	f.Add("", 0)
	f.Fuzz(func(t *testing.T, text string, at int) {
		id, hash, ok := apitoken.Parse(text)
		if !ok {
			if id != "" || hash != (apitoken.Hash{}) {
				t.Errorf("%q is refused, and gives %q", text, id)
			}
			return
		}
		if len(text) != apitoken.Len || !apitoken.IsID(id) || text[3:19] != id || !hash.Equal(hash[:]) {
			t.Errorf("%q gives %q", text, id)
		}
		b := []byte(text)
		b[uint(at)%uint(len(b))] ^= 1
		if _, other, ok := apitoken.Parse(string(b)); ok && other.Equal(hash[:]) {
			t.Errorf("%q is taken for %q", b, text)
		}
	})
}
