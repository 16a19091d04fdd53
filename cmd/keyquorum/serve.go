package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"github.com/keyquorum/keyquorum/internal/certs"
	"github.com/keyquorum/keyquorum/internal/member"
	"github.com/keyquorum/keyquorum/internal/seal"
	"github.com/keyquorum/keyquorum/internal/subject"
)

// serveCommand runs one member of a cluster. It never founds one.
type serveCommand struct {
	Name    string `placeholder:"NAME" help:"What people call this node. Default: the host's name."`
	DataDir string `placeholder:"DIR" help:"Where this node keeps its log and its identity; made if it is missing. Required."`
	Keyring string `placeholder:"FILE" help:"The cluster's master keyring, made by \"keyquorum keyring init\": a file; env:NAME for its content in an environment variable; vault+https://HOST/MOUNT/KEY?file=PATH for a file that Vault's or OpenBao's transit engine encrypted. Required."`

	TLSCert string `name:"tls-cert" placeholder:"FILE" help:"This node's certificate, with its chain, in PEM; its URI is keyquorum://node/NAME. Required, unless --insecure."`
	TLSKey  string `name:"tls-key" placeholder:"FILE" help:"The certificate's private key. Required, unless --insecure."`
	TLSCA   string `name:"tls-ca" placeholder:"FILE" help:"The certificates of the CAs that members' and clients' certificates come from. Required, unless --insecure."`

	Listen       hostPort  `default:"127.0.0.1:7400" placeholder:"HOST:PORT" help:"Where to take requests. Default: 127.0.0.1:7400."`
	RaftListen   hostPort  `default:"127.0.0.1:7401" placeholder:"HOST:PORT" help:"Where to take other members' Raft messages. Default: 127.0.0.1:7401."`
	GossipListen hostPort  `default:"127.0.0.1:7402" placeholder:"HOST:PORT" help:"Where to gossip, by TCP and UDP. Default: 127.0.0.1:7402."`
	ProbeListen  hostPort  `placeholder:"HOST:PORT" help:"Where to serve /livez, /readyz and /metrics. Default: with requests."`
	Advertise    string    `placeholder:"HOST" help:"The host at which the other members reach this node. Default: what it listens at."`
	Join         hostPorts `placeholder:"HOST:PORT,..." help:"Gossip addresses of other members, parted by commas; names are looked up anew each time."`

	Region  string `placeholder:"NAME" help:"Where this node is."`
	Replica bool   `help:"Never become a voter: hold a copy and verify."`
	Timing  timing `default:"lan" placeholder:"lan" help:"How far the voters are from each other: lan (a majority within 50 ms, there and back) or wan (further); the same on every node. Default: lan."`

	SnapshotThreshold count         `default:"16384" placeholder:"16384" help:"Log entries after which a snapshot is taken. Default: 16384."`
	SnapshotInterval  time.Duration `default:"2m" placeholder:"2m" help:"How often to look, within up to twice that, whether a snapshot is due. Default: 2m."`
	TrailingLogs      count         `default:"32768" placeholder:"32768" help:"Log entries kept behind a snapshot, for members that are a little behind. Default: 32768."`

	CallerRate      count         `placeholder:"N" help:"How many requests each known caller may send in a second, members aside. Default: any number."`
	CallerRequests  count         `placeholder:"N" help:"How many requests of each kind a known caller can have at a time, members aside. Default: three quarters of the node's own bound."`
	AuditMaxSize    size          `default:"64MiB" placeholder:"64MiB" help:"How large an audit file grows before a new one is begun. Default: 64MiB."`
	AuditKeep       count         `default:"0" placeholder:"0" help:"Audit files that are kept, the oldest go first; 0 for all, which is the default."`
	AuditFailure    auditFailure  `default:"block" placeholder:"block" help:"What to do while the audit file cannot be written: block (as the leader, change nothing) or warn (go on, and get the records from other nodes later). Default: block."`
	KeyringInterval time.Duration `default:"10s" placeholder:"10s" help:"How often to look whether the keyring has changed. Default: 10s."`

	LogLevel  logLevel  `default:"info" placeholder:"info" help:"debug, info, warn or error. Default: info."`
	LogFormat logFormat `default:"text" placeholder:"text" help:"text or json. Default: text."`
	Insecure  bool      `help:"Start without TLS and access control: whoever reaches a port of this node may do anything."`
}

