//go:build unix

package pki_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/keyquorum/keyquorum/internal/pki"
	"github.com/keyquorum/keyquorum/internal/plainfile"
)

// written is a CA in a new folder.
func written(t *testing.T) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "ca")
	must(t, newCA(t, pki.CAOptions{}).Write(dir))
	return dir
}

func newLeaf(t *testing.T, ca *pki.CA) *pki.Leaf {
	t.Helper()
	leaf, err := ca.IssueNode(pki.NodeRequest{Name: "n1", Hosts: []string{"n1"}})
	must(t, err)
	return leaf
}

func TestAWrittenCAIssuesAgain(t *testing.T) {
	dir := written(t)
	ca, err := pki.OpenCA(dir, at(today))
	must(t, err)
	verify(t, ca, newLeaf(t, ca).Certificate(), x509.ExtKeyUsageServerAuth, nil)
}

func TestKeysAreTheirOwnersWhateverTheUmask(t *testing.T) {
	before := syscall.Umask(0)
	t.Cleanup(func() { syscall.Umask(before) })
	dir := written(t)
	leaf := newLeaf(t, newCA(t, pki.CAOptions{}))
	must(t, leaf.Write(filepath.Join(dir, "n1.crt"), filepath.Join(dir, "n1.key")))
	for name, mode := range map[string]fs.FileMode{".": 0o700, "ca.key": 0o600, "ca.crt": 0o644, "n1.key": 0o600, "n1.crt": 0o644} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 4 {
		t.Error(entries, err)
	}
}

func TestNeitherFileIsWrittenOverOneThatIsThere(t *testing.T) {
	ca := newCA(t, pki.CAOptions{})
	for _, name := range []string{"ca.crt", "ca.key"} {
		dir := t.TempDir()
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, []byte("before"), 0o600))
		refused(t, ca.Write(dir), fs.ErrExist, path, "was left as it is")
		refused(t, newLeaf(t, ca).Write(filepath.Join(dir, "ca.crt"), filepath.Join(dir, "ca.key")), fs.ErrExist, path)
		if b, err := os.ReadFile(path); err != nil || string(b) != "before" {
			t.Errorf("%s: %q, %v", name, b, err)
		}
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
			t.Errorf("beside %s: %v, %v", name, entries, err)
		}
	}
}

// The key is written first: it must not be left without its certificate.
func TestAKeyIsNotLeftWithoutItsCertificate(t *testing.T) {
	dir := t.TempDir()
	leaf := newLeaf(t, newCA(t, pki.CAOptions{}))
	refused(t, leaf.Write(filepath.Join(dir, "no", "n1.crt"), filepath.Join(dir, "n1.key")), fs.ErrNotExist)
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Error(entries, err)
	}
	refused(t, newCA(t, pki.CAOptions{}).Write(filepath.Join(dir, "no", "ca")), fs.ErrNotExist)
}

func TestACAThatIsNotWholeIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		harm func(t *testing.T, dir string)
		kind error
		told []string
	}{
		"nothing there": {func(_ *testing.T, dir string) { _ = os.Remove(filepath.Join(dir, "ca.crt")) }, fs.ErrNotExist, []string{"keyquorum ca init", "ca.crt"}},
		"no key":        {func(_ *testing.T, dir string) { _ = os.Remove(filepath.Join(dir, "ca.key")) }, fs.ErrNotExist, []string{"ca.key"}},
		"key for the group": {func(_ *testing.T, dir string) {
			_ = os.Chmod(filepath.Join(dir, "ca.key"), 0o640)
		}, plainfile.ErrOpen, []string{"ca.key has mode 0640", "chmod 600"}},
		"key for all": {func(_ *testing.T, dir string) {
			_ = os.Chmod(filepath.Join(dir, "ca.key"), 0o604)
		}, plainfile.ErrOpen, []string{"ca.key has mode 0604"}},
		"another's key":           {swap("ca.key"), nil, []string{"ca.key is not the key of the certificate beside it"}},
		"another's certificate":   {swap("ca.crt"), nil, []string{"ca.key is not the key of the certificate beside it"}},
		"certificate in its key":  {content("ca.key", "ca.crt"), nil, []string{"ca.key holds no private key"}},
		"key as its certificate":  {content("ca.crt", "ca.key"), nil, []string{`ca.crt: it holds a block "PRIVATE KEY"`}},
		"a leaf":                  {leafAsCA, nil, []string{"ca.crt", "is not that of a CA"}},
		"two certificates":        {twice, nil, []string{"ca.crt has 2 certificates"}},
		"an empty certificate":    {text("ca.crt", ""), nil, []string{"ca.crt: it holds no certificate in PEM"}},
		"half a certificate":      {cut("ca.crt"), nil, []string{"ca.crt: certificate 1 is damaged or cut off"}},
		"half a key":              {cut("ca.key"), nil, []string{"ca.key holds no private key"}},
		"another kind of key":     {edKey, nil, []string{"ca.key holds no ECDSA key"}},
		"rubbish for a key":       {text("ca.key", "-----BEGIN PRIVATE KEY-----\nc2VjcmV0LXNlY3JldA==\n-----END PRIVATE KEY-----\n"), nil, []string{"ca.key holds no ECDSA key"}},
		"a certificate of no end": {text("ca.crt", strings.Repeat("x", 1<<17)), plainfile.ErrTooLong, []string{"ca.crt"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := written(t)
			c.harm(t, dir)
			_, err := pki.OpenCA(dir, nil)
			refused(t, err, c.kind, c.told...)
			key, readErr := os.ReadFile(filepath.Join(dir, "ca.key"))
			if readErr == nil && err != nil {
				silent(t, "the error", err.Error(), key)
			}
		})
	}
}

