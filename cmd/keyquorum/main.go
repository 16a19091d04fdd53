// Command keyquorum is a node of a Keyquorum cluster and the tool to work with one, in one binary.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	if err := harden(); err != nil {
		fmt.Fprintln(os.Stderr, "keyquorum: warning: this process's memory, which can have keys and tokens in it, is not kept from core dumps:", err)
	}
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr, os.LookupEnv))
}
