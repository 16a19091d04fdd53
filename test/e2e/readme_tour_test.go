//go:build unix

package e2e_test

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/keyquorum/keyquorum/test/e2e"
)

// tour is what the README has a newcomer type, one block after another, as it stands there but for the addresses.
type tour struct {
	t *testing.T
	// dev and shop are the addresses of the node and of the newcomer's service.
	dev, shop string
}

func newTour(t *testing.T) *tour {
	t.Helper()
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("the README asks for curl, which is not here")
	}
	e2e.Binary(t) // so that go test knows of the sources that "go run" reads
	return &tour{t, e2e.FreeAddress("127.0.0.1"), e2e.FreeAddress("127.0.0.1")}
}

// blocks are those of a kind (sh, go, json) in a section.
func (o *tour) blocks(heading, kind string, want int) []string {
	o.t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		o.t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), heading+"\n")
	section, _, _ = strings.Cut(section, "\n## ")
	section = strings.NewReplacer("127.0.0.1:7400", o.dev, "127.0.0.1:8000", o.shop).Replace(section)
	var blocks []string
	for _, block := range regexp.MustCompile("(?s)```"+kind+"\n(.*?)```").FindAllStringSubmatch(section, -1) {
		blocks = append(blocks, block[1])
	}
	if len(blocks) != want {
		o.t.Fatalf("the README has %d blocks of %s under %q, want %d", len(blocks), kind, heading, want)
	}
	return blocks
}

// startDev runs the README's command for a node, at the tour's address.
func (o *tour) startDev() {
	o.t.Helper()
	background(o.t, o.root(), "export KEYQUORUM_LISTEN="+o.dev+"\n"+o.blocks("## A first token", "sh", 3)[0])
	o.await("http://" + o.dev + "/readyz")
}

// await waits until there is an answer that is no server's failure.
func (o *tour) await(url string) {
	o.t.Helper()
	e2e.Await(o.t, url+" to answer", func() bool {
		req, err := http.NewRequestWithContext(o.t.Context(), http.MethodGet, url, http.NoBody)
		if err != nil {
			o.t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return false
		}
		res.Body.Close()
		return res.StatusCode < http.StatusInternalServerError
	})
}

func (o *tour) root() string {
	o.t.Helper()
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		o.t.Fatal(err)
	}
	return root
}

func TestTheReadmesFirstTokenWorks(t *testing.T) {
	t.Parallel()
	o := newTour(t)
	o.startDev()
	commands := o.blocks("## A first token", "sh", 3)
	said := foreground(t, o.root(), commands[1])
	for _, field := range regexp.MustCompile(`"\w+":`).FindAllString(o.blocks("## A first token", "json", 1)[0], -1) {
		if !strings.Contains(said, field) {
			t.Errorf("there is no %s in\n%s", field, said)
		}
	}
	// The last command ends with exit code 1, as its comment has it.
	said = foreground(t, o.root(), "export KEYQUORUM_ADDR="+o.dev+"\nset +e\n"+commands[2]+"\ntest $? = 1")
	_, said, issued := strings.Cut(said, "\nvalid\n")
	_, said, revoked := strings.Cut(said, "\nada: revoked")
	if !issued || !revoked || !strings.Contains(said, "\ninvalid: KEY_NOT_FOUND") {
		t.Errorf("in the end it says\n%s", said)
	}
}

// The service is made from nothing, beside the folder of this repository, and with the modules that are here.
func TestTheReadmesServiceWorks(t *testing.T) {
	t.Parallel()
	const heading = "## In a service of your own"
	o := newTour(t)
	o.startDev()
	parent := t.TempDir()
	clone := filepath.Join(parent, "clone") // where the newcomer is; it cannot be the repository itself, whose parent is not ours
	if err := os.Mkdir(clone, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(o.root(), filepath.Join(parent, "keyquorum")); err != nil {
		t.Fatal(err)
	}
	const offline = "export GOSUMDB=off GOWORK=off\n" // the sums are those of this module, which has been downloaded
	commands := o.blocks(heading, "sh", 3)
	foreground(t, clone, offline+commands[0])
	dir := filepath.Join(parent, "shop")
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte(o.blocks(heading, "go", 1)[0]), 0o600); err != nil {
		t.Fatal(err)
	}
	background(t, dir, offline+commands[1])
	o.await("http://" + o.shop + "/cart")
	said := foreground(t, dir, commands[2])
	_, said, known := strings.Cut(said, "\nthe cart of ada\n")
	if !known || !strings.Contains(said, "\nHTTP/1.1 401 ") || !strings.Contains(said, `error="invalid_token"`) {
		t.Errorf("in the end it says\n%s", said)
	}
}
