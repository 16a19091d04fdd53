package client_test

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/keyquorum/keyquorum/client"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

// A login service issues a token once it has checked who is there, and any service verifies it.
func Example() {
	cluster := httptest.NewServer((&fake{name: "good"}).handler()) // stands in for a node
	defer cluster.Close()

	c, err := client.New([]string{cluster.URL}, client.WithTimeout(5*time.Second))
	if err != nil {
		fmt.Println(err) // names every bad address
		return
	}
	defer c.Close()

	claims, err := client.Claims(map[string]any{"plan": "pro"})
	if err != nil {
		fmt.Println(err) // names the claim that could not arrive as it is
		return
	}
	issued, err := c.Issue(context.Background(), &v1.IssueRequest{
		Subject: "alice", Ttl: durationpb.New(15 * time.Minute), Claims: claims,
	})
	if err != nil {
		fmt.Println(err)
		return
	}

	verdict, err := c.Verify(context.Background(), &v1.VerifyRequest{Token: issued.GetToken()})
	switch {
	case errors.Is(err, client.ErrUnavailable):
		fmt.Println("nobody can tell now: try again later")
	case err != nil:
		fmt.Println(err)
	case !verdict.GetValid():
		fmt.Println("not valid:", verdict.GetReason())
	default:
		fmt.Println("valid")
	}
	// Output: valid
}
