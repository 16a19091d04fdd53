package main

import (
	"errors"
	"reflect"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

const (
	envPrefix  = "KEYQUORUM_"
	configFlag = "config"
)

// settings finds the value of each flag that was not given: in the environment, else in the file. It is kong's
// resolver, and gathers the faults of all sources, so that a user hears of them all at once.
type settings struct {
	env  lookupEnv
	file *settingsFile
	// origin tells where the value of a flag came from, if it was not the command line.
	origin map[string]string
	faults []string
}

func newSettings(env lookupEnv) *settings {
	return &settings{env: env, file: &settingsFile{}, origin: map[string]string{}}
}

// isSetting tells the flags that the environment and the file can set from those that belong to one call.
func isSetting(f *kong.Flag) bool { return !f.Tag.Has("percall") }

// inFile tells the settings that the file can hold.
func inFile(f *kong.Flag) bool { return isSetting(f) && !f.Tag.Has("nofile") }

// envName is the variable that sets a flag: data-dir is KEYQUORUM_DATA_DIR.
func envName(flag string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

func (s *settings) fault(where, what string) { s.faults = append(s.faults, where+": "+what) }

// apply carries out kong's stages after tracing, through to the targets.
func (s *settings) apply(kctx *kong.Context, model *kong.Application) error {
	if kctx.Error != nil {
		s.faults = append(s.faults, kctx.Error.Error())
	}
	s.load(kctx, model)
	if err := errors.Join(kctx.Reset(), kctx.Resolve()); err != nil {
		s.faults = append(s.faults, err.Error())
	}
	if _, err := kctx.Apply(); err != nil {
		return err
	}
	// What is missing shows only in a line that was read to its end.
	if err := kctx.Validate(); err != nil && kctx.Error == nil {
		s.faults = append(s.faults, err.Error())
	}
	if node := kctx.Selected(); node != nil && kctx.Error == nil {
		if c, ok := reflect.TypeAssert[environed](node.Target.Addr()); ok {
			c.takeEnv(s.env)
		}
		if c, ok := reflect.TypeAssert[checker](node.Target.Addr()); ok {
			s.faults = append(s.faults, c.check()...)
		}
	}
	if len(s.faults) == 0 {
		return nil
	}
	return s.usage()
}

func (s *settings) usage() error { return &usageError{slices.Compact(s.faults)} }

// load reads the file that the command line or the environment names, and refuses keys that no command knows.
func (s *settings) load(kctx *kong.Context, model *kong.Application) {
	path, where := s.configPath(kctx)
	if where == "" {
		return
	}
	file, err := readSettings(path)
	if err != nil {
		s.fault(where, err.Error())
		return
	}
	s.file = file
	s.faults = append(s.faults, file.faults...)
	known := fileKeys(model.Node)
	for _, key := range file.keys() {
		if !known[key] {
			s.fault(file.where(key), "there is no such setting")
		}
	}
}

// configPath returns the settings file and what named it, or nothing.
func (s *settings) configPath(kctx *kong.Context) (path, where string) {
	for _, p := range kctx.Path {
		if p.Flag != nil && p.Flag.Name == configFlag {
			path, _ = kctx.FlagValue(p.Flag).(string)
			if path == "" {
				return "", "" // given empty, it turns the environment's off
			}
			return path, "--" + configFlag
		}
	}
	if path, ok := s.env(envName(configFlag)); ok && path != "" {
		return path, envName(configFlag)
	}
	return "", ""
}

// fileKeys are the keys that a file may have: one file can serve all commands.
func fileKeys(node *kong.Node) map[string]bool {
	keys := map[string]bool{}
	for _, f := range node.Flags {
		if inFile(f) {
			keys[f.Name] = true
		}
	}
	for _, child := range node.Children {
		for key := range fileKeys(child) {
			keys[key] = true
		}
	}
	return keys
}

// Validate is part of kong.Resolver.
func (s *settings) Validate(*kong.Application) error { return nil }

// Resolve is part of kong.Resolver: it gives the value of a flag that is not on the command line.
func (s *settings) Resolve(_ *kong.Context, _ *kong.Path, f *kong.Flag) (any, error) {
	if !isSetting(f) {
		return nil, nil
	}
	if v, ok := s.env(envName(f.Name)); ok && v != "" {
		return s.resolved(f, envName(f.Name), []string{v}), nil
	}
	if v, ok := s.file.values[f.Name]; ok && inFile(f) {
		return s.resolved(f, s.file.where(f.Name), v.texts), nil
	}
	return nil, nil
}

// resolved turns what a source has into what the flag's mapper takes; nil, with a fault, if it cannot be.
func (s *settings) resolved(f *kong.Flag, where string, texts []string) any {
	s.origin[f.Name] = where
	if f.Target.Kind() == reflect.Slice {
		return texts
	}
	if len(texts) != 1 {
		s.fault(where, "takes one value, not a list")
		return nil
	}
	if f.Target.Kind() != reflect.Bool {
		return texts[0]
	}
	switch texts[0] {
	case "true":
		return true
	case "false":
		return false
	}
	s.fault(where, quoted(texts[0])+" is neither true nor false")
	return nil
}
