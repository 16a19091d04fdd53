package clienttest_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/keyquorum/keyquorum/client"
	"github.com/keyquorum/keyquorum/client/clienttest"
)

// exampleT is a testing.TB for the example, which has none.
type exampleT struct {
	testing.TB

	cleanups []func()
}

func (*exampleT) Helper()                  {}
func (*exampleT) Context() context.Context { return context.Background() }
func (t *exampleT) Cleanup(f func())       { t.cleanups = append(t.cleanups, f) }

func (t *exampleT) end() {
	for _, f := range slices.Backward(t.cleanups) {
		f()
	}
}

// shop is the service that is tested.
func shop(c *client.Client) http.Handler {
	return c.Middleware()(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v, _ := client.FromContext(r.Context())
		fmt.Fprintf(w, "the cart of %s", v.Subject())
	}))
}

// A service is tested with a real cluster behind it: with a user who is logged in, one who is logged out, and while a
// node is down.
func Example() {
	t := &exampleT{} // in a test, its own *testing.T
	defer t.end()

	cluster := clienttest.NewCluster(t, 3)
	service := shop(cluster.Client())
	ask := func(token string) {
		req := httptest.NewRequest(http.MethodGet, "/cart", http.NoBody)
		req.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		service.ServeHTTP(w, req)
		fmt.Println(w.Code, w.Body)
	}

	token := cluster.Issue("alice/phone", nil)
	ask(token)
	cluster.Stop(cluster.Leader())
	ask(token)
	cluster.Revoke("alice/phone")
	ask(token)
	// Output:
	// 200 the cart of alice/phone
	// 200 the cart of alice/phone
	// 401 Unauthorized
}