func (*serveCommand) Help() string {
	return `The node keeps to itself until its cluster is founded: run "keyquorum cluster init" once, at one of the nodes; the others join by themselves. SIGTERM ends it in good order.

Its ports speak TLS, and callers show who they are by a client certificate or an API token: "keyquorum ca" makes certificates. New ones at the same paths are taken up while the node runs. --insecure does without: whoever reaches a port of this node can then issue tokens for anybody, and change the cluster. Keep the ports on a private network, if you must.`
}

func (c *serveCommand) run(ctx context.Context, s *session) error {
	store, err := s.store("--keyring", c.Keyring)
	if err != nil {
		return err
	}
	log := newLogger(s.err, c.LogLevel, c.LogFormat)
	keyring, err := awaitKeyring(ctx, store, log)
	if err != nil {
		return err
	}
	conns, files := maxConns()
	if conns != 0 {
		log.Warn("the limit on open files is low, and so are those on connections: raise it (ulimit -n, LimitNOFILE=)", "files", files, "connections", conns)
	}
	secure, err := c.certificates(log)
	if err != nil {
		return err
	}
	config := c.config(keyring, secure, log, conns)
	config.KeyringProvider = store
	m, err := member.Open(config)
	if err != nil {
		return err
	}
	c.introduce(log, m)
	err = m.Run(ctx)
	if err == nil {
		log.Info("stopped in good order")
	}
	return err
}

// check tells all that is missing or contradicts itself.
func (c *serveCommand) check() (faults []string) {
	fault := func(flag, what string) { faults = append(faults, "--"+flag+": "+what) }
	if c.Name == "" {
		c.Name, _ = os.Hostname()
	}
	if c.Name == "" {
		fault("name", "this machine has no host name: give the node one")
	} else if err := subject.Check(c.Name); err != nil {
		fault("name", err.Error())
	}
	if c.Region != "" {
		if err := subject.Check(c.Region); err != nil {
			fault("region", err.Error())
		}
	}
	if c.DataDir == "" {
		fault("data-dir", "say where this node keeps its log and its identity")
	}
	if c.Keyring == "" {
		fault("keyring", `say where the cluster's master keyring is; "keyquorum keyring init FILE" makes one`)
	}
	if c.Advertise != "" && !isHost(c.Advertise) {
		fault("advertise", quoted(c.Advertise)+" is no host that others could reach: give a name or an address, without scheme and port")
	}
	for _, l := range []struct {
		flag string
		at   hostPort
	}{{"listen", c.Listen}, {"raft-listen", c.RaftListen}, {"gossip-listen", c.GossipListen}} {
		if c.Advertise == "" && l.at.everywhere() {
			fault(l.flag, string(l.at)+" is no address that other members could reach: say by --advertise HOST how they reach this node")
		}
	}
	if c.SnapshotInterval < time.Second {
		fault("snapshot-interval", "must not be shorter than 1s")
	}
	if c.AuditMaxSize < 64<<10 {
		fault("audit-max-size", "must not be less than 64KiB")
	}
	if c.KeyringInterval < time.Second {
		fault("keyring-interval", "must not be shorter than 1s")
	}
	return append(faults, c.checkTLS()...)
}

