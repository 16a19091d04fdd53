package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/keyquorum/keyquorum/client"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
	"github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1/keyquorumv1connect"
)

// A login service issues a token once it has checked who is there, and any service verifies it.
func Example() {
	ctx := context.Background()
	addrs, stop := runCluster() // stands in for the real one
	defer stop()

	c, err := client.New(addrs, client.WithTimeout(5*time.Second))
	if err != nil {
		fmt.Println(err) // names every bad address
		return
	}
	defer c.Close()

	issued, err := c.Issue(ctx, &v1.IssueRequest{Subject: "alice/phone", Ttl: durationpb.New(15 * time.Minute)})
	if err != nil {
		fmt.Println(err)
		return
	}

	v, err := c.VerifyToken(ctx, issued.GetToken(), "")
	switch {
	case errors.Is(err, client.ErrInvalidToken):
		fmt.Println("log in again:", err)
	case err != nil:
		fmt.Println("nobody can tell now:", err)
	default:
		fmt.Println("hello,", v.Subject())
	}
	// Output: hello, alice/phone
}

// Claims of one's own go in and come out as a Go value.
func ExampleVerified_Claims() {
	ctx := context.Background()
	c, stop := runClient()
	defer stop()

	type profile struct {
		Plan  string   `json:"plan"`
		Shops []int64  `json:"shops"`
		Roles []string `json:"roles"`
	}
	claims, err := client.Claims(profile{Plan: "pro", Shops: []int64{9007199254740991}, Roles: []string{"owner"}})
	if err != nil {
		fmt.Println(err) // names the claim that could not arrive as it is
		return
	}
	issued, err := c.Issue(ctx, &v1.IssueRequest{Subject: "alice", Claims: claims})
	if err != nil {
		fmt.Println(err)
		return
	}

	v, err := c.VerifyToken(ctx, issued.GetToken(), "")
	if err != nil {
		fmt.Println(err)
		return
	}
	var got profile
	if err := v.Claims(&got); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%s: %+v\n", v.Subject(), got)
	// Output: alice: {Plan:pro Shops:[9007199254740991] Roles:[owner]}
}

// Middleware lets requests with a valid token through, and tells the handler whose it is.
func ExampleClient_Middleware() {
	c, stop := runClient()
	defer stop()

	account := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v, _ := client.FromContext(r.Context())
		fmt.Fprintf(w, "the account of %s", v.Subject())
	})
	shop := httptest.NewServer(c.Middleware()(account))
	defer shop.Close()

	for _, token := range []string{issue(c, "alice"), "made-up"} {
		req, _ := http.NewRequest(http.MethodGet, shop.URL, http.NoBody)
		req.Header.Set("Authorization", "Bearer "+token)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			fmt.Println(err)
			return
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		fmt.Println(res.StatusCode, string(body))
	}
	// Output:
	// 200 the account of alice
	// 401 Unauthorized
}

// A browser keeps its token in a cookie. Pages that anybody may see know who is there, if somebody is.
func ExampleWithCookie() {
	c, stop := runClient()
	defer stop()

	page := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if v, ok := client.FromContext(r.Context()); ok {
			fmt.Fprintf(w, "hello, %s", v.Subject())
			return
		}
		fmt.Fprint(w, "hello, stranger")
	})
	guarded := c.Middleware(client.WithCookie("session"), client.WithOptionalToken())(page)

	for _, token := range []string{issue(c, "alice"), ""} {
		req := httptest.NewRequest(http.MethodGet, "/", http.NoBody)
		req.AddCookie(&http.Cookie{Name: "session", Value: token})
		w := httptest.NewRecorder()
		guarded.ServeHTTP(w, req)
		fmt.Println(w.Body)
	}
	// Output:
	// hello, alice
	// hello, stranger
}

// Interceptor does for a Connect service what Middleware does for net/http.
func ExampleClient_Interceptor() {
	ctx := context.Background()
	c, stop := runClient()
	defer stop()

	const procedure = "/shop.v1.AccountService/Name"
	name := func(ctx context.Context, _ *connect.Request[emptypb.Empty]) (*connect.Response[wrapperspb.StringValue], error) {
		v, _ := client.FromContext(ctx)
		return connect.NewResponse(wrapperspb.String(v.Subject())), nil
	}
	shop := httptest.NewServer(connect.NewUnaryHandler(procedure, name, connect.WithInterceptors(c.Interceptor())))
	defer shop.Close()

	accounts := connect.NewClient[emptypb.Empty, wrapperspb.StringValue](http.DefaultClient, shop.URL+procedure)
	req := connect.NewRequest(&emptypb.Empty{})
	_, err := accounts.CallUnary(ctx, req)
	fmt.Println(connect.CodeOf(err))

	req.Header().Set("Authorization", "Bearer "+issue(c, "alice"))
	res, err := accounts.CallUnary(ctx, req)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(res.Msg.GetValue())
	// Output:
	// unauthenticated
	// alice
}

