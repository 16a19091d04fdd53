package secret_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/keyquorum/keyquorum/internal/secret"
)

func TestTextPrintsNowhere(t *testing.T) {
	const told = "hush-hush"
	text := secret.NewText(told)
	if text.Reveal() != told || (secret.Text{}).Reveal() != "" {
		t.Error("it is not what it was made of")
	}
	for name, v := range map[string]any{
		"value": text, "pointer": &text, "field": struct{ T secret.Text }{text}, "unexported field": struct{ t secret.Text }{text},
		"pointer to a struct": &struct{ t *secret.Text }{&text}, "map": map[string]secret.Text{"a": text},
	} {
		shown := logged(v, func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) }) +
			logged(v, func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) })
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
			shown += fmt.Sprintf(verb, v)
		}
		for _, trace := range []string{told, fmt.Sprintf("%x", told), fmt.Sprintf("%X", told), fmt.Sprint([]byte(told))} {
			if strings.Contains(shown, trace) {
				t.Errorf("%s shows the text: %s", name, shown)
			}
		}
	}
	if b, err := json.Marshal(struct{ T secret.Text }{text}); err == nil {
		t.Errorf("it was marshalled: %s", b)
	}
}
