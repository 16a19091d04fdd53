package arch

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// layer says which of the module's own packages a tree of packages may import. What is not listed is not allowed, so
// a new dependency between layers is a decision that shows in this table.
type layer struct {
	tree string // a folder, with all below it
	may  []string
	why  string
}

var (
	leaves = []string{
		"internal/apitoken", "internal/audit", "internal/conncap", "internal/fault", "internal/pki", "internal/plant", "internal/secret", "internal/subject",
	}
	nodeRooms = []string{
		"node/auditing", "node/clock", "node/freshness", "node/membership", "node/propose", "node/raftstore", "node/raftnet", "node/revocation",
		"node/rotation", "node/tokens",
	}
)

// layers has the most specific tree first; the first that holds a package is its layer.
var layers = []layer{
	{
		"client/clienttest",
		[]string{"client", "node", "rpc", "fsm", "internal", "test/memnet"},
		"it runs a real cluster in memory for a user's tests",
	},
	{
		"client",
		[]string{"client", "rpc/gen", "internal/certs", "internal/plainfile", "internal/secret"},
		"a user's program must not carry the server: of the server the client knows the generated code only, and of internal what reads its credentials",
	},
	{
		"rpc/gen",
		[]string{"rpc/gen"},
		"generated code is all that a client may know of rpc, so it drags nothing along",
	},
	{
		"fsm",
		[]string{"fsm", "internal/audit", "internal/fault", "internal/plant", "internal/subject"},
		"the replicated truth depends on nothing that runs or serves it, and knows no key in the open",
	},
	{
		"rpc", append([]string{"rpc", "fsm", "internal/token"}, leaves...),
		"the wire surface knows a node by the interfaces that it declares itself",
	},
	{
		"node/", slices.Concat(nodeRooms, []string{"rpc", "fsm", "internal/seal", "internal/token"}, leaves),
		"a room of the node is tested alone: node puts the rooms together, so none may know node",
	},
	{
		"node", append([]string{"node", "rpc", "fsm", "internal/certs", "internal/seal", "internal/token"}, leaves...),
		"stores, gossip and data directories are adapters: internal/member hands them in through node's config",
	},
	{
		"internal/member",
		[]string{"internal", "node"},
		"it hands the adapters to a node, for all that run members: it is cmd's part that tests share",
	},
	{
		"internal",
		[]string{"internal"},
		"leaves and adapters are used by the layers above and know none of them",
	},
	{
		"cmd",
		[]string{"cmd", "client", "node", "rpc", "fsm", "internal"},
		"what ships does not import the test harness",
	},
	{
		"docs/example",
		[]string{"client", "rpc/gen"},
		"it is what an application can write: the client and the generated messages, nothing of the server",
	},
	{"test", []string{"."}, ""},
}

// vendor says who may import someone else's module directly.
type vendor struct {
	module string
	users  []string
	why    string
}

var vendors = []vendor{
	{
		"github.com/golang-jwt/jwt/v5",
		[]string{"internal/token"},
		"what it lets through is dealt with in one place",
	},
	{
		"github.com/tink-crypto/tink-go/v2",
		[]string{"internal/seal"},
		"keys are sealed and opened in one place",
	},
	{
		"github.com/hashicorp/raft",
		[]string{"fsm", "node", "internal/boltstore", "internal/datadir", "cmd", "client/clienttest", "test"},
		"raft sits behind the node; fsm and the stores implement its interfaces",
	},
	{"go.etcd.io/bbolt", []string{"internal/boltstore", "test"}, "the log's store is an adapter"},
	{"github.com/hashicorp/raft-boltdb/v2", []string{"internal/boltstore", "test"}, "the log's store is an adapter"},
	{"github.com/hashicorp/memberlist", []string{"internal/gossip", "test"}, "gossip is an adapter"},
	{
		"golang.org/x/crypto",
		[]string{"docs/example"},
		"passwords are the application's: Keyquorum seals with Tink, and hashes none",
	},
	{"github.com/alecthomas/kong", []string{"cmd"}, "only the command has a command line"},
	{"github.com/rogpeppe/go-internal", []string{"test"}, "it runs scripts in tests, and is in no binary"},
	{
		"connectrpc.com/connect",
		[]string{"rpc", "node", "client", "cmd", "test"},
		"neither the replicated state nor a leaf knows of the wire",
	},
}

// portable trees run on wasip1, so nothing below them may need a file system of its own or a socket layer.
var portable = []string{"fsm", "node", "rpc", "client"}

var unportable = []string{"go.etcd.io/bbolt", "github.com/hashicorp/raft-boltdb", "github.com/hashicorp/memberlist"}

func TestImportRule(t *testing.T) {
	for _, p := range packages(t) {
		for _, fault := range faults(p) {
			t.Error(fault)
		}
	}
}

// faults judges what one package imports.
func faults(p pkg) []string {
	folder, ours := path(p.ImportPath)
	if !ours {
		return nil
	}
	found := layerFaults(folder, p.Imports)
	found = append(found, vendorFaults(folder, p.Imports)...)
	return append(found, portableFaults(folder, p.Deps)...)
}

func layerFaults(folder string, imports []string) []string {
	l, ok := layerOf(folder)
	if !ok {
		return []string{fmt.Sprintf("%s is in no layer of the import rule: add it to the table in test/arch", folder)}
	}
	var found []string
	for _, i := range imports {
		if to, ours := path(i); ours && !inAny(to, l.may) {
			found = append(found, fmt.Sprintf("%s imports %s: %s", folder, to, l.why))
		}
	}
	return found
}

