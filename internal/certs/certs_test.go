//go:build unix

package certs_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyquorum/keyquorum/internal/certs"
	"github.com/keyquorum/keyquorum/internal/pki"
	"github.com/keyquorum/keyquorum/internal/plainfile"
)

func TestUnacceptableFilesAreRefused(t *testing.T) {
	r := newRig(t)
	ca := r.ca()
	type harm func(f certs.Files)
	write := func(path func(certs.Files) string, text string) harm {
		return func(f certs.Files) { must(t, os.WriteFile(path(f), []byte(text), 0o600)) }
	}
	cert := func(f certs.Files) string { return f.Certificate }
	key := func(f certs.Files) string { return f.Key }
	bundle := func(f certs.Files) string { return f.CA }
	remove := func(path func(certs.Files) string) harm { return func(f certs.Files) { must(t, os.Remove(path(f))) } }
	mode := func(mode fs.FileMode) harm { return func(f certs.Files) { must(t, os.Chmod(f.Key, mode)) } }
	at := func(d time.Duration) harm { return func(certs.Files) { r.setTime(today.Add(d)) } }
	for name, c := range map[string]struct {
		harm harm
		kind error
		told string
	}{
		"no certificate":     {remove(cert), fs.ErrNotExist, "tls.crt"},
		"no key":             {remove(key), fs.ErrNotExist, "tls.key"},
		"no bundle":          {remove(bundle), fs.ErrNotExist, "ca.crt"},
		"empty certificate":  {write(cert, ""), nil, "tls.crt: it holds no certificate in PEM"},
		"empty key":          {write(key, ""), nil, "tls.key: it holds no private key that can be read"},
		"encrypted key":      {write(key, "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"), nil, "tls.key: it holds no private key that can be read"},
		"damaged key":        {write(key, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), nil, "tls.key: it holds no private key that can be read"},
		"empty bundle":       {write(bundle, ""), nil, "ca.crt: it holds no certificate in PEM"},
		"another's key":      {func(f certs.Files) { must(t, os.Rename(r.files(r.node(ca, "n1"), ca).Key, f.Key)) }, nil, "tls.key is not the key of the certificate in"},
		"leaf in the bundle": {func(f certs.Files) { must(t, os.Rename(r.files(r.node(ca, "n1"), ca).Certificate, f.CA)) }, nil, "is not that of a CA"},
		"key in the bundle": {func(f certs.Files) {
			must(t, os.Rename(f.Key, f.CA))
			must(t, os.Rename(r.files(r.node(ca, "n1"), ca).Key, f.Key))
		}, nil, "tls.key is not the key"},
		"key for all":         {mode(0o644), plainfile.ErrOpen, "tls.key has mode 0644"},
		"key others write to": {mode(0o620), plainfile.ErrOpen, "tls.key has mode 0620"},
		"expired":             {at(366 * 24 * time.Hour), pki.ErrExpired, "tls.crt: the certificate has expired: it was valid until 2027-11-24T12:00:00Z"},
		"not yet valid":       {at(-time.Hour), pki.ErrNotYetValid, "tls.crt: the certificate is not yet valid: it is from 2026-11-24T11:55:00Z on"},
	} {
		t.Run(name, func(t *testing.T) {
			r.setTime(today)
			f := r.files(r.node(ca, "n1"), ca)
			c.harm(f)
			_, err := certs.Open(f, certs.Options{Now: r.time})
			if err == nil || !strings.Contains(err.Error(), c.told) || c.kind != nil && !errors.Is(err, c.kind) {
				t.Errorf("%v, want %q", err, c.told)
			}
		})
	}
	r.setTime(today)
	f := r.files(r.node(ca, "n1"), ca)
	mode(0o640)(f) // as Kubernetes does it
	r.open(f)
}

func TestACAThatHasRunOutMayStay(t *testing.T) {
	r := newRig(t)
	old, err := pki.NewCA(pki.CAOptions{Now: r.time, ValidFor: time.Hour})
	must(t, err)
	next, err := pki.NewCA(pki.CAOptions{Now: r.time, ValidFor: 100 * 24 * time.Hour})
	must(t, err)
	leaf, err := next.IssueNode(pki.NodeRequest{Name: "n1", Hosts: []string{"n1"}, ValidFor: 90 * 24 * time.Hour})
	must(t, err)
	f := r.files(leaf, old, next)
	s := r.open(f)
	want := func(when time.Time, file string) {
		t.Helper()
		if at, in := s.Expiry(); !at.Equal(when) || in != file {
			t.Errorf("%v in %s, want %v in %s", at, in, when, file)
		}
	}
	want(today.Add(time.Hour), f.CA)
	r.setTime(today.Add(2 * time.Hour))
	want(today.Add(90*24*time.Hour), f.Certificate)
	s = r.open(f)
	want(today.Add(90*24*time.Hour), f.Certificate)
	r.bundle(f, old)
	if err := s.Reload(t.Context()); !errors.Is(err, pki.ErrExpired) || !strings.Contains(err.Error(), "ca.crt: the certificate has expired") {
		t.Error(err)
	}
}

