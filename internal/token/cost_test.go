package token_test

import (
	"fmt"
	"math"
	"runtime"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/keyquorum/keyquorum/internal/token"
)

// bytesPerCall tells how much one call of f allocates: the least of some rounds, as what the rest of the process does
// meanwhile counts too.
func bytesPerCall(f func()) uint64 {
	const rounds, calls = 5, 20
	least := uint64(math.MaxUint64)
	f()
	for range rounds {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range calls {
			f()
		}
		runtime.ReadMemStats(&after)
		least = min(least, (after.TotalAlloc-before.TotalAlloc)/calls)
	}
	return least
}

// repeat fills a token's payload up with s between around.
func fill(before, s, after string) string {
	const room = 6000
	return before + strings.Repeat(s, (room-len(before)-len(after))/len(s)) + after
}

// What a sender can make a verification allocate is bounded, whatever is sent.
func TestMemoryIsBounded(t *testing.T) {
	key := newKey(t, 'k')
	good := sign(t, spec(), key)
	open := valid().json()[:len(valid().json())-1]
	var members, escapedMembers strings.Builder
	for i := 0; members.Len() < 5400; i++ {
		fmt.Fprintf(&members, `,"%x":0`, i)
	}
	for i := 0; escapedMembers.Len() < 5400; i++ {
		fmt.Fprintf(&escapedMembers, `,"\u00e9%x":0`, i)
	}
	const most = 64 << 10
	for name, c := range map[string]struct {
		text string
		want token.Reason
		most uint64
	}{
		"valid":            {good, token.None, 4 << 10},
		"forged":           {sign(t, spec(), newKey(t, 'o')), token.SignatureInvalid, 4 << 10},
		"1 MiB":            {good + strings.Repeat("A", 1<<20), token.Malformed, 0},
		"1 MiB of dots":    {strings.Repeat(".", 1<<20), token.Malformed, 0},
		"1 MiB payload":    {raw(t, head, fill(open+`,"x":"`, strings.Repeat("a", 1<<20), `"}`)+strings.Repeat(" ", 1<<20), key), token.Malformed, 0},
		"10 MiB nested":    {strings.Repeat("W1tb", 10<<18), token.Malformed, 0},
		"long header":      {raw(t, fill("", "[", ""), "{}", key), token.Malformed, 0},
		"many members":     {raw(t, head, open+members.String()+"}", key), token.None, most},
		"escaped members":  {raw(t, head, open+escapedMembers.String()+"}", key), token.None, most},
		"nested arrays":    {raw(t, head, fill(open+`,"x":[`, "[],", "0]}"), key), token.None, most},
		"nested objects":   {raw(t, head, fill(open+`,"x":[`, `{"":{}},`, "0]}"), key), token.None, most},
		"nested JSON":      {raw(t, head, fill(open+`,"x":`, "[", ""), key), token.Malformed, most},
		"nested objects 2": {raw(t, head, fill(open+`,"x":`, `{"a":`, ""), key), token.Malformed, most},
		"long number":      {raw(t, head, fill(open+`,"x":0.`, "1", "}"), key), token.None, most},
		"long exp":         {raw(t, head, fill(`{"exp":`, "1", "}"), key), token.Malformed, most},
		"huge exponent":    {raw(t, head, fill(open+`,"x":1e`, "9", "}"), key), token.Malformed, most},
		"long escapes":     {raw(t, head, fill(open+`,"x":"`, `\u0061`, `"}`), key), token.None, most},
		"long name":        {raw(t, head, fill(open+`,"`, `\u0061`, `":1}`), key), token.None, most},
		"long subject":     {raw(t, head, fill(`{"sub":"`, `\u0061`, `"}`), key), token.Malformed, most},
		"many audiences":   {raw(t, head, fill(`{"aud":["a"`, `,"a"`, `]}`), key), token.Malformed, most},
	} {
		ck := check(key)
		if got := verdict(t, c.text, ck); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
		if got := bytesPerCall(func() { _, _, _ = token.Verify(c.text, ck) }); got > c.most {
			t.Errorf("%s: %d bytes allocated, more than %d", name, got, c.most)
		}
	}
}

// The ordinary verification is the hot path of every node.
func TestVerifyAllocatesLittle(t *testing.T) {
	key := newKey(t, 'k')
	s := spec()
	s.Audience = []string{"api"}
	s.Claims = map[string]any{"role": "admin", "nested": map[string]any{"a": 1.0}}
	text := sign(t, s, key)
	c := check(key)
	c.Audience = "api"
	if got := testing.AllocsPerRun(100, func() { _, _, _ = token.Verify(text, c) }); got > 15 {
		t.Errorf("%v allocations, want at most 15", got)
	}
}

// A token of 8 KiB can have thousands of claims, and a request hundreds of tokens, all of whose claims are in its answer.
func TestClaimsTakeLittleMoreThanTheirMessage(t *testing.T) {
	key := newKey(t, 'k')
	open := valid().json()[:len(valid().json())-1]
	text := raw(t, head, fill(open+`,"x":[`, "1,", "0]}"), key)
	v, reason, err := token.Verify(text, check(key))
	if err != nil || reason != token.None {
		t.Fatal(reason, err)
	}
	claims := v.Claims()
	values := claims.GetFields()["x"].GetListValue().GetValues()
	message := bytesPerCall(func() {
		for range values {
			sink = structpb.NewNumberValue(1)
		}
	})
	const most = 1.4 // the list grows as it is read
	if got := bytesPerCall(func() { claims = v.Claims() }); float64(got) > most*float64(message) {
		t.Errorf("%d values took %d bytes, of which %d are in the message", len(values), got, message)
	}
}

var sink *structpb.Value
