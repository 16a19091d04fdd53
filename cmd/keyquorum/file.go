package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/keyquorum/keyquorum/internal/plainfile"
)

// maxInputBytes bounds what is read from a file or stdin: far more than any settings, claims or token have.
const maxInputBytes = 1 << 20

// settingsFile is a YAML file with one mapping of flag names to values or lists of values.
type settingsFile struct {
	path   string
	values map[string]fileValue
	// faults are those of single keys; the others are still good.
	faults []string
}

type fileValue struct {
	texts []string
	line  int
}

// where names a key of the file.
func (f *settingsFile) where(key string) string {
	return fmt.Sprintf("%s:%d: %s", f.path, f.values[key].line, key)
}

// keys are in the order of the file.
func (f *settingsFile) keys() []string {
	keys := make([]string, 0, len(f.values))
	for key := range f.values {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b string) int { return f.values[a].line - f.values[b].line })
	return keys
}

// readSettings fails if the file as a whole cannot be read.
func readSettings(path string) (*settingsFile, error) {
	file, err := plainfile.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data, err := readAtMost(file, path)
	if err != nil {
		return nil, err
	}
	f := &settingsFile{path: path, values: map[string]fileValue{}}
	d := yaml.NewDecoder(bytes.NewReader(data))
	var doc, more yaml.Node
	if err := d.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			return f, nil
		}
		return nil, fmt.Errorf("%s is not YAML: %s", path, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if err := d.Decode(&more); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s holds more than one YAML document", path)
	}
	err = f.take(doc.Content[0])
	return f, err
}

func (f *settingsFile) take(mapping *yaml.Node) error {
	if mapping.Tag == "!!null" {
		return nil
	}
	if mapping.Kind != yaml.MappingNode {
		return fmt.Errorf("%s must hold lines of the form \"name: value\"", f.path)
	}
	for pair := range slices.Chunk(mapping.Content, 2) {
		f.set(pair[0], pair[1])
	}
	return nil
}

// set takes one key, or notes what is wrong with it.
func (f *settingsFile) set(key, value *yaml.Node) {
	where := fmt.Sprintf("%s:%d: %s", f.path, key.Line, key.Value)
	before, twice := f.values[key.Value]
	given, ok := scalars(value)
	switch {
	case twice:
		f.faults = append(f.faults, fmt.Sprintf("%s: was set in line %d already", where, before.line))
	case !ok:
		f.faults = append(f.faults, where+": needs a value, or a list of values")
	default:
		f.values[key.Value] = fileValue{given, key.Line}
	}
}

// scalars are the texts of a plain value or of a list of such, spelled as in the file.
func scalars(n *yaml.Node) ([]string, bool) {
	switch {
	case n.Kind == yaml.AliasNode:
		return scalars(n.Alias)
	case n.Kind == yaml.ScalarNode && n.Tag != "!!null":
		return []string{n.Value}, true
	case n.Kind != yaml.SequenceNode:
		return nil, false
	}
	list := []string{}
	for _, item := range n.Content {
		if item.Kind != yaml.ScalarNode || item.Tag == "!!null" {
			return nil, false
		}
		list = append(list, item.Value)
	}
	return list, len(list) > 0
}

// readInput runs read, which may wait for somebody at a terminal or at a pipe's other end, until ctx ends. Nothing
// interrupts an open or a read that waits, so it is then left behind: the process is about to end.
func readInput(ctx context.Context, read func() ([]byte, error)) ([]byte, error) {
	type result struct {
		data []byte
		err  error
	}
	done := make(chan result, 1)
	go func() {
		data, err := read()
		done <- result{data, err}
	}()
	select {
	case r := <-done:
		return r.data, r.err
	case <-ctx.Done():
		return nil, fmt.Errorf("given up while reading: %w", ctx.Err())
	}
}

// errTooLong says that there is more to read than anything acceptable has.
var errTooLong = errors.New("is longer")

// readAtMost reads all of r, or gives errTooLong, with its name, if that is more than maxInputBytes.
func readAtMost(r io.Reader, name string) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxInputBytes+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxInputBytes {
		return nil, fmt.Errorf("%s %w than %d bytes", name, errTooLong, maxInputBytes)
	}
	return data, nil
}
