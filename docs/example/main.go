// Command example is a web service that uses Keyquorum for its sessions: log in, a page for those who are, log out, here
// or everywhere. Any number of instances can run side by side, and share nothing but the cluster. It is meant to be
// read, and to be started from; README.md says what a real application would add.
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/keyquorum/keyquorum/client"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:8080", "where to serve, `HOST:PORT`; port 0 for any")
	nodes := flag.String("nodes", "127.0.0.1:7400", "some of the cluster's nodes, `HOST:PORT,...`")
	var tls client.TLSFiles
	flag.StringVar(&tls.CA, "tls-ca", "", "the CAs of a cluster that speaks TLS, a `FILE` in PEM; none for plain HTTP, as with keyquorum dev")
	flag.StringVar(&tls.Certificate, "tls-cert", "", "the certificate by which the cluster knows this service, a `FILE`")
	flag.StringVar(&tls.Key, "tls-key", "", "its private key, a `FILE`")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	if err := run(ctx, *listen, *nodes, tls, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run serves until ctx ends. The first line that it prints is its URL.
func run(ctx context.Context, listen, nodes string, tls client.TLSFiles, out, logs io.Writer) error {
	var options []client.Option
	if tls != (client.TLSFiles{}) {
		options = append(options, client.WithTLS(tls))
	}
	cluster, err := client.New(strings.Split(nodes, ","), options...)
	if err != nil {
		return fmt.Errorf("--nodes, --tls-…: %w", err)
	}
	defer cluster.Close()
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return fmt.Errorf("--listen: %w", err)
	}
	ada, bob := rand.Text()[:12], rand.Text()[:12]
	fmt.Fprintf(out, "http://%s\nLog in as ada with the password %s, or as bob with %s.\n", listener.Addr(), ada, bob)
	log := slog.New(slog.NewTextHandler(logs, nil))
	return serve(ctx, listener, newApp(cluster, newUsers(map[string]string{"ada": ada, "bob": bob}), log), log)
}

// answerWithin bounds what an answer waits for, which is the cluster above all. Logging out everywhere takes the longest: two
// revocations, one after another, of 25 s each where a node does not answer and the cluster's maxStaleness is at its highest.
const answerWithin = time.Minute

// within has requests end in time, so that what could not be done is told and not cut off.
func within(d time.Duration, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), d)
		defer cancel()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// serve answers requests until ctx ends, and those that are in flight then.
func serve(ctx context.Context, listener net.Listener, handler http.Handler, log *slog.Logger) error {
	server := &http.Server{
		Handler:           within(answerWithin, handler),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      answerWithin + 5*time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10, // a token, which is in a cookie, has 8 KiB at the most
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	drained := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 15*time.Second)
		defer cancel()
		drained <- server.Shutdown(grace)
	})
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return <-drained
}
