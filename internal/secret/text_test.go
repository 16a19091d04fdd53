package secret_test

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"

	"github.com/keyquorum/keyquorum/internal/secret"
)

func TestTextPrintsNowhere(t *testing.T) {
	const word = "hvs.CAESIhunter2"
	text := secret.NewText(word)
	for name, v := range map[string]any{
		"value": text, "pointer": &text, "field": struct{ t secret.Text }{text}, "pointer in a field": struct{ t *secret.Text }{&text},
		"map": map[string]secret.Text{"a": text}, "error": fmt.Errorf("failed with %v", text),
	} {
		var shown strings.Builder
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
			fmt.Fprintf(&shown, verb+"\n", v)
		}
		shown.WriteString(logged(v, func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) }))
		for _, trace := range []string{word, word[4:], fmt.Sprintf("%x", word)} {
			if strings.Contains(strings.ToLower(shown.String()), strings.ToLower(trace)) {
				t.Errorf("%s shows it: %s", name, shown.String())
			}
		}
	}
	if _, err := json.Marshal(text); err == nil {
		t.Error("json marshals it")
	}
	if gob.NewEncoder(new(bytes.Buffer)).Encode(text) == nil {
		t.Error("gob encodes it")
	}
}

func TestTextEqual(t *testing.T) {
	a, b, none := secret.NewText("a token"), secret.NewText("a token"), secret.Text{}
	if !a.Equal(b) || a.Equal(secret.NewText("a tokem")) || a.Equal(none) || !none.Equal(secret.NewText("")) {
		t.Error("Equal is wrong")
	}
	if a.Reveal() != "a token" || a.Empty() || !none.Empty() || none.Reveal() != "" {
		t.Error("it does not hold what it was given")
	}
}

// What holds secrets is not compared with ==, which stops at the first difference; the compiler sees to it.
func TestSecretsAreNotComparable(t *testing.T) {
	for _, v := range []any{secret.Key{}, secret.Text{}} {
		if reflect.TypeOf(v).Comparable() {
			t.Errorf("%T can be compared with ==", v)
		}
	}
}