// checkTLS wants all three files, or none and a word that this is meant.
func (c *serveCommand) checkTLS() (faults []string) {
	given := 0
	for _, f := range []struct{ flag, path, what string }{
		{"tls-cert", c.TLSCert, "this node's certificate"}, {"tls-key", c.TLSKey, "its private key"}, {"tls-ca", c.TLSCA, "the CAs' certificates"},
	} {
		switch {
		case f.path != "":
			given++
		case !c.Insecure:
			faults = append(faults, "--"+f.flag+": say where "+f.what+` is: "keyquorum ca" makes it`)
		}
	}
	switch {
	case given == 0 && !c.Insecure:
		return []string{`--tls-cert, --tls-key, --tls-ca: are missing: "keyquorum ca" makes certificates. --insecure starts without TLS and access control: whoever reaches a port of this node can then issue tokens for anybody`}
	case given > 0 && c.Insecure:
		return []string{"--insecure: means without TLS, and --tls-cert, --tls-key or --tls-ca is given: choose"}
	}
	return faults
}

// certificates gives what the node shows and trusts; nil for nothing.
func (c *serveCommand) certificates(log *slog.Logger) (*certs.Source, error) {
	if c.Insecure {
		return nil, nil //nolint:nilnil // without TLS
	}
	return certs.Open(certs.Files{Certificate: c.TLSCert, Key: c.TLSKey, CA: c.TLSCA}, certs.Options{Logger: log})
}

// awaitKeyring loads the keyring. Where what keeps it does not answer, it is asked again and again: a machine can be up
// before what it depends on.
func awaitKeyring(ctx context.Context, store *seal.Store, log *slog.Logger) (*seal.Keyring, error) {
	told := ""
	for pause := time.Second; ; pause = min(2*pause, 15*time.Second) {
		keyring, err := store.Load(ctx)
		if !errors.Is(err, seal.ErrUnavailable) || ctx.Err() != nil {
			return keyring, err
		}
		if err.Error() != told {
			told = err.Error()
			log.Warn("this node waits for the provider of its master keyring", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(pause):
		}
	}
}

func (c *serveCommand) config(keyring *seal.Keyring, secure *certs.Source, log *slog.Logger, conns int) member.Config {
	return member.Config{
		Name: c.Name, DataDir: c.DataDir, Region: c.Region, Replica: c.Replica,
		Version: thisBuild().Version, Keyring: keyring, Certs: secure,
		RPCListen: string(c.Listen), RaftListen: string(c.RaftListen), GossipListen: string(c.GossipListen),
		ProbeListen: string(c.ProbeListen), Advertise: c.Advertise, Seeds: c.Join,
		SnapshotThreshold: uint64(c.SnapshotThreshold), SnapshotInterval: c.SnapshotInterval,
		TrailingLogs: uint64(c.TrailingLogs), MaxConns: conns,
		CallerRate: int(c.CallerRate), CallerRequests: int(c.CallerRequests),
		AuditMaxSize: int64(c.AuditMaxSize), AuditKeep: int(c.AuditKeep), AuditWarn: c.AuditFailure == warnOnly,
		Timing: c.Timing.of(), Logger: log, KeyringInterval: c.KeyringInterval,
	}
}

// introduce says, in one line, who starts here, where it listens, at which host others reach it, and what it belongs to.
func (c *serveCommand) introduce(log *slog.Logger, m *member.Member) {
	attrs := []any{
		"name", m.Name(), "id", m.ID(), "version", thisBuild().Version,
		"rpc", bound(c.Listen, m.RPCAddress), "raft", bound(c.RaftListen, m.RaftAddress), "gossip", m.GossipAddress, "data-dir", c.DataDir,
	}
	if m.ProbeAddress != "" {
		attrs = append(attrs, "probes", m.ProbeAddress)
	}
	if c.Advertise != "" {
		attrs = append(attrs, "advertise", c.Advertise)
	}
	if len(c.Join) > 0 {
		attrs = append(attrs, "join", strings.Join(c.Join, ","))
	}
	log.Info("keyquorum starts", attrs...)
	if !c.Insecure {
		return
	}
	log.Warn("insecure: whoever reaches a port of this node can issue tokens for anybody")
}

// bound is where the node listens: at the host that it was told, and at the port that it got, at which others reach it.
func bound(listen hostPort, reached string) string {
	host, _, _ := net.SplitHostPort(string(listen))
	_, port, _ := net.SplitHostPort(reached)
	return net.JoinHostPort(host, port)
}
