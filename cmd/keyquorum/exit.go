package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/keyquorum/keyquorum/client"
	"github.com/keyquorum/keyquorum/internal/seal"
)

// Exit codes. They are part of the surface: docs/CLI.md says what scripts may rely on.
const (
	exitDone = 0
	// exitNo: the answer is no. The token is not valid, the cluster refused, or this machine did.
	exitNo = 1
	// exitUsage: the command line or the settings are wrong; nothing was asked of anyone.
	exitUsage = 2
	// exitUnreachable: there was no answer that settles it. Nobody could answer, or the outcome is open.
	exitUnreachable = 3
)

var (
	// errInvalidToken ends a verification whose answer has been printed.
	errInvalidToken = errors.New("the token is not valid")
	// errUnhealthy ends a check of a node's health whose answer has been printed.
	errUnhealthy = errors.New("the node is not healthy")
	// errNonsense says that a node's answer was read, and cannot be what it should.
	errNonsense = errors.New("the answer makes no sense")
	// errUnwritten says that the answer was there, and nobody got to see it.
	errUnwritten = errors.New("the answer could not be written")
)

// usageError is all that is wrong with a command line and its settings.
type usageError struct{ faults []string }

func (e *usageError) Error() string { return strings.Join(e.faults, "\n") }

func usagef(format string, args ...any) error {
	return &usageError{[]string{fmt.Sprintf(format, args...)}}
}

// unsettled are the failures that leave the caller without a definite answer. A script that takes 1 for "not valid"
// must not be told so by a node that broke, or by an address that is none of the cluster's.
var unsettled = []error{
	client.ErrUnavailable, client.ErrDeadlineExceeded, client.ErrOutcomeUnknown, client.ErrCanceled,
	client.ErrUnimplemented, client.ErrInternal, seal.ErrUnavailable, errNonsense, errNoMajority, errUnwritten, context.Canceled, context.DeadlineExceeded,
}

func exitCode(err error) int {
	var usage *usageError
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &usage):
		return exitUsage
	case isAny(err, unsettled):
		return exitUnreachable
	}
	return exitNo
}

func isAny(err error, targets []error) bool {
	for _, target := range targets {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

// joinFailure adds that the answer could not be written, which is a failure also of what went well.
func joinFailure(err, written error) error {
	if written == nil {
		return err
	}
	return fmt.Errorf("%w: %w", errUnwritten, written)
}

// plainly is an error of the client's own making without what the command line shows anyway.
func plainly(err error) error {
	if e, ok := errors.AsType[*client.Error](err); ok {
		return errors.New(e.Message)
	}
	return err
}

// report tells what went wrong: what, where, and what to do.
func report(p *printer, command string, err error) {
	var usage *usageError
	var failed *client.Error
	switch {
	case err == nil || errors.Is(err, errInvalidToken) || errors.Is(err, errUnhealthy) || errors.Is(err, errBadAudit):
	case errors.As(err, &usage):
		reportUsage(p, command, usage)
	case errors.As(err, &failed):
		reportFailure(p, command, failed)
	default:
		p.printf("%s: %s\n", command, clean(err.Error()))
	}
}

func reportUsage(p *printer, command string, usage *usageError) {
	for _, fault := range usage.faults {
		p.printf("%s: %s\n", command, clean(fault))
	}
	p.printf("Run \"%s --help\" for what it takes.\n", command)
}

func reportFailure(p *printer, command string, e *client.Error) {
	p.printf("%s: %s: %s\n", command, p.paint(red, e.Kind().Error()), clean(e.Message))
	details := fields{}
	for _, earlier := range e.Earlier {
		details.add("tried", earlier.Node+": "+earlier.Message)
	}
	details.add("node", e.Node)
	details.add("request", e.RequestID)
	details.add("retry at", instant(e.RetryAt))
	details.add("next", advice(e))
	p.fields(details)
}

// advice is what a caller can do about a failure; empty if the message says it all.
func advice(e *client.Error) string {
	switch e.Kind() {
	case client.ErrUnavailable:
		return "try again; --addr names other nodes"
	case client.ErrDeadlineExceeded:
		return "try again, or give it longer with --timeout"
	case client.ErrOutcomeUnknown:
		return "see what became of it with " + lookUp(e.Op) + ", then decide"
	case client.ErrUnauthenticated:
		return "say who is calling: by --tls-cert and --tls-key, or --api-token-file"
	case client.ErrConflict:
		return "another change came first: see " + lookUp(e.Op)
	case client.ErrInternal:
		if e.RequestID == "" {
			return "see that --addr names a Keyquorum node; another one may do better"
		}
		return "the node's log says more under the request's id; another node may do better: --addr"
	case client.ErrUnimplemented:
		return "see that --addr names a Keyquorum node, of this version or a later one"
	}
	return ""
}

// lookUp is the command that shows what a call would have changed.
func lookUp(op string) string {
	switch op {
	case "Init", "Remove", "TransferLeadership":
		return "\"keyquorum cluster status\""
	case "RetireMasterKey":
		return "\"keyquorum keyring status\""
	case "UpdateSettings":
		return "\"keyquorum cluster settings get\""
	case "CreateToken", "RevokeToken":
		return "\"keyquorum api-token list\""
	}
	return "\"keyquorum keys get\""
}

// instant is a time as all commands print it; empty for none.
func instant(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}
