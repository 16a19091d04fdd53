package rpc

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// DefaultMaxTimeout is how long a request may take where Config does not say otherwise.
const DefaultMaxTimeout = 30 * time.Second

// Config is what NewHandler and ProbeHandler need.
type Config struct {
	// Node answers. Required.
	Node Node
	// Logger gets a line for each request: at DEBUG, failures of the node's own at WARN or ERROR.
	// No line ever has a token, claims, or a message. slog.Default() if nil.
	Logger *slog.Logger
	// Registerer takes the metrics of the requests; nil for none. Handlers that share one share the metrics.
	Registerer prometheus.Registerer
	// Gatherer is what /metrics shows; nil for no /metrics.
	Gatherer prometheus.Gatherer
	// MaxTimeout ends each request, also one whose caller set a later deadline or none. DefaultMaxTimeout if zero.
	MaxTimeout time.Duration
	// Limits bound the requests at a time.
	Limits Limits
	// Secure has callers show who they are, by a client certificate that the server has verified or an API token, and lets
	// them do what their roles allow. Without it anybody may do anything.
	Secure bool
	// OmitProbes leaves /livez, /readyz and /metrics out of NewHandler, for a ProbeHandler on an address of its own.
	OmitProbes bool
}

// Validate tells all that is wrong with c.
func (c Config) Validate() error {
	var faults []error
	if c.Node == nil {
		faults = append(faults, errors.New("rpc: Config.Node is missing"))
	}
	if c.MaxTimeout < 0 {
		faults = append(faults, fmt.Errorf("rpc: Config.MaxTimeout is %s: it must not be negative", c.MaxTimeout))
	}
	faults = append(faults, c.Limits.validate())
	return errors.Join(faults...)
}

func (c Config) withDefaults() Config {
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.MaxTimeout == 0 {
		c.MaxTimeout = DefaultMaxTimeout
	}
	c.Limits = c.Limits.withDefaults()
	return c
}
