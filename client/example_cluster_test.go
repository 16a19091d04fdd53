package client_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/keyquorum/keyquorum/client"
	"github.com/keyquorum/keyquorum/client/clienttest"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

// exampleT is a testing.TB for the examples, which have none.
type exampleT struct {
	testing.TB

	cleanups []func()
}

func (*exampleT) Helper()                           {}
func (*exampleT) Context() context.Context          { return context.Background() }
func (*exampleT) Errorf(format string, args ...any) { fmt.Printf(format+"\n", args...) }
func (*exampleT) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }
func (t *exampleT) Cleanup(f func())                { t.cleanups = append(t.cleanups, f) }

func (t *exampleT) end() {
	for _, f := range slices.Backward(t.cleanups) {
		f()
	}
}

// runCluster gives the addresses of a cluster of one.
func runCluster() (addrs []string, stop func()) {
	t := &exampleT{}
	return clienttest.New(t).Addrs(), t.end
}

// runClient gives a client of a cluster of one.
func runClient() (c *client.Client, stop func()) {
	t := &exampleT{}
	return clienttest.New(t).Client(), t.end
}

// issue gives a token of the subject's.
func issue(c *client.Client, subject string) string {
	res, err := c.Issue(context.Background(), &v1.IssueRequest{Subject: subject})
	if err != nil {
		panic(err)
	}
	return res.GetToken()
}
