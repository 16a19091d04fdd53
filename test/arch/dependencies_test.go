package arch

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const dependencies = "docs/decisions/0007-dependencies.md"

// A dependency is a decision: what go.mod asks for itself is in the record of dependencies, with its reason.
func TestDependenciesHaveReasons(t *testing.T) {
	dir := root(t)
	record, err := os.ReadFile(filepath.Join(dir, dependencies))
	if err != nil {
		t.Fatal(err)
	}
	gomod := filepath.Join(dir, "go.mod")
	if _, err := os.ReadFile(gomod); err != nil { // so that a kept result of this test ends with a change to go.mod
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", "mod", "edit", "-json", gomod)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go mod edit: %v", err)
	}
	var mod struct {
		Require []struct {
			Path     string
			Indirect bool
		}
	}
	if err := json.Unmarshal(out, &mod); err != nil {
		t.Fatal(err)
	}
	for _, r := range mod.Require {
		name := "`" + strings.TrimPrefix(r.Path, "github.com/") + "`"
		if !r.Indirect && !strings.Contains(string(record), name) {
			t.Errorf("go.mod requires %s, and %s does not say why: it looks for %s", r.Path, dependencies, name)
		}
	}
}
