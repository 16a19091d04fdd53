package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestTheDemoTellsItsWholeStory(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	var out, errs bytes.Buffer
	if code := run(t.Context(), []string{"demo"}, nil, &out, &errs, noEnv); code != 0 {
		t.Fatalf("exit %d\n%s%s", code, out.String(), errs.String())
	}
	for _, evidence := range []string{
		"Three nodes, one cluster", "log in", "verifies, from its own memory", "rotates her key", "revoke",
		"The leader is killed", "comes back",
		"refused, SIGNATURE_INVALID", "refused, EXPIRED", "refused, KEY_NOT_FOUND", "works again after",
	} {
		if !strings.Contains(out.String(), evidence) {
			t.Errorf("the story does not tell of %q", evidence)
		}
	}
	if token := regexp.MustCompile(`eyJ[A-Za-z0-9_-]{20,}`).FindString(out.String()); token != "" {
		t.Error("the story prints a token")
	}
	if strings.Contains(out.String(), "\x1b[") {
		t.Error("the story is coloured where there is no terminal")
	}
	left, err := filepath.Glob(filepath.Join(os.TempDir(), "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("the demo left %v behind (%v)", left, err)
	}
}

func TestADemoThatIsInterruptedCleansUpAndSaysSo(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	out := &stopper{after: "Ada and Bob log in", stop: cancel}
	var errs bytes.Buffer
	if code := run(ctx, []string{"demo"}, nil, out, &errs, noEnv); code == 0 {
		t.Error("exit 0")
	}
	if errs.Len() == 0 {
		t.Error("nothing says why it ended")
	}
	if left, err := filepath.Glob(filepath.Join(os.TempDir(), "*")); err != nil || len(left) > 0 {
		t.Errorf("the demo left %v behind (%v)", left, err)
	}
}

func TestADemoThatNobodyReadsEnds(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	var out failingWriter
	if code := run(t.Context(), []string{"demo"}, nil, &out, io.Discard, noEnv); code != 3 {
		t.Errorf("exit %d", code)
	}
	if out > 10 {
		t.Errorf("it went on for %d writes", out)
	}
}

// failingWriter counts writes that reach nobody.
type failingWriter int

func (w *failingWriter) Write([]byte) (int, error) {
	*w++
	return 0, io.ErrClosedPipe
}

// stopper calls stop when a text has been printed.
type stopper struct {
	bytes.Buffer
	after string
	stop  func()
}

func (s *stopper) Write(b []byte) (int, error) {
	n, err := s.Buffer.Write(b)
	if strings.Contains(s.String(), s.after) {
		s.stop()
	}
	return n, err
}

func noEnv(string) (string, bool) { return "", false }
