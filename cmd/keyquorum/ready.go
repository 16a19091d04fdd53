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
		if isReady(ctx, address) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the node at %s did not get ready: %w", address, ctx.Err())
		case <-poll.C:
		}
	}
}

func isReady(ctx context.Context, address string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/readyz", nil)
	if err != nil {
		return false
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	defer res.Body.Close()
	return res.StatusCode == http.StatusOK
}
