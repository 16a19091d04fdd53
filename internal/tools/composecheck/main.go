// Command composecheck loads compose files with the library that docker compose v2 itself loads them with, and fails
// where that would refuse one.
package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/compose-spec/compose-go/v2/cli"
)

func main() {
	for _, file := range os.Args[1:] {
		services, err := load(file)
		if err != nil {
			fmt.Fprintf(os.Stderr, "composecheck: %s: %v\n", file, err)
			os.Exit(1)
		}
		fmt.Printf("%s: docker compose v2 would take it, with the services %s\n", file, strings.Join(services, ", "))
	}
}

func load(file string) ([]string, error) {
	options, err := cli.NewProjectOptions([]string{file}, cli.WithOsEnv)
	if err != nil {
		return nil, err
	}
	project, err := options.LoadProject(context.Background())
	if err != nil {
		return nil, err
	}
	return project.ServiceNames(), nil
}
