package main

import (
	"context"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"github.com/keyquorum/keyquorum/internal/member"
	"github.com/keyquorum/keyquorum/internal/seal"
	"github.com/keyquorum/keyquorum/internal/subject"
)

// serveCommand runs one member of a cluster. It never founds one.
type serveCommand struct {
	Name    string `placeholder:"NAME" help:"What people call this node. Default: the host's name."`
	DataDir string `placeholder:"DIR" help:"Where this node keeps its log and its identity; made if it is missing. Required."`
	Keyring string `placeholder:"FILE" help:"The cluster's master keyring, made by \"keyquorum keyring init\"; env:NAME for its content in an environment variable. Required."`

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

	LogLevel  logLevel  `default:"info" placeholder:"info" help:"debug, info, warn or error. Default: info."`
	LogFormat logFormat `default:"text" placeholder:"text" help:"text or json. Default: text."`
	Insecure  bool      `help:"Start without TLS and access control, which do not exist yet. Required."`
}

func (*serveCommand) Help() string {
	return `The node keeps to itself until its cluster is founded: run "keyquorum cluster init" once, at one of the nodes; the others join by themselves. SIGTERM ends it in good order.

There is no TLS and no access control yet, and --insecure says that you know: whoever reaches a port of this node can issue tokens for anybody, and change the cluster. Keep the ports on a private network.`
}

func (c *serveCommand) run(ctx context.Context, s *session) error {
	keyring, err := c.keyring(ctx)
	if err != nil {
		return err
	}
	log := newLogger(s.err, c.LogLevel, c.LogFormat)
	conns, files := maxConns()
	if conns != 0 {
		log.Warn("the limit on open files is low, and so are those on connections: raise it (ulimit -n, LimitNOFILE=)", "files", files, "connections", conns)
	}
	m, err := member.Open(c.config(keyring, log, conns))
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
	if !c.Insecure {
		fault("insecure", "there is no TLS and no access control yet: whoever reaches a port of this node can issue tokens for anybody. Keep the ports on a private network, and say by --insecure that you know")
	}
	return faults
}

func (c *serveCommand) keyring(ctx context.Context) (*seal.Keyring, error) {
	if name, ok := strings.CutPrefix(c.Keyring, "env:"); ok {
		return seal.Env(name).Load(ctx)
	}
	return seal.File(c.Keyring).Load(ctx)
}

func (c *serveCommand) config(keyring *seal.Keyring, log *slog.Logger, conns int) member.Config {
	return member.Config{
		Name: c.Name, DataDir: c.DataDir, Region: c.Region, Replica: c.Replica,
		Version: thisBuild().Version, Keyring: keyring,
		RPCListen: string(c.Listen), RaftListen: string(c.RaftListen), GossipListen: string(c.GossipListen),
		ProbeListen: string(c.ProbeListen), Advertise: c.Advertise, Seeds: c.Join,
		SnapshotThreshold: uint64(c.SnapshotThreshold), SnapshotInterval: c.SnapshotInterval,
		TrailingLogs: uint64(c.TrailingLogs), MaxConns: conns, Timing: c.Timing.of(), Logger: log,
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
	log.Warn("insecure: whoever reaches a port of this node can issue tokens for anybody")
}

// bound is where the node listens: at the host that it was told, and at the port that it got, at which others reach it.
func bound(listen hostPort, reached string) string {
	host, _, _ := net.SplitHostPort(string(listen))
	_, port, _ := net.SplitHostPort(reached)
	return net.JoinHostPort(host, port)
}
