package arch

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// impure packages make a result depend on more than its arguments.
var impure = map[string]string{
	"crypto/rand":  "randomness is chosen by the proposer and travels in the command",
	"math/rand":    "randomness is chosen by the proposer and travels in the command",
	"math/rand/v2": "randomness is chosen by the proposer and travels in the command",
	"hash/maphash": "its seed differs from node to node",
	"log":          "the state has nothing to tell: what it finds travels in results",
	"log/slog":     "the state has nothing to tell: what it finds travels in results",
	"net":          "the state does no I/O",
	"net/http":     "the state does no I/O",
	"os":           "the state does no I/O",
	"os/exec":      "the state does no I/O",
	"os/user":      "the state does no I/O",
	"syscall":      "the state does no I/O",
}

// clocks are what package time has beyond arithmetic.
var clocks = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker", "Local"}

func TestStateIsPure(t *testing.T) {
	dir := filepath.Join(root(t), "fsm")
	seen := 0
	err := filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return err
		}
		seen++
		found, err := impurities(file, nil)
		for _, f := range found {
			t.Error(f)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen == 0 {
		t.Fatalf("no Go file under %s", dir)
	}
}

// impurities reads a file, or src if that is not nil, and tells what in it is not a function of its arguments.
func impurities(file string, src any) ([]string, error) {
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, file, src, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	var found []string
	timeName := ""
	for _, i := range f.Imports {
		path, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			return nil, err
		}
		if why, bad := impure[path]; bad {
			found = append(found, fmt.Sprintf("%s imports %s: %s", fset.Position(i.Pos()), path, why))
		}
		if path == "time" {
			timeName = localName(i, "time")
		}
	}
	return append(found, clockReads(fset, f, timeName)...), nil
}

func clockReads(fset *token.FileSet, f *ast.File, timeName string) []string {
	var found []string
	ast.Inspect(f, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if x, ok := sel.X.(*ast.Ident); ok && x.Name == timeName && slices.Contains(clocks, sel.Sel.Name) {
			found = append(found, fmt.Sprintf("%s uses time.%s: the state's time is the entry's", fset.Position(n.Pos()), sel.Sel.Name))
		}
		return true
	})
	return found
}

func localName(i *ast.ImportSpec, usual string) string {
	if i.Name != nil {
		return i.Name.Name
	}
	return usual
}

func TestPurityFinds(t *testing.T) {
	cases := map[string]struct{ src, want string }{
		"a clock":           {`import "time"; var t = time.Now()`, "time.Now"},
		"a clock renamed":   {`import clock "time"; var t = clock.Since(clock.Time{})`, "time.Since"},
		"a timer":           {`import "time"; var t = time.NewTimer(0)`, "time.NewTimer"},
		"randomness":        {`import _ "crypto/rand"`, "imports crypto/rand"},
		"a file":            {`import "os"; var _ = os.Remove`, "imports os"},
		"time's arithmetic": {`import "time"; var t = time.UnixMilli(0).Add(time.Second)`, ""},
		"another's Now":     {`import "time"; var _ time.Time; var x struct{ Now int }; var y = x.Now`, ""},
	}
	for _, name := range slices.Sorted(maps.Keys(cases)) {
		t.Run(name, func(t *testing.T) {
			c := cases[name]
			got, err := impurities("made_up.go", "package fsm; "+c.src)
			if err != nil {
				t.Fatal(err)
			}
			if all := strings.Join(got, "\n"); (c.want == "") != (all == "") || !strings.Contains(all, c.want) {
				t.Errorf("found %q, want %q", all, c.want)
			}
		})
	}
}