// Hedging asks a second node for the slowest answers, and takes whichever is first.
func ExampleWithHedgingAt() {
	ctx := context.Background()
	addrs, stop := runCluster()
	defer stop()

	c, err := client.New(addrs, client.WithRegion("eu-west"), client.WithHedgingAt(0.95))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()

	token := issue(c, "alice")
	for range 100 {
		if _, err := c.VerifyToken(ctx, token, ""); err != nil {
			fmt.Println(err)
			return
		}
	}
	fmt.Println("done")
	// Output: done
}

// Naming the key that one saw makes a change safe to send again, and the client does.
func ExampleClient_Revoke() {
	ctx := context.Background()
	c, stop := runClient()
	defer stop()

	token := issue(c, "alice/phone")
	v, err := c.VerifyToken(ctx, token, "")
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = c.Revoke(ctx, &v1.RevokeRequest{Subject: v.Subject(), ExpectedKeyId: v.KeyID()})
	switch {
	case errors.Is(err, client.ErrConflict):
		fmt.Println("the key has changed already")
	case errors.Is(err, client.ErrOutcomeUnknown):
		fmt.Println("look with Get what became of it")
	case err != nil:
		fmt.Println(err)
	}
	_, err = c.VerifyToken(ctx, token, "")
	fmt.Println(err)
	// Output: the token is not valid: KEY_NOT_FOUND
}

// VerifyBatch has many tokens judged at once, on one state: one verdict each, in their order.
func ExampleClient_VerifyBatch() {
	ctx := context.Background()
	c, stop := runClient()
	defer stop()

	res, err := c.VerifyBatch(ctx, &v1.VerifyBatchRequest{Tokens: []string{issue(c, "alice"), "made-up", issue(c, "bob")}})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, verdict := range res.GetVerdicts() {
		if verdict.GetValid() {
			fmt.Println(verdict.GetSubject())
		} else {
			fmt.Println("not valid:", verdict.GetReason())
		}
	}
	// Output:
	// alice
	// not valid: MALFORMED
	// bob
}

// Rotating gives a user another key. Tokens of the old one are good until they expire, unless the cluster is in strict mode.
func ExampleClient_Rotate() {
	ctx := context.Background()
	c, stop := runClient()
	defer stop()

	old := issue(c, "alice")
	v, err := c.VerifyToken(ctx, old, "")
	if err != nil {
		fmt.Println(err)
		return
	}
	rotated, err := c.Rotate(ctx, &v1.RotateRequest{Subject: "alice", ExpectedKeyId: v.KeyID()})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("another key:", rotated.GetKeyId() != v.KeyID())
	_, err = c.VerifyToken(ctx, old, "")
	fmt.Println("the old token:", err)
	// Output:
	// another key: true
	// the old token: <nil>
}

// Deleting forgets a user, whose tokens end as with Revoke. Who is not there is no failure for one who wants that.
func ExampleClient_Delete() {
	ctx := context.Background()
	c, stop := runClient()
	defer stop()

	token := issue(c, "alice")
	for range 2 {
		_, err := c.Delete(ctx, &v1.DeleteRequest{Subject: "alice"})
		switch {
		case errors.Is(err, client.ErrNotFound):
			fmt.Println("she was forgotten before")
		case err != nil:
			fmt.Println(err)
			return
		default:
			fmt.Println("forgotten")
		}
	}
	_, err := c.VerifyToken(ctx, token, "")
	fmt.Println(errors.Is(err, client.ErrTokenKeyNotFound))
	// Output:
	// forgotten
	// she was forgotten before
	// true
}

// Interceptors see each attempt of each call: here they count, as those of a metrics or tracing library do.
func ExampleWithInterceptors() {
	ctx := context.Background()
	addrs, stop := runCluster()
	defer stop()

	var verified, failed atomic.Int64
	count := func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
			res, err := next(ctx, req)
			if req.Spec().Procedure == keyquorumv1connect.TokenServiceVerifyProcedure {
				verified.Add(1)
				if err != nil {
					failed.Add(1)
				}
			}
			return res, err
		}
	}
	c, err := client.New(addrs, client.WithInterceptors(connect.UnaryInterceptorFunc(count)))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()

	token := issue(c, "alice")
	for range 3 {
		if _, err := c.VerifyToken(ctx, token, ""); err != nil {
			fmt.Println(err)
			return
		}
	}
	fmt.Println(verified.Load(), "verified,", failed.Load(), "failed")
	// Output: 3 verified, 0 failed
}
