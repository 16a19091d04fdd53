package main

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

// awaitReady waits until the node at an address says that it is ready.
func awaitReady(ctx context.Context, address string) error {
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for {
		if status, _, err := probe(ctx, direct, "http://"+address+"/readyz"); err == nil && status == http.StatusOK {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the node at %s did not get ready: %w", address, ctx.Err())
		case <-poll.C:
		}
	}
}
