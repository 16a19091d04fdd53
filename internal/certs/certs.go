// Package certs keeps the certificate, the key and the trusted CAs that a process works with, and takes new ones from the
// same files while it runs: certificates run out, and a restart for each new one would cost requests.
//
// A change counts for connections that are made after it; those that are open go on. Files that are not acceptable
// change nothing: a half-copied pair must not end what worked.
//
// A server has someone to Run its Source. A client, which may have nothing that goes on in the background, looks at the
// files as it dials.
package certs

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyquorum/keyquorum/internal/pki"
	"github.com/keyquorum/keyquorum/internal/plainfile"
)

// DefaultInterval is how often files are looked at unless told.
const DefaultInterval = 10 * time.Second

// Far more than a key, and than a chain or a bundle of CAs of a cluster has, in bytes.
const maxKey, maxCerts = 32 << 10, 256 << 10

// Files are the paths of what a process works with, all in PEM. Links are followed, anew each time, so folders that are
// swapped by a link, as those of a Kubernetes secret are, work.
//
// A client that is known by other means has neither Certificate nor Key.
type Files struct {
	// Certificate has the process's own, first, and the intermediate ones up to the CA, if there are any.
	Certificate string
	// Key has its private key, which only its owner and its group may be able to read.
	Key string
	// CA has the certificates of the CAs whose certificates others may show. The system's do not count: who trusts them
	// names their file.
	CA string
}

// check tells which paths are missing.
func (f Files) check() error {
	var faults []error
	if f.CA == "" {
		faults = append(faults, errors.New("no CA: name the file with the CAs that are trusted"))
	}
	switch {
	case f.Certificate == "" && f.Key != "":
		faults = append(faults, errors.New("a Key without a Certificate: name both or neither"))
	case f.Certificate != "" && f.Key == "":
		faults = append(faults, errors.New("a Certificate without a Key: name both or neither"))
	}
	return errors.Join(faults...)
}

// own tells whether there is a certificate of the process's own.
func (f Files) own() bool { return f.Certificate != "" }

// Options of a Source. The zero value works.
type Options struct {
	// Logger takes what an operator should know; nil for none.
	Logger *slog.Logger
	// Now is the clock by which certificates are valid or not; nil for time.Now.
	Now func() time.Time
	// Interval is how often Run looks at the files, and ReloadIfDue at the most; DefaultInterval if zero.
	Interval time.Duration
}

// Source is what was last read and found good. It is safe for concurrent use, and does not print the key.
type Source struct {
	files    Files
	log      *slog.Logger
	now      func() time.Time
	interval time.Duration

	current atomic.Pointer[material]
	// looked is when the files were last looked at, and fault what was wrong with them then; nil for nothing.
	looked atomic.Pointer[time.Time]
	fault  atomic.Pointer[error]

	mu sync.Mutex // held while files are read
	// complaint is what the log was last told is wrong with the files; empty if they are good.
	complaint string
}

// material is one reading of the three files. It is never changed.
type material struct {
	sum   [sha256.Size]byte   // of all content
	own   tls.Certificate     // empty for a client without one
	chain []*x509.Certificate // of own
	cas   []*x509.Certificate
	pool  *x509.CertPool
}

// Open reads the files. The error names the field of a path that is missing, or the file and what is wrong with it: missing or open to others, no certificate, a
// key that does not match, a certificate that has expired or is not yet valid, no CA. It wraps pki.ErrExpired,
// pki.ErrNotYetValid, plainfile.ErrOpen or fs.ErrNotExist where that is the reason, and holds nothing of the key.
func Open(files Files, o Options) (*Source, error) {
	if err := files.check(); err != nil {
		return nil, err
	}
	s := &Source{files: files, log: o.Logger, now: o.Now, interval: o.Interval}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.interval == 0 {
		s.interval = DefaultInterval
	}
	m, err := s.read()
	if err != nil {
		return nil, err
	}
	s.current.Store(m)
	s.look()
	return s, nil
}

