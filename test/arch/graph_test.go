// Package arch checks what no compiler does: who may import whom, that the replicated state is a pure function of its
// log, and that the documentation's links lead somewhere. Each finding says what is wrong and why it matters.
package arch

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const module = "github.com/keyquorum/keyquorum"

// pkg is what `go list` tells of a package. Only what ends up in a binary counts: tests may import anything.
type pkg struct {
	ImportPath string
	Imports    []string // direct
	Deps       []string // transitive
}

// path is the package's folder within the module; ok is false for someone else's package.
func path(importPath string) (folder string, ok bool) {
	if importPath == module {
		return ".", true
	}
	return strings.CutPrefix(importPath, module+"/")
}

// root is the module's folder.
func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "go.mod")); err != nil {
		t.Fatalf("the module's root is not where this test expects it: %v", err)
	}
	return dir
}

// packages lists the module's packages with what they import.
//
// go test keeps a result for as long as the files that the test itself opened are the same, and knows nothing of what
// go list opens: so the folders are read here too.
func packages(t *testing.T) []pkg {
	t.Helper()
	dir := root(t)
	if err := filepath.WalkDir(dir, noteFolder); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports,Deps", "./...")
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	pkgs, err := decode(bytes.NewReader(out))
	if err != nil {
		t.Fatalf("go list's answer cannot be read: %v", err)
	}
	if len(pkgs) == 0 {
		t.Fatal("go list found no package")
	}
	return pkgs
}

func noteFolder(_ string, d fs.DirEntry, err error) error {
	if err == nil && d.IsDir() && (d.Name() == ".git" || d.Name() == "bin") {
		return filepath.SkipDir
	}
	return err
}

func decode(r io.Reader) ([]pkg, error) {
	var pkgs []pkg
	for dec := json.NewDecoder(r); ; {
		var p pkg
		switch err := dec.Decode(&p); {
		case errors.Is(err, io.EOF):
			return pkgs, nil
		case err != nil:
			return nil, err
		}
		pkgs = append(pkgs, p)
	}
}
