package vault

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/keyquorum/keyquorum/internal/plainfile"
	"github.com/keyquorum/keyquorum/internal/seal"
	"github.com/keyquorum/keyquorum/internal/secret"
)

const (
	// maxBody bounds an answer: a keyring in base64, and what Vault puts around it.
	maxBody = 256 << 10
	// patience is for one request, connecting included.
	patience = 10 * time.Second
	// maxToken bounds a file with a token, and maxCA one with CAs.
	maxToken, maxCA = 16 << 10, 256 << 10
)

// client speaks the little of the transit engine's API that is needed: POST /v1/MOUNT/encrypt/KEY and decrypt/KEY.
type client struct {
	cfg Config
	// changed makes tests' connections; nil for the system's.
	dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// encrypt gives the ciphertext of plain, as text.
func (c *client) encrypt(ctx context.Context, plain []byte) ([]byte, error) {
	body := make([]byte, 0, base64.StdEncoding.EncodedLen(len(plain))+32)
	defer func() { clear(body[:cap(body)]) }()
	body = append(body, `{"plaintext":"`...)
	body = base64.StdEncoding.AppendEncode(body, plain)
	body = append(body, `"}`...)
	var answer struct {
		Ciphertext string `json:"ciphertext"`
	}
	if err := c.post(ctx, "encrypt", body, &answer); err != nil {
		return nil, err
	}
	if !isCiphertext(answer.Ciphertext) {
		return nil, c.nonsense("encrypt", errors.New("it has no ciphertext"))
	}
	return []byte(answer.Ciphertext), nil
}

// decrypt gives the plain bytes of a ciphertext. The caller clears them.
func (c *client) decrypt(ctx context.Context, ciphertext string) ([]byte, error) {
	body, err := json.Marshal(struct {
		Ciphertext string `json:"ciphertext"`
	}{ciphertext})
	if err != nil {
		return nil, err
	}
	var answer struct {
		Plaintext []byte `json:"plaintext"` // encoding/json reads the base64
	}
	if err := c.post(ctx, "decrypt", body, &answer); err != nil {
		return nil, err
	}
	if len(answer.Plaintext) == 0 {
		return nil, c.nonsense("decrypt", errors.New("it has no plaintext"))
	}
	return answer.Plaintext, nil
}

// isCiphertext tells what transit makes, as in vault:v1:XjsPWPjq…, from other text.
func isCiphertext(s string) bool {
	parts := strings.SplitN(s, ":", 3)
	return len(parts) == 3 && parts[0] == "vault" && strings.HasPrefix(parts[1], "v") && parts[2] != "" &&
		!strings.ContainsAny(s, " \t\r\n\"\\")
}

// post sends body, and reads the answer's data into the given struct.
func (c *client) post(ctx context.Context, what string, body []byte, data any) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	token, err := c.token()
	if err != nil {
		return err
	}
	req, err := c.request(ctx, what, body, token)
	if err != nil {
		return err
	}
	transport, err := c.transport()
	if err != nil {
		return err
	}
	defer transport.CloseIdleConnections()
	res, err := transport.RoundTrip(req) // no redirect is followed: it would be sent the token
	if err != nil {
		return fmt.Errorf("%w: %s %s: %w", seal.ErrUnavailable, c.cfg.host(), what, err)
	}
	defer res.Body.Close()
	b, err := readAll(res.Body)
	defer clear(b)
	if err != nil {
		return fmt.Errorf("%w: %s %s: %w", seal.ErrUnavailable, c.cfg.host(), what, err)
	}
	if res.StatusCode != http.StatusOK {
		return c.refusal(what, res, b, token)
	}
	envelope := struct {
		Data any `json:"data"`
	}{data}
	if err := json.Unmarshal(b, &envelope); err != nil {
		return c.nonsense(what, errors.New("it is not the JSON that was expected"))
	}
	return nil
}

