package arch

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// In a synctest bubble a sleep takes no time and always suffices; outside of one it is either too short or too long. So
// only the tests of packages that use bubbles may sleep.
func TestOnlyBubblesSleep(t *testing.T) {
	dir := root(t)
	err := filepath.WalkDir(dir, func(folder string, d fs.DirEntry, err error) error {
		if err == nil {
			err = noteFolder(folder, d, nil)
		}
		if err != nil || !d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, folder)
		if err != nil {
			return err
		}
		found, err := sleeps(folder, in(filepath.ToSlash(rel), "test"))
		for _, f := range found {
			t.Errorf("%s: it is no package that uses testing/synctest: wait on a condition", f)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// sleeps tells where the tests in a folder sleep, if none of them uses bubbles. In a harness, every file is a test.
func sleeps(folder string, harness bool) ([]string, error) {
	names, err := os.ReadDir(folder)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, n := range names {
		if filepath.Ext(n.Name()) != ".go" || !harness && !strings.HasSuffix(n.Name(), "_test.go") {
			continue
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, filepath.Join(folder, n.Name()), nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(f.Imports, func(i *ast.ImportSpec) bool { return i.Path.Value == `"testing/synctest"` }) {
			return nil, nil
		}
		found = append(found, sleepsIn(fset, f)...)
	}
	return found, nil
}

func sleepsIn(fset *token.FileSet, f *ast.File) []string {
	var found []string
	ast.Inspect(f, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if x, ok := sel.X.(*ast.Ident); ok && x.Name == "time" && sel.Sel.Name == "Sleep" {
			found = append(found, fmt.Sprintf("%s sleeps", fset.Position(n.Pos())))
		}
		return true
	})
	return found
}

func TestSleepsFinds(t *testing.T) {
	const sleep = "package p\nimport \"time\"\nfunc f() { time.Sleep(1) }\n"
	for name, c := range map[string]struct {
		files map[string]string
		want  int
	}{
		"a test":            {map[string]string{"a_test.go": sleep}, 1},
		"what ships":        {map[string]string{"a.go": sleep}, 0}, // the linters' business
		"a bubble's helper": {map[string]string{"a_test.go": sleep, "b_test.go": "package p\nimport _ \"testing/synctest\"\n"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for file, text := range c.files {
				if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			found, err := sleeps(dir, false)
			if err != nil || len(found) != c.want {
				t.Errorf("found %q and error %v, want %d findings", found, err, c.want)
			}
		})
	}
}
