package client

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/structpb"
)

const (
	// maxInteger is the largest integer that a claim holds exactly (RFC 7493, 2.2).
	maxInteger = 1<<53 - 1
	// maxNesting bounds the parser's recursion. The cluster's own limit is far lower, and is its to tell.
	maxNesting = 256
)

// Claims turns a caller's claims, a struct or a map, into what IssueRequest takes, by way of encoding/json. It
// fails with ErrInvalidArgument as ParseClaims does.
func Claims(v any) (*structpb.Struct, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, invalid("Claims", "claims", err.Error())
	}
	return ParseClaims(data)
}

// ParseClaims turns a JSON object into what IssueRequest takes. What could not arrive as it was written fails
// with ErrInvalidArgument, the field named by its path: an integer beyond ±(2^53−1), a name that comes twice in an
// object, also where the two differ in case only, bytes that are not UTF-8. Lengths and reserved names are for the cluster
// to judge.
func ParseClaims(data []byte) (*structpb.Struct, error) {
	if !utf8.Valid(data) {
		return nil, invalid("Claims", "claims", "are not valid UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	p := claimsParser{d}
	v, err := p.value("claims", 0)
	if err == nil {
		err = p.end()
	}
	if err != nil {
		return nil, claimsError(err)
	}
	object, ok := v.GetKind().(*structpb.Value_StructValue)
	if !ok {
		return nil, invalid("Claims", "claims", "must be a JSON object")
	}
	return object.StructValue, nil
}

func claimsError(err error) error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return invalid("Claims", "claims", "the JSON ends too early")
	}
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		return invalid("Claims", "claims", fmt.Sprintf("not JSON at byte %d: %v", syntax.Offset, err))
	}
	return invalid("Claims", "claims", err.Error())
}

// claimsParser reads JSON token by token, so as to see what decoding into a map hides.
type claimsParser struct{ d *json.Decoder }

func (p claimsParser) value(path string, depth int) (*structpb.Value, error) {
	t, err := p.d.Token()
	if err != nil {
		return nil, err
	}
	if depth > maxNesting {
		return nil, invalid("Claims", "claims", fmt.Sprintf("nested deeper than %d levels", maxNesting))
	}
	switch t := t.(type) {
	case json.Delim:
		if t == '{' {
			return p.object(path, depth+1)
		}
		return p.list(path, depth+1)
	case json.Number:
		return number(path, t)
	case string:
		return structpb.NewStringValue(t), nil
	case bool:
		return structpb.NewBoolValue(t), nil
	}
	return structpb.NewNullValue(), nil
}

func (p claimsParser) object(path string, depth int) (*structpb.Value, error) {
	fields, seen := map[string]*structpb.Value{}, map[string]string{}
	for p.d.More() {
		t, err := p.d.Token()
		if err != nil {
			return nil, err
		}
		name, _ := t.(string)
		at := path + "." + name
		one := folded(name)
		switch other, twice := seen[one]; {
		case twice && other == name:
			return nil, invalid("Claims", at, "comes twice")
		case twice:
			return nil, invalid("Claims", at, fmt.Sprintf("differs from %q in case only", other))
		}
		seen[one] = name
		if fields[name], err = p.value(at, depth); err != nil {
			return nil, err
		}
	}
	_, err := p.d.Token()
	return structpb.NewStructValue(&structpb.Struct{Fields: fields}), err
}

// folded is the same for all names that strings.EqualFold calls equal, and for no others.
func folded(name string) string {
	return strings.Map(func(r rune) rune {
		least := r
		for other := unicode.SimpleFold(r); other != r; other = unicode.SimpleFold(other) {
			least = min(least, other)
		}
		return least
	}, name)
}

func (p claimsParser) list(path string, depth int) (*structpb.Value, error) {
	var values []*structpb.Value
	for p.d.More() {
		v, err := p.value(path+"["+strconv.Itoa(len(values))+"]", depth)
		if err != nil {
			return nil, err
		}
		values = append(values, v)
	}
	_, err := p.d.Token()
	return structpb.NewListValue(&structpb.ListValue{Values: values}), err
}

// end makes sure that nothing follows.
func (p claimsParser) end() error {
	if _, err := p.d.Token(); !errors.Is(err, io.EOF) {
		return invalid("Claims", "claims", "more follows after the JSON object")
	}
	return nil
}

func number(path string, n json.Number) (*structpb.Value, error) {
	f, err := n.Float64()
	if err != nil {
		return nil, invalid("Claims", path, "the number "+n.String()+" is too large")
	}
	if !strings.ContainsAny(n.String(), ".eE") && math.Abs(f) > maxInteger {
		return nil, invalid("Claims", path, "the integer "+n.String()+" is beyond ±(2^53−1): send it as a string")
	}
	return structpb.NewNumberValue(f), nil
}