func vendorFaults(folder string, imports []string) []string {
	var found []string
	for _, i := range imports {
		for _, v := range vendors {
			if in(i, v.module) && !inAny(folder, v.users) {
				found = append(found, fmt.Sprintf("%s imports %s, which is for %v: %s", folder, i, v.users, v.why))
			}
		}
	}
	return found
}

func portableFaults(folder string, deps []string) []string {
	if !inAny(folder, portable) || folder == "client/clienttest" {
		return nil
	}
	var found []string
	for _, d := range deps {
		if slices.ContainsFunc(unportable, func(m string) bool { return in(d, m) || strings.HasPrefix(d, m+"/") }) {
			found = append(found, fmt.Sprintf("%s depends on %s, if only through others: it has to build for wasip1", folder, d))
		}
	}
	return found
}

func layerOf(folder string) (layer, bool) {
	i := slices.IndexFunc(layers, func(l layer) bool {
		if tree, inside := strings.CutSuffix(l.tree, "/"); inside {
			return folder != tree && in(folder, tree)
		}
		return in(folder, l.tree)
	})
	if i < 0 {
		return layer{}, false
	}
	return layers[i], true
}

// in tells whether a path is tree or below it; everything is below ".".
func in(p, tree string) bool {
	return tree == "." || p == tree || strings.HasPrefix(p, tree+"/")
}

func inAny(p string, trees []string) bool {
	return slices.ContainsFunc(trees, func(tree string) bool { return in(p, tree) })
}

// The rule itself is tested on packages that break it: a table that lets everything pass would be green as well.
func TestImportRuleFinds(t *testing.T) {
	for _, c := range []struct {
		name, from string
		imports    []string
		deps       []string
		want       string // part of the finding; empty if there is none
	}{
		{name: "state that knows the node", from: "fsm", imports: []string{module + "/node"}, want: "fsm imports node:"},
		{name: "state that knows open keys", from: "fsm", imports: []string{module + "/internal/secret"}, want: "no key in the open"},
		{name: "state with its own parts", from: "fsm", imports: []string{module + "/fsm/internal/logpb"}},
		{name: "handlers that know the node", from: "rpc", imports: []string{module + "/node/propose"}, want: "rpc imports node/propose:"},
		{name: "a client that knows handlers", from: "client", imports: []string{module + "/rpc"}, want: "generated code only"},
		{name: "a client of generated code", from: "client", imports: []string{module + "/rpc/gen/keyquorum/v1"}},
		{name: "a room that knows the house", from: "node/clock", imports: []string{module + "/node"}, want: "node/clock imports node:"},
		{name: "a room that knows a room", from: "node/rotation", imports: []string{module + "/node/propose"}},
		{name: "the house and its rooms", from: "node", imports: []string{module + "/node/clock"}},
		{name: "a node that knows an adapter", from: "node", imports: []string{module + "/internal/gossip"}, want: "adapters"},
		{name: "a member and its node", from: "internal/member", imports: []string{module + "/node", module + "/internal/gossip"}},
		{name: "a member that knows its users", from: "internal/member", imports: []string{module + "/cmd/keyquorum"}, want: "internal/member imports cmd/keyquorum:"},
		{name: "a leaf that looks up", from: "internal/token", imports: []string{module + "/fsm"}, want: "internal/token imports fsm:"},
		{name: "a command that ships the harness", from: "cmd/keyquorum", imports: []string{module + "/test/cluster"}, want: "harness"},
		{name: "an application", from: "docs/example", imports: []string{module + "/client", module + "/rpc/gen/keyquorum/v1", "golang.org/x/crypto/argon2"}},
		{name: "an application that knows the server", from: "docs/example", imports: []string{module + "/node"}, want: "docs/example imports node:"},
		{name: "passwords in a node", from: "node", imports: []string{"golang.org/x/crypto/argon2"}, want: "passwords are the application's"},
		{name: "a test of anything", from: "test/cluster", imports: []string{module + "/node", module + "/cmd/keyquorum"}},
		{name: "a stranger", from: "util", want: "in no layer"},
		{name: "tokens in two places", from: "rpc", imports: []string{"github.com/golang-jwt/jwt/v5"}, want: "in one place"},
		{name: "a package of a vendor", from: "node", imports: []string{"github.com/tink-crypto/tink-go/v2/aead"}, want: "in one place"},
		{name: "a vendor's namesake", from: "node", imports: []string{"github.com/hashicorp/raft-wal"}},
		{name: "a store at second hand", from: "node/propose", deps: []string{"go.etcd.io/bbolt"}, want: "wasip1"},
		{name: "a store where it belongs", from: "internal/boltstore", imports: []string{"go.etcd.io/bbolt"}, deps: []string{"go.etcd.io/bbolt"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := faults(pkg{ImportPath: module + "/" + c.from, Imports: c.imports, Deps: c.deps})
			switch {
			case c.want == "" && len(got) > 0:
				t.Errorf("found %q, want nothing", got)
			case c.want != "" && !strings.Contains(strings.Join(got, "\n"), c.want):
				t.Errorf("found %q, want something about %q", got, c.want)
			}
		})
	}
}