// Run looks at the files again and again, until ctx ends. It returns nil.
func (s *Source) Run(ctx context.Context) error {
	t := time.NewTicker(s.interval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			_ = s.Reload(ctx) // it has told the log
		}
	}
}

// Reload looks at the files now. If they changed and are good, they count from now on; if they are not, what counted
// before still does, and the error says why, as Open's does. The log is told of both, of the same fault once.
func (s *Source) Reload(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reload(ctx)
}

// ReloadIfDue is Reload for those who do not Run: it looks at the files where Interval has passed since that was last
// done. It waits for no other goroutine that does; what counted before counts until that one is done.
func (s *Source) ReloadIfDue(ctx context.Context) error {
	if !s.due() || !s.mu.TryLock() {
		return nil
	}
	defer s.mu.Unlock()
	if !s.due() {
		return nil
	}
	return s.reload(ctx)
}

func (s *Source) due() bool { return s.now().Sub(*s.looked.Load()) >= s.interval }

func (s *Source) look() {
	now := s.now()
	s.looked.Store(&now)
}

// Fault is what was wrong with the files when they were last looked at, as Reload's error, or nil.
func (s *Source) Fault() error {
	if err := s.fault.Load(); err != nil {
		return *err
	}
	return nil
}

func (s *Source) reload(ctx context.Context) error {
	s.look()
	m, err := s.read()
	if err != nil {
		m, err = s.read() // a folder may have been swapped between one file and the next
	}
	if err != nil {
		s.fault.Store(&err)
		s.complain(ctx, err)
		return err
	}
	s.fault.Store(nil)
	recovered := s.complaint != ""
	s.complaint = ""
	before := s.current.Load()
	switch {
	case m.sum != before.sum:
		s.current.Store(m)
		at, file := s.Expiry()
		s.log.InfoContext(ctx, "new certificates count from now on",
			"serial", m.serial(), "first_to_expire", file, "expires", at.UTC().Format(time.RFC3339))
	case recovered:
		s.log.InfoContext(ctx, "the certificates' files are as they were")
	}
	return nil
}

// serial is the number of the own certificate; empty without one.
func (m *material) serial() string {
	if len(m.chain) == 0 {
		return ""
	}
	return fmt.Sprintf("%x", m.chain[0].SerialNumber)
}

func (s *Source) complain(ctx context.Context, err error) {
	if reason := faultOf(err); reason != s.complaint {
		s.complaint = reason
		s.log.WarnContext(ctx, "the certificates' files are not acceptable: what was read before still counts", "err", err)
	}
}

// faultOf is what tells one fault from another: the words, without the time of day that some of them have.
func faultOf(err error) string {
	if timed, ok := errors.AsType[*timeError](err); ok {
		return timed.file + string(timed.serial)
	}
	return err.Error()
}

// timeError says that a certificate is not valid at this time.
type timeError struct {
	file   string
	serial []byte
	err    error
}

func (e *timeError) Error() string { return fmt.Sprintf("%s: the certificate %v", e.file, e.err) }
func (e *timeError) Unwrap() error { return e.err }

// read gives what the files hold, if all of it is good. They are read whole each time: they are small, and a new file can
// have the size and the time of the old one.
func (s *Source) read() (*material, error) {
	certText, keyText, err := s.readOwn()
	if err != nil {
		return nil, err
	}
	defer clear(keyText)
	caText, err := readFile(s.files.CA, maxCerts, nil)
	if err != nil {
		return nil, err
	}
	m := &material{sum: sumOf(certText, keyText, caText)}
	if s.files.own() {
		if err := s.takeOwn(m, certText, keyText); err != nil {
			return nil, err
		}
	}
	if err := s.takeCAs(m, caText); err != nil {
		return nil, err
	}
	return m, nil
}

