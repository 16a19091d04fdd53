package client

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyquorum/keyquorum/internal/plainfile"
	"github.com/keyquorum/keyquorum/internal/secret"
)

const (
	// tokenInterval is how often the file of an API token is looked at, at the most, unless a node refuses the token.
	tokenInterval = time.Second
	// maxAPIToken is far more than an API token has, in bytes.
	maxAPIToken = 4 << 10
)

// apiToken is what the client is known by. It is safe for concurrent use, and does not print.
type apiToken struct {
	path    string // empty where the token was given itself
	current atomic.Pointer[secret.Text]
	// looked is when the file was last looked at, zero for at once, and fault what was wrong with it then; nil for nothing.
	looked atomic.Pointer[time.Time]
	fault  atomic.Pointer[error]

	mu sync.Mutex // held while the file is read
}

func newAPIToken(token secret.Text) (*apiToken, error) {
	if !isAPIToken(token.Reveal()) {
		return nil, errors.New("it is not of the form of an API token, kq_ID_SECRET")
	}
	t := &apiToken{}
	t.current.Store(&token)
	return t, nil
}

// openAPIToken reads the token from a file, of which it then takes what is new.
func openAPIToken(path string) (*apiToken, error) {
	t := &apiToken{path: path}
	t.read()
	if err := t.lastFault(); err != nil {
		return nil, err
	}
	return t, nil
}

// isAPIToken tells whether s can go into a header. What makes a token a good one is for the cluster to say.
func isAPIToken(s string) bool { return isToken68(s) && len(s) <= maxAPIToken }

// get gives the token that counts now. Where it is time to look at the file, one caller does and the others do not wait.
func (t *apiToken) get() secret.Text {
	if t.due() && t.mu.TryLock() {
		if t.due() {
			t.read()
		}
		t.mu.Unlock()
	}
	return *t.current.Load()
}

func (t *apiToken) due() bool {
	return t.path != "" && time.Since(*t.looked.Load()) >= tokenInterval
}

// refused has the file looked at before the next request.
func (t *apiToken) refused() { t.looked.Store(&time.Time{}) }

// lastFault is what was wrong with the file when it was last looked at. The token read before counts all the same.
func (t *apiToken) lastFault() error {
	if err := t.fault.Load(); err != nil {
		return *err
	}
	return nil
}

func (c *Client) tokenFault() error {
	if c.token == nil {
		return nil
	}
	return c.token.lastFault()
}

func (t *apiToken) read() {
	now := time.Now()
	t.looked.Store(&now)
	token, err := readAPIToken(t.path)
	if err != nil {
		t.fault.Store(&err)
		return
	}
	t.fault.Store(nil)
	t.current.Store(&token)
}

// readAPIToken tells nothing of the content where that is not acceptable: it may be another secret.
func readAPIToken(path string) (secret.Text, error) {
	content, err := plainfile.Read(path, maxAPIToken, plainfile.PrivateToGroup)
	if err != nil {
		return secret.Text{}, err
	}
	defer clear(content)
	token := string(bytes.TrimSpace(content))
	if !isAPIToken(token) {
		return secret.Text{}, fmt.Errorf("%s does not hold an API token alone, of the form kq_ID_SECRET", path)
	}
	return secret.NewText(token), nil
}
