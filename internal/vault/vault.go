// Package vault keeps a master keyring in a file that only HashiCorp Vault or OpenBao can open: what is in the file was
// encrypted by a transit engine, whose key never leaves it. A node asks for the plain keyring when it starts, and when it
// looks whether there is another one. While it runs it does not need the service.
package vault

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"strings"

	"github.com/keyquorum/keyquorum/internal/plainfile"
	"github.com/keyquorum/keyquorum/internal/seal"
	"github.com/keyquorum/keyquorum/internal/secret"
)

// Config is what a URL, and the environment, say of a keyring.
type Config struct {
	scheme, address string // http or https, and HOST:PORT
	mount, key      string
	file            string
	token           secret.Text
	tokenFile       string
	namespace, ca   string
}

// host names the service in messages.
func (c *Config) host() string { return c.scheme + "://" + c.address }

// Scheme tells whether a URL is one for Parse.
func Scheme(spec string) bool {
	return strings.HasPrefix(spec, "vault+http://") || strings.HasPrefix(spec, "vault+https://")
}

// Parse reads a URL like vault+https://HOST:8200/MOUNT/KEY?file=PATH, in which MOUNT is where the transit engine is and KEY
// the name of its key. It can have ca=PATH (or VAULT_CACERT) for the CAs of the service, namespace=NAME (or
// VAULT_NAMESPACE), and token-file=PATH for the token, which is VAULT_TOKEN otherwise; none of them where an agent on this
// machine adds it. Without TLS the plain keyring is on the network: only for a loopback address, or with insecure=true.
// Errors never have the token.
func Parse(spec string, env func(string) (string, bool)) (*Source, error) {
	u, err := url.Parse(spec)
	if err != nil {
		return nil, errors.New("is not a URL") // an *url.Error has all of it, passwords too
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, errors.New("has a query that cannot be read")
	}
	cfg := Config{scheme: strings.TrimPrefix(u.Scheme, "vault+"), address: u.Host}
	mount, key, ok := cutLast(strings.Trim(u.Path, "/"))
	cfg.mount, cfg.key = mount, key
	switch {
	case !Scheme(spec):
		return nil, errors.New("must begin with vault+https:// or vault+http://")
	case u.User != nil:
		return nil, errors.New("must not have a user or a password: the token comes from VAULT_TOKEN or a file")
	case u.Fragment != "" || u.Hostname() == "":
		return nil, errors.New("must name a host, and have nothing after a #")
	case !ok:
		return nil, errors.New("must name the transit engine and its key, as in vault+https://HOST:8200/transit/KEY?file=PATH")
	}
	fallback := func(name string) string { value, _ := env(name); return value }
	cfg.token, cfg.namespace, cfg.ca = secret.NewText(fallback("VAULT_TOKEN")), fallback("VAULT_NAMESPACE"), fallback("VAULT_CACERT")
	insecure, err := cfg.take(query)
	if err != nil {
		return nil, err
	}
	if cfg.scheme == "http" && !insecure && !loopback(u.Hostname()) {
		return nil, errors.New("is without TLS, so that the keyring would be on the network in the clear: use vault+https://, or an agent " +
			"at a loopback address; insecure=true in the query says that you know")
	}
	return &Source{client{cfg: cfg}}, nil
}

// cutLast parts the last element of a path from those before.
func cutLast(path string) (before, last string, ok bool) {
	i := strings.LastIndexByte(path, '/')
	if i <= 0 || i == len(path)-1 {
		return "", "", false
	}
	for element := range strings.SplitSeq(path, "/") {
		if element == "" || element == "." || element == ".." {
			return "", "", false
		}
	}
	return path[:i], path[i+1:], true
}

// take reads the query. Each name can be given once.
func (c *Config) take(query url.Values) (insecure bool, err error) {
	for name, values := range query {
		if len(values) != 1 || values[0] == "" {
			return false, fmt.Errorf("has no value, or several, for %q", name)
		}
		switch value := values[0]; name {
		case "file":
			c.file = value
		case "token-file":
			c.tokenFile = value
		case "namespace":
			c.namespace = value
		case "ca":
			c.ca = value
		case "insecure":
			if insecure = value == "true"; !insecure {
				return false, errors.New(`can have insecure=true, and nothing else for "insecure"`)
			}
		default:
			return false, fmt.Errorf("has %q in its query, and can have file, token-file, namespace, ca and insecure", name)
		}
	}
	if c.file == "" {
		return false, errors.New("must say in which file the encrypted keyring is, as in ?file=/etc/keyquorum/keyring.vault")
	}
	return insecure, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Source is a keyring that Vault or OpenBao encrypted.
type Source struct{ client client }

var _ seal.Source = (*Source)(nil)

// String implements seal.Source.
func (s *Source) String() string {
	return fmt.Sprintf("keyring %s, encrypted by %s/%s of %s,", s.client.cfg.file, s.client.cfg.mount, s.client.cfg.key, s.client.cfg.host())
}

// maxFile bounds the encrypted keyring.
const maxFile = maxBody

// Read implements seal.Source. Its error wraps seal.ErrUnavailable where the service does not answer, or cannot yet.
func (s *Source) Read(ctx context.Context) ([]byte, error) {
	file := s.client.cfg.file
	b, err := plainfile.Read(file, maxFile, plainfile.PrivateToGroup)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("there is no keyring at %s: copy the cluster's there, or make the first with \"keyquorum keyring init\": %w", file, err)
	case err != nil:
		return nil, fmt.Errorf("the keyring: %w", err)
	}
	ciphertext := strings.TrimSuffix(string(b), "\n")
	if !isCiphertext(ciphertext) {
		return nil, fmt.Errorf("keyring %s is not what Vault's transit engine encrypted: it has to begin with vault:v", file)
	}
	return s.client.decrypt(ctx, ciphertext)
}

// Create implements seal.Source.
func (s *Source) Create(ctx context.Context, b []byte) error {
	file := s.client.cfg.file
	exists := fmt.Errorf("%s is there already and is not overwritten: the keys sealed under a keyring are lost with it: %w", file, fs.ErrExist)
	if _, err := os.Lstat(file); err == nil {
		return exists
	}
	ciphertext, err := s.client.encrypt(ctx, b)
	if err != nil {
		return err
	}
	if err := plainfile.WriteNew(file, append(ciphertext, '\n'), 0o600); errors.Is(err, fs.ErrExist) {
		return exists
	} else if err != nil {
		return fmt.Errorf("the keyring: %w", err)
	}
	return nil
}

// Replace implements seal.Source.
func (s *Source) Replace(ctx context.Context, b []byte) error {
	ciphertext, err := s.client.encrypt(ctx, b)
	if err != nil {
		return err
	}
	if err := plainfile.Replace(s.client.cfg.file, append(ciphertext, '\n')); err != nil {
		return fmt.Errorf("the keyring: %w", err)
	}
	return nil
}