func swap(name string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		t.Helper()
		must(t, os.Rename(filepath.Join(written(t), name), filepath.Join(dir, name)))
	}
}

func content(to, from string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(dir, from))
		must(t, err)
		text(to, string(b))(t, dir)
	}
}

func text(name, content string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		t.Helper()
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
	}
}

func cut(name string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(dir, name))
		must(t, err)
		text(name, string(b[:len(b)/2]))(t, dir)
	}
}

func twice(t *testing.T, dir string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	must(t, err)
	text("ca.crt", string(b)+string(b))(t, dir)
}

func leafAsCA(t *testing.T, dir string) {
	t.Helper()
	ca, err := pki.OpenCA(dir, at(today))
	must(t, err)
	must(t, os.Remove(filepath.Join(dir, "ca.crt")))
	must(t, os.Remove(filepath.Join(dir, "ca.key")))
	must(t, newLeaf(t, ca).Write(filepath.Join(dir, "ca.crt"), filepath.Join(dir, "ca.key")))
}

func edKey(t *testing.T, dir string) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	text("ca.key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))(t, dir)
}

// A damaged certificate between good ones is passed over by the decoder of PEM: a CA would be missing, and nobody told.
func TestADamagedCertificateIsNotPassedOver(t *testing.T) {
	one := string(pki.EncodeCertificate(newCA(t, pki.CAOptions{}).Certificate()))
	broken := strings.Replace(one, "\nMII", "\n!II", 1)
	for name, c := range map[string]struct {
		text string
		want int
		told string
	}{
		"one":                {one, 1, ""},
		"with text":          {"# the old one\n" + one + "# the new one\n" + one + "# end\n", 2, ""},
		"damaged at first":   {broken + one, 0, "certificate 1 is damaged"},
		"damaged within":     {one + broken + one, 0, "certificate 2 is damaged"},
		"damaged at the end": {one + broken, 0, "certificate 2 is damaged"},
		"cut off":            {one + one[:40], 0, "certificate 2 is damaged"},
		"no DER":             {"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", 0, "certificate 1 cannot be read"},
		"nothing":            {"", 0, "no certificate in PEM"},
	} {
		certs, err := pki.ParseCertificates([]byte(c.text))
		if c.told != "" {
			refused(t, err, nil, c.told)
			continue
		}
		if err != nil || len(certs) != c.want {
			t.Errorf("%s: %d, %v", name, len(certs), err)
		}
	}
}

func TestKeysArePrintedNowhere(t *testing.T) {
	dir := written(t)
	ca, err := pki.OpenCA(dir, at(today))
	must(t, err)
	caKey, err := os.ReadFile(filepath.Join(dir, "ca.key"))
	must(t, err)
	leaf := newLeaf(t, ca)
	must(t, leaf.Write(filepath.Join(dir, "n1.crt"), filepath.Join(dir, "n1.key")))
	leafKey, err := os.ReadFile(filepath.Join(dir, "n1.key"))
	must(t, err)
	for name, held := range map[string]struct {
		v   any
		key []byte
	}{
		"CA": {ca, caKey}, "CA by value": {*ca, caKey}, "CA in a field": {struct{ c *pki.CA }{ca}, caKey}, "leaf": {leaf, leafKey}, "leaf by value": {*leaf, leafKey},
	} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
			silent(t, name+" "+verb, fmt.Sprintf(verb, held.v), held.key)
		}
		var log strings.Builder
		slog.New(slog.NewJSONHandler(&log, nil)).Info("message", "value", held.v)
		slog.New(slog.NewTextHandler(&log, nil)).Info("message", "value", held.v)
		silent(t, name+" in the log", log.String(), held.key)
		b, _ := json.Marshal(held.v)
		silent(t, name+" in JSON", string(b), held.key)
	}
}

// silent wants a text without the private key of a file, in any of the ways that Go prints numbers and bytes.
func silent(t *testing.T, how, said string, file []byte) {
	t.Helper()
	block, _ := pem.Decode(file)
	if block == nil {
		return
	}
	for line := range strings.Lines(string(file)) {
		if !strings.HasPrefix(line, "-----") && strings.Contains(said, strings.TrimSpace(line)) {
			t.Errorf("%s has the text of the key", how)
		}
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	key, ok := parsed.(*ecdsa.PrivateKey)
	if err != nil || !ok {
		return
	}
	d, err := key.Bytes()
	must(t, err)
	lower := strings.ToLower(said)
	words := make([]string, 0, len(d))
	for _, b := range d[:8] {
		words = append(words, fmt.Sprint(b))
	}
	for _, trace := range []string{hex.EncodeToString(d[4:12]), string(d[:8]), strings.Join(words, " "), strings.Join(words, ", "), key.D.String()} { //nolint:staticcheck // SA1019: to look for it
		if strings.Contains(lower, strings.ToLower(trace)) {
			t.Errorf("%s shows the key: %q", how, said)
		}
	}
}