func (c *client) request(ctx context.Context, what string, body []byte, token secret.Text) (*http.Request, error) {
	at := url.URL{Scheme: c.cfg.scheme, Host: c.cfg.address, Path: "/v1/" + c.cfg.mount + "/" + what + "/" + c.cfg.key}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, at.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Vault-Request", "true") // what an agent asks for that guards against forged requests
	if !token.Empty() {
		req.Header.Set("X-Vault-Token", token.Reveal())
	}
	if c.cfg.namespace != "" {
		req.Header.Set("X-Vault-Namespace", c.cfg.namespace)
	}
	return req, nil
}

// transport is made for each request, seconds apart at least: so it takes the CAs as they are now. It asks no proxy of the
// environment's.
func (c *client) transport() (*http.Transport, error) {
	t := &http.Transport{
		DialContext: c.dial, TLSHandshakeTimeout: patience, ResponseHeaderTimeout: patience, DisableKeepAlives: true,
		MaxResponseHeaderBytes: 64 << 10, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12},
	}
	if c.cfg.ca == "" {
		return t, nil
	}
	pem, err := plainfile.Read(c.cfg.ca, maxCA, nil)
	if err != nil {
		return nil, fmt.Errorf("the CAs of %s: %w", c.cfg.host(), err)
	}
	t.TLSClientConfig.RootCAs = x509.NewCertPool()
	if !t.TLSClientConfig.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("the CAs of %s: %s has no certificate in PEM", c.cfg.host(), c.cfg.ca)
	}
	return t, nil
}

// token gives the token to show; none where an agent adds it. A file is read anew each time, as an agent renews what is in
// it.
func (c *client) token() (secret.Text, error) {
	if c.cfg.tokenFile == "" {
		return c.cfg.token, nil
	}
	b, err := plainfile.Read(c.cfg.tokenFile, maxToken, plainfile.PrivateToGroup)
	if err != nil {
		return secret.Text{}, fmt.Errorf("the token for %s: %w", c.cfg.host(), err)
	}
	defer clear(b)
	token := strings.TrimSpace(string(b))
	if token == "" || strings.ContainsAny(token, "\r\n") {
		return secret.Text{}, fmt.Errorf("the token for %s: %s does not have one line with a token", c.cfg.host(), c.cfg.tokenFile)
	}
	return secret.NewText(token), nil
}

// readAll reads an answer of bounded length, into a buffer that never grows.
func readAll(from io.Reader) ([]byte, error) {
	b := make([]byte, maxBody+1)
	n, err := io.ReadFull(from, b)
	switch {
	case err == nil:
		return b, fmt.Errorf("its answer is %w", plainfile.ErrTooLong)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return b[:n], nil
	}
	return b, err
}

// refusal is an answer other than 200. A service that is sealed, busy or broken may do better later.
func (c *client) refusal(what string, res *http.Response, body []byte, token secret.Text) error {
	said := res.Status
	var answer struct {
		Errors []string `json:"errors"`
	}
	if json.Unmarshal(body, &answer) == nil && len(answer.Errors) > 0 {
		said += ": " + strings.Join(answer.Errors, "; ")
	}
	if !token.Empty() {
		said = strings.ReplaceAll(said, token.Reveal(), "[token]")
	}
	const most = 300
	if len(said) > most {
		said = said[:most] + "…"
	}
	err := fmt.Errorf("%s answers %s/%s with %q", c.cfg.host(), what, c.cfg.key, strings.ToValidUTF8(said, ""))
	switch {
	case res.StatusCode >= 500, res.StatusCode == http.StatusTooManyRequests, res.StatusCode == 472, res.StatusCode == 473:
		return fmt.Errorf("%w: %w", seal.ErrUnavailable, err)
	case res.StatusCode/100 == 3:
		return fmt.Errorf("%w: redirects are not followed: name a node that answers itself", err)
	case res.StatusCode == http.StatusForbidden:
		return fmt.Errorf("%w: its token must be allowed to update %s/encrypt/%[3]s and %[2]s/decrypt/%[3]s", err, c.cfg.mount, c.cfg.key)
	}
	return err
}

// nonsense is about an answer that a transit engine does not give.
func (c *client) nonsense(what string, err error) error {
	return fmt.Errorf("the answer of %s to %s makes no sense: %w: see that the URL names a transit engine of Vault or OpenBao", c.cfg.host(), what, err)
}
