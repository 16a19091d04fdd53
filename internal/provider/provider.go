// Package provider finds the master keyring that a setting names.
package provider

import (
	"errors"
	"fmt"
	"strings"

	"github.com/keyquorum/keyquorum/internal/seal"
	"github.com/keyquorum/keyquorum/internal/vault"
)

// Open gives the keyring that spec names: the path of a file, or file:PATH; env:NAME for an environment variable with the
// content of such a file; or a URL for vault.Parse. It reads nothing yet. Env looks up environment variables.
func Open(spec string, env func(string) (string, bool)) (*seal.Store, error) {
	name, isEnv := strings.CutPrefix(spec, "env:")
	path, isFile := strings.CutPrefix(spec, "file:")
	switch {
	case isEnv && name == "":
		return nil, errors.New("env: must be followed by the name of an environment variable")
	case isEnv:
		return seal.Env(name), nil
	case isFile && path == "" || spec == "":
		return nil, errors.New("must name a file")
	case isFile && !strings.HasPrefix(path, "//"):
		return seal.File(path), nil
	case isFile && strings.HasPrefix(path, "///"): // as URLs of files are spelled
		return seal.File(path[2:]), nil
	case vault.Scheme(spec):
		source, err := vault.Parse(spec, env)
		if err != nil {
			return nil, fmt.Errorf("the URL %w", err)
		}
		return seal.From(source), nil
	}
	if scheme, _, ok := strings.Cut(spec, "://"); ok {
		return nil, fmt.Errorf("there is no provider %q: name a file, env:NAME, or vault+https://HOST/MOUNT/KEY?file=PATH", scheme)
	}
	return seal.File(spec), nil
}