// A new certificate, and then a new CA, the way a cluster goes over to one: what is open goes on, what is new gets the
// new.
func TestAReloadCountsForNewConnections(t *testing.T) {
	r := newRig(t)
	old, next := r.ca(), r.ca()
	f1, f2 := r.files(r.node(old, "n1"), old), r.files(r.node(old, "n2"), old)
	n1, n2 := r.open(f1), r.open(f2)
	server := n1.Server(certs.NodesOnly) // one config for as long as the server lives
	first := connect(t, server, n2.Client("n1"))
	first.good(t)

	for _, step := range []func(){
		func() { r.bundle(f1, old, next); r.bundle(f2, old, next) },
		func() { r.replace(f1, r.node(next, "n1"), old, next) },
		func() { r.replace(f2, r.node(next, "n2"), old, next) },
		func() { r.bundle(f1, next); r.bundle(f2, next) },
	} {
		step()
		reload(t, n1)
		reload(t, n2)
		l := connect(t, server, n2.Client("n1"))
		l.good(t)
		if !l.client.ConnectionState().PeerCertificates[0].Equal(n1.Certificate()) || !l.server.ConnectionState().PeerCertificates[0].Equal(n2.Certificate()) {
			t.Error("a new connection has an old certificate")
		}
		first.talks(t)
	}
	if first.client.ConnectionState().PeerCertificates[0].Equal(n1.Certificate()) {
		t.Error("the certificates were not replaced")
	}
	late := r.source(r.node(old, "n3"), next)
	connect(t, server, late.Client("n1")).refusedByServer(t, "unknown authority")
}

func TestWhatIsBrokenChangesNothingAndIsToldOnce(t *testing.T) {
	r := newRig(t)
	ca := r.ca()
	f := r.files(r.node(ca, "n1"), ca)
	var log logged
	s, err := certs.Open(f, certs.Options{Now: r.time, Logger: log.logger()})
	must(t, err)
	before := s.Certificate()
	next := r.files(r.node(ca, "n1"), ca)

	must(t, os.Rename(next.Certificate, f.Certificate)) // and the key is still on its way
	for range 3 {
		if err := s.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "is not the key of") {
			t.Error(err)
		}
	}
	log.want(t, "is not the key of", 1)
	log.want(t, "what was read before still counts", 1)
	if s.Certificate() != before {
		t.Error("a certificate without its key counts")
	}
	connect(t, s.Server(certs.NodesOnly), s.Client("n1")).good(t)

	must(t, os.WriteFile(f.CA, nil, 0o600)) // another fault is told as well
	must(t, os.Rename(next.Key, f.Key))
	for range 3 {
		if err := s.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "no certificate in PEM") {
			t.Error(err)
		}
	}
	log.want(t, "level=WARN", 2)
	r.bundle(f, ca)
	reload(t, s)
	reload(t, s)
	log.want(t, "new certificates count from now on", 1)
	log.want(t, "PRIVATE", 0)
	if s.Certificate() == before {
		t.Error("the new certificate does not count")
	}
}

// The clock is read after the files: here it is when the rest of the swap arrives.
func TestASwapThatAReadingMeetsHalfWayIsNoFault(t *testing.T) {
	r := newRig(t)
	ca := r.ca()
	f := r.files(r.node(ca, "n1"), ca)
	var arrives func()
	now := func() time.Time {
		if do := arrives; do != nil {
			arrives = nil
			do()
		}
		return r.time()
	}
	var log logged
	s, err := certs.Open(f, certs.Options{Now: now, Logger: log.logger()})
	must(t, err)
	leaf := r.node(ca, "n1")
	next := r.files(leaf, ca)
	must(t, os.Rename(next.Certificate, f.Certificate))
	arrives = func() { must(t, os.Rename(next.Key, f.Key)) }
	reload(t, s)
	if !s.Certificate().Equal(leaf.Certificate()) {
		t.Error("the new certificate does not count")
	}
	log.want(t, "level=WARN", 0)
}

func TestFilesThatComeBackAsTheyWereAreTold(t *testing.T) {
	r := newRig(t)
	ca := r.ca()
	f := r.files(r.node(ca, "n1"), ca)
	var log logged
	s, err := certs.Open(f, certs.Options{Now: r.time, Logger: log.logger()})
	must(t, err)
	must(t, os.Rename(f.Key, f.Key+".away"))
	if err := s.Reload(t.Context()); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	must(t, os.Rename(f.Key+".away", f.Key))
	reload(t, s)
	reload(t, s)
	log.want(t, "files are as they were", 1)
	log.want(t, "new certificates", 0)
}

