// Package vaulttest is a stand-in for the transit engine of HashiCorp Vault and OpenBao, for tests. It takes what the API's
// documentation says and nothing else.
package vaulttest

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"
)

// Server is an http.Handler. Its fields are set before it is used; its methods are safe for concurrent use.
type Server struct {
	// Mount and Key are where the engine is, and the name of its key.
	Mount, Key string
	// Token and Namespace are wanted in headers; nothing is wanted where they are empty.
	Token, Namespace string

	mu     sync.Mutex
	sealed bool
	texts  map[string]string // base64 of the plaintext, by ciphertext
	seen   []string
}

// Seal has the server answer as one that was sealed, or no more.
func (s *Server) Seal(sealed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sealed = sealed
}

// Requests gives the paths that were asked for.
func (s *Server) Requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.seen...)
}

// Put makes the server know a ciphertext of the base64 of a plaintext.
func (s *Server) Put(ciphertext, plaintext string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.texts == nil {
		s.texts = make(map[string]string)
	}
	s.texts[ciphertext] = plaintext
}

func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.seen = append(s.seen, r.URL.Path)
	sealed := s.sealed
	s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	var body map[string]string
	raw, err := io.ReadAll(r.Body)
	if err == nil {
		err = json.Unmarshal(raw, &body)
	}
	switch operation, ok := strings.CutSuffix(strings.TrimPrefix(r.URL.Path, "/v1/"+s.Mount+"/"), "/"+s.Key); {
	case sealed:
		fail(w, http.StatusServiceUnavailable, "Vault is sealed")
	case s.Token != "" && r.Header.Get("X-Vault-Token") != s.Token, r.Header.Get("X-Vault-Namespace") != s.Namespace:
		fail(w, http.StatusForbidden, "permission denied")
	case !ok || r.URL.RawQuery != "":
		fail(w, http.StatusNotFound, "no handler for route")
	case r.Method != http.MethodPost:
		fail(w, http.StatusMethodNotAllowed, "unsupported operation")
	case err != nil || len(body) != 1:
		fail(w, http.StatusBadRequest, "invalid request")
	case operation == "encrypt":
		s.encrypt(w, body["plaintext"])
	case operation == "decrypt":
		s.decrypt(w, body["ciphertext"])
	default:
		fail(w, http.StatusNotFound, "no handler for route")
	}
}

func (s *Server) encrypt(w http.ResponseWriter, plaintext string) {
	if b, err := base64.StdEncoding.DecodeString(plaintext); err != nil || len(b) == 0 {
		fail(w, http.StatusBadRequest, "illegal base64 data")
		return
	}
	nonce := make([]byte, 24)
	_, _ = rand.Read(nonce)
	ciphertext := "vault:v1:" + base64.StdEncoding.EncodeToString(nonce)
	s.Put(ciphertext, plaintext)
	give(w, "ciphertext", ciphertext)
}

func (s *Server) decrypt(w http.ResponseWriter, ciphertext string) {
	s.mu.Lock()
	plaintext, ok := s.texts[ciphertext]
	s.mu.Unlock()
	if !ok {
		fail(w, http.StatusBadRequest, "invalid ciphertext: unable to decrypt")
		return
	}
	give(w, "plaintext", plaintext)
}

// give answers as Vault does, which puts more around the data than the documentation's examples show.
func give(w http.ResponseWriter, name, value string) {
	_ = json.NewEncoder(w).Encode(map[string]any{
		"request_id": "b0a5ab5c-7c8b-4c6f-9d5e-0c2c1b8b9d3e", "lease_id": "", "renewable": false, "lease_duration": 0,
		"data": map[string]any{name: value, "key_version": 1}, "wrap_info": nil, "warnings": nil, "auth": nil,
	})
}

func fail(w http.ResponseWriter, status int, messages ...string) {
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string][]string{"errors": messages})
}
