//go:build unix

package e2e_test

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// secrets are what is to be found nowhere, in all the ways in which it could be written down, with what each is.
type secrets struct {
	what map[string]string
	// at has the texts by their first bytes, and may the pairs with which one begins: the search looks at each byte.
	at  map[uint64][]string
	may [1 << 16]bool
}

// prefix is how many bytes of a text the search looks up at once; no text is shorter.
const prefix = 8

func newSecrets() *secrets {
	return &secrets{what: make(map[string]string), at: make(map[uint64][]string)}
}

// text is a secret that is written in one way.
func (s *secrets) text(t *testing.T, what, text string) {
	t.Helper()
	if len(text) < 2*prefix {
		t.Fatalf("%s has %d bytes: that is found by chance", what, len(text))
	}
	if _, known := s.what[text]; known {
		return
	}
	s.what[text] = what
	start := binary.LittleEndian.Uint64([]byte(text))
	s.at[start] = append(s.at[start], text)
	s.may[binary.LittleEndian.Uint16([]byte(text))] = true
}

// bytes is a secret of bytes, with all its spellings.
func (s *secrets) bytes(t *testing.T, what string, b []byte) {
	t.Helper()
	for form, text := range map[string]string{
		"as it is": string(b), "in hex": hex.EncodeToString(b), "in base64": base64.StdEncoding.EncodeToString(b),
		"in base64url": base64.RawURLEncoding.EncodeToString(b), "in decimal": fmt.Sprint(b),
	} {
		s.text(t, what+", "+form, text)
	}
}

// in gives what each secret is that the content holds.
func (s *secrets) in(content []byte) []string {
	var found []string
	for i := range len(content) - prefix + 1 {
		if !s.may[binary.LittleEndian.Uint16(content[i:])] {
			continue
		}
		for _, text := range s.at[binary.LittleEndian.Uint64(content[i:])] {
			if bytes.HasPrefix(content[i:], []byte(text)) {
				found = append(found, s.what[text])
			}
		}
	}
	return found
}

// files searches all files in a folder, or one file, and gives how many bytes it saw.
func (s *secrets) files(t *testing.T, path string) int {
	t.Helper()
	size := 0
	err := filepath.WalkDir(path, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		for _, what := range s.in(content) {
			t.Errorf("%s holds %s", path, what)
		}
		size += len(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return size
}