// A certificate whose time has not begun is taken when it has, and the log is not told each time that it has not.
func TestWhatIsNotYetValidIsTakenInTime(t *testing.T) {
	r := newRig(t)
	ca := r.ca()
	f := r.files(r.node(ca, "n1"), ca)
	var log logged
	s, err := certs.Open(f, certs.Options{Now: r.time, Logger: log.logger()})
	must(t, err)
	r.setTime(today.Add(time.Hour))
	leaf := r.node(ca, "n1")
	r.setTime(today)
	r.replace(f, leaf, ca)
	for i := range 3 {
		r.setTime(today.Add(time.Duration(i) * time.Minute))
		if err := s.Reload(t.Context()); !errors.Is(err, pki.ErrNotYetValid) {
			t.Error(err)
		}
	}
	log.want(t, "level=WARN", 1)
	r.setTime(today.Add(time.Hour))
	reload(t, s)
	if !s.Certificate().Equal(leaf.Certificate()) {
		t.Error("it was not taken")
	}
}

// Same size, same time: only the content tells.
func TestAChangeShowsInTheContent(t *testing.T) {
	r := newRig(t)
	one, two := r.ca(), r.ca()
	f := r.files(r.node(one, "n1"), one)
	must(t, os.Chtimes(f.CA, today, today))
	s := r.open(f)
	caller := r.source(r.node(two, "n2"), one)
	connect(t, s.Server(certs.NodesOnly), caller.Client("n1")).refusedByServer(t, "unknown authority")
	r.bundle(f, two)
	must(t, os.Chtimes(f.CA, today, today))
	reload(t, s)
	connect(t, s.Server(certs.NodesOnly), caller.Client("n1")).good(t)
}

// The way Kubernetes does it, with a link to the folder that is swapped, and in virtual time.
func TestRunLooksAtTheFiles(t *testing.T) {
	for _, interval := range []time.Duration{0, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			ca := r.ca()
			dir := t.TempDir()
			mount := func(name string, leaf *pki.Leaf) {
				must(t, os.Mkdir(filepath.Join(dir, name), 0o700))
				r.filesIn(filepath.Join(dir, name), leaf, ca)
				must(t, os.Symlink(name, filepath.Join(dir, "..new")))
				must(t, os.Rename(filepath.Join(dir, "..new"), filepath.Join(dir, "..data")))
			}
			mount("..1", r.node(ca, "n1"))
			for _, name := range []string{"tls.crt", "tls.key", "ca.crt"} {
				must(t, os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)))
			}
			s, err := certs.Open(in(dir), certs.Options{Now: r.time, Interval: interval})
			must(t, err)
			ctx, stop := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- s.Run(ctx) }()

			next := r.node(ca, "n1")
			mount("..2", next)
			must(t, os.RemoveAll(filepath.Join(dir, "..1")))
			if interval == 0 {
				interval = certs.DefaultInterval
			}
			time.Sleep(interval - time.Nanosecond)
			synctest.Wait()
			if s.Certificate().Equal(next.Certificate()) {
				t.Error("the files were read before their time")
			}
			time.Sleep(time.Nanosecond)
			synctest.Wait()
			if !s.Certificate().Equal(next.Certificate()) {
				t.Error("the new files were not read")
			}
			stop()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
}

// Whatever a reading meets half-way, connections have a certificate with its key.
func TestConnectionsWhileFilesAreSwapped(t *testing.T) {
	r := newRig(t)
	ca := r.ca()
	f := r.files(r.node(ca, "n1"), ca)
	s := r.open(f)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				_ = s.Reload(context.Background())
			}
		}
	}()
	for range 20 {
		r.replace(f, r.node(ca, "n1"), ca)
		connect(t, s.Server(certs.NodesOnly), s.Client("n1")).good(t)
	}
	close(stop)
	<-stopped
	reload(t, s)
}

func TestASourceDoesNotPrintItsKey(t *testing.T) {
	r := newRig(t)
	ca := r.ca()
	f := r.files(r.node(ca, "n1"), ca)
	s := r.open(f)
	key, err := os.ReadFile(f.Key)
	must(t, err)
	d := scalar(t, key)
	for _, v := range []any{s, struct{ s *certs.Source }{s}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
			said := strings.ToLower(fmt.Sprintf(verb, v))
			for _, trace := range []string{fmt.Sprintf("%x", d[4:12]), strings.Trim(fmt.Sprint(d[:8]), "[]"), string(d[:8])} {
				if strings.Contains(said, strings.ToLower(trace)) {
					t.Errorf("%s shows the key: %q", verb, said)
				}
			}
		}
	}
}