// readOwn gives the text of the own certificate and of its key; none where there is none.
func (s *Source) readOwn() (certText, keyText []byte, err error) {
	if !s.files.own() {
		return nil, nil, nil
	}
	certText, err = readFile(s.files.Certificate, maxCerts, nil)
	if err != nil {
		return nil, nil, err
	}
	keyText, err = readFile(s.files.Key, maxKey, plainfile.PrivateToGroup)
	return certText, keyText, err
}

func readFile(path string, limit int, check func(string, fs.FileInfo) error) ([]byte, error) {
	text, err := plainfile.Read(path, limit, check)
	if err != nil {
		return nil, fmt.Errorf("read certificates: %w", err)
	}
	return text, nil
}

// sumOf tells contents apart, also where one file's end becomes the next one's beginning.
func sumOf(contents ...[]byte) [sha256.Size]byte {
	var sums []byte
	for _, c := range contents {
		sum := sha256.Sum256(c)
		sums = append(sums, sum[:]...)
	}
	return sha256.Sum256(sums)
}

func (s *Source) takeOwn(m *material, certText, keyText []byte) error {
	chain, err := pki.ParseCertificates(certText)
	if err != nil {
		return fmt.Errorf("%s: %w", s.files.Certificate, err)
	}
	for _, cert := range chain {
		if err := pki.CheckTime(cert, s.now()); err != nil {
			return &timeError{s.files.Certificate, cert.SerialNumber.Bytes(), err}
		}
	}
	key, err := parseKey(keyText)
	if err != nil {
		return fmt.Errorf("%s: %w", s.files.Key, err)
	}
	if !matches(key, chain[0]) {
		return fmt.Errorf("%s is not the key of the certificate in %s", s.files.Key, s.files.Certificate)
	}
	m.chain = chain
	m.own = tls.Certificate{PrivateKey: key, Leaf: chain[0]}
	for _, cert := range chain {
		m.own.Certificate = append(m.own.Certificate, cert.Raw)
	}
	return nil
}

// takeCAs wants CAs alone: whatever is in a pool is trusted as it stands. One that has run out may be there still, as
// long as another has not.
func (s *Source) takeCAs(m *material, text []byte) error {
	cas, err := pki.ParseCertificates(text)
	if err != nil {
		return fmt.Errorf("%s: %w", s.files.CA, err)
	}
	m.pool = x509.NewCertPool()
	var untimely error
	valid := 0
	for _, ca := range cas {
		if err := pki.CheckCA(ca); err != nil {
			return fmt.Errorf("%s: %w", s.files.CA, err)
		}
		if err := pki.CheckTime(ca, s.now()); err != nil {
			untimely = &timeError{s.files.CA, ca.SerialNumber.Bytes(), err}
		} else {
			valid++
		}
		m.pool.AddCert(ca)
	}
	if valid == 0 {
		return untimely
	}
	m.cas = cas
	return nil
}

// Certificate is the process's own that counts now; nil for a client without one. It is not to be changed.
func (s *Source) Certificate() *x509.Certificate { return s.current.Load().own.Leaf }

// Expiry gives when the first of the certificates that count runs out, and the file that it is in. CAs that have
// run out are not looked at as long as others have not.
func (s *Source) Expiry() (at time.Time, file string) {
	m := s.current.Load()
	at, file = nextCA(m.cas, s.now()), s.files.CA
	for _, cert := range m.chain {
		if !cert.NotAfter.After(at) {
			at, file = cert.NotAfter, s.files.Certificate
		}
	}
	return at, file
}

// nextCA is when the first CA runs out that has not; when the last one did, if all have.
func nextCA(cas []*x509.Certificate, now time.Time) time.Time {
	var next, last time.Time
	for _, ca := range cas {
		if ca.NotAfter.After(last) {
			last = ca.NotAfter
		}
		if !now.After(ca.NotAfter) && (next.IsZero() || ca.NotAfter.Before(next)) {
			next = ca.NotAfter
		}
	}
	if next.IsZero() {
		return last
	}
	return next
}
