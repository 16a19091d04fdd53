package main

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"github.com/keyquorum/keyquorum/client"
)

// addresses are nodes' addresses or URLs: flags repeat, or hold several parted by commas.
type addresses []string

// texts is a list of strings taken as they are: a flag that repeats, a list in the file, or one in the environment.
type texts []string

// timeout is how long to wait: some time, never none.
type timeout time.Duration

// count is a number of things, zero or more.
type count int

// mappers are kong's decoders for the types of flags. A value that does not parse becomes a fault, not an error,
// so that the ones after it are looked at too.
func (s *settings) mappers() kong.Option {
	return kong.OptionFunc(func(k *kong.Kong) error {
		for _, o := range []kong.Option{
			mapper(s, func(_ string, given texts) (string, error) { return given[0], nil }),
			mapper(s, func(_ time.Duration, given texts) (time.Duration, error) { return parseDuration(given[0]) }),
			mapper(s, parseTimeout),
			mapper(s, parseAddresses),
			mapper(s, func(before, given texts) (texts, error) { return append(before, given...), nil }),
			mapper(s, parseCount),
			mapper(s, parseHostPort),
			mapper(s, parseHostPorts),
			mapper(s, parseTiming),
			mapper(s, parseLogLevel),
			mapper(s, parseLogFormat),
			mapper(s, parseConsistency),
		} {
			if err := o.Apply(k); err != nil {
				return err
			}
		}
		return nil
	})
}

// mapper decodes flags of type T with parse, which gets what earlier flags of the name gave.
func mapper[T any](s *settings, parse func(before T, given texts) (T, error)) kong.Option {
	decode := func(d *kong.DecodeContext, target reflect.Value) error {
		given, ok := pop(d)
		if !ok {
			s.fault(s.where(d.Value), "needs a value; one that begins with - goes behind an =")
			return nil
		}
		v, err := parse(target.Interface().(T), given)
		if err != nil {
			s.fault(s.where(d.Value), err.Error())
			return nil
		}
		target.Set(reflect.ValueOf(v))
		return nil
	}
	return kong.TypeMapper(reflect.TypeFor[T](), kong.MapperFunc(decode))
}

// pop takes the value that the command line, or the resolver, has for the flag, if there is one.
func pop(d *kong.DecodeContext) (texts, bool) {
	token, err := d.Scan.PopValue("value")
	if err != nil {
		return nil, false
	}
	if list, ok := token.Value.([]string); ok {
		return list, true
	}
	return texts{fmt.Sprint(token.Value)}, true
}

// where names the source of a flag's value.
func (s *settings) where(v *kong.Value) string {
	if origin, ok := s.origin[v.Name]; ok {
		return origin
	}
	return "--" + v.Name
}

func parseDuration(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("%s is not a duration: write it like 90s, 15m or 1h30m", quoted(text))
	}
	return d, nil
}

func parseTimeout(_ timeout, given texts) (timeout, error) {
	d, err := parseDuration(given[0])
	if err == nil && d <= 0 {
		err = fmt.Errorf("%s is no time to wait: give it more than 0", quoted(given[0]))
	}
	return timeout(d), err
}

func parseAddresses(before addresses, given texts) (addresses, error) {
	for _, list := range given {
		for address := range strings.SplitSeq(list, ",") {
			address = strings.TrimSpace(address)
			if _, err := client.ParseAddress(address); err != nil {
				return nil, err
			}
			before = append(before, address) // other flags say what it means without a scheme
		}
	}
	return before, nil
}

func parseCount(_ count, given texts) (count, error) {
	n, err := strconv.ParseUint(given[0], 10, 31)
	if err != nil {
		return 0, fmt.Errorf("%s is not a number of 0 or more", quoted(given[0]))
	}
	return count(n), nil
}
