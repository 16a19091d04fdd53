package filelock

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestOnlyOneHolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	first, second := open(t, path), open(t, path)
	if err := Try(first); err != nil {
		t.Fatalf("a free file: %v", err)
	}
	if err := Try(first); err != nil {
		t.Errorf("the holder asks again: %v", err)
	}
	if err := Try(second); !errors.Is(err, ErrHeld) {
		t.Errorf("a held file: %v, want ErrHeld", err)
	}
	if err := Release(first); err != nil {
		t.Fatal(err)
	}
	if err := Try(second); err != nil {
		t.Errorf("after the holder gave it back: %v", err)
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	if err := Try(first); err != nil {
		t.Errorf("after the holder closed the file: %v", err)
	}
}

func open(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}
