package main

import (
	"context"
	"math"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

// settingFlags are the cluster's settings; those that are not given stay as they are. They belong to one call: what
// is replicated is changed on purpose, and not by what a shell's environment happens to hold.
type settingFlags struct {
	Mode            *string        `percall:"" placeholder:"overlap" help:"What becomes of a key that is rotated: overlap (it verifies what it signed until that expires) or strict (it is deleted at once)."`
	Issuer          *string        `percall:"" placeholder:"NAME" help:"The tokens' iss."`
	DefaultTTL      *time.Duration `name:"default-ttl" percall:"" placeholder:"15m" help:"How long a token lives that asks for no other time."`
	MinTTL          *time.Duration `name:"min-ttl" percall:"" placeholder:"1s" help:"The shortest life that a token can ask for."`
	MaxTTL          *time.Duration `name:"max-ttl" percall:"" placeholder:"24h" help:"The longest life that a token can ask for."`
	ForgetAfter     *time.Duration `percall:"" placeholder:"720h" help:"Forget users without a live token for this long; 0 for never, which is the default."`
	MaxRetiringKeys *count         `percall:"" placeholder:"64" help:"Retiring keys that a user can hold."`
	WantedVoters    *count         `percall:"" placeholder:"5" help:"Voters that the cluster grows to; odd."`
	LeaderRegion    *string        `percall:"" placeholder:"NAME" help:"Where the leader should be, as long as a voter there can lead; empty for anywhere, which is the default."`
	MaxStaleness    *time.Duration `percall:"" placeholder:"5s" help:"How old the state can be that a node verifies on; set when the cluster is founded, and never changed."`
}

func (f *settingFlags) check() []string {
	if f.Mode != nil && f.mode() == v1.Settings_UNSPECIFIED {
		return []string{"--mode: " + quoted(*f.Mode) + " is neither overlap nor strict"}
	}
	return nil
}

func (f *settingFlags) mode() v1.Settings_Mode {
	if f.Mode == nil || *f.Mode != strings.ToLower(*f.Mode) {
		return v1.Settings_UNSPECIFIED
	}
	return v1.Settings_Mode(v1.Settings_Mode_value[strings.ToUpper(*f.Mode)])
}

// message has the fields that were given.
func (f *settingFlags) message() *v1.Settings {
	return &v1.Settings{
		Mode: f.mode(), Issuer: f.Issuer,
		DefaultTtl: wireDuration(f.DefaultTTL), MinTtl: wireDuration(f.MinTTL), MaxTtl: wireDuration(f.MaxTTL),
		ForgetAfter:     wireDuration(f.ForgetAfter),
		MaxRetiringKeys: wireCount(f.MaxRetiringKeys), WantedVoters: wireCount(f.WantedVoters),
		LeaderRegion: f.LeaderRegion, MaxStaleness: wireDuration(f.MaxStaleness),
	}
}

func (f *settingFlags) given() bool { return *f != settingFlags{} }

func wireDuration(d *time.Duration) *durationpb.Duration {
	if d == nil {
		return nil
	}
	return durationpb.New(*d)
}

func wireCount(n *count) *uint32 {
	if n == nil {
		return nil
	}
	u := uint32(min(int64(*n), math.MaxUint32))
	return &u
}

type clusterSettingsCommand struct {
	Get clusterSettingsGetCommand `cmd:"" help:"Show the cluster's settings."`
	Set clusterSettingsSetCommand `cmd:"" help:"Change settings, all or none."`
}

type clusterSettingsGetCommand struct {
	connection
	format
}

func (c *clusterSettingsGetCommand) run(ctx context.Context, s *session) error {
	cluster, err := c.client()
	if err != nil {
		return err
	}
	defer cluster.Close()
	res, err := cluster.GetSettings(ctx)
	if err != nil {
		return err
	}
	if c.JSON {
		return s.out.json(res)
	}
	printSettings(s.out, res.GetSettings())
	return nil
}

type clusterSettingsSetCommand struct {
	settingFlags
	connection
	format
}

func (*clusterSettingsSetCommand) Help() string {
	return "They hold for the whole cluster, from the next entry of its log on. Tokens that were issued before stay as they are."
}

func (c *clusterSettingsSetCommand) check() []string {
	if !c.given() {
		return append([]string{"name at least one setting to change"}, c.connection.check()...)
	}
	return append(c.settingFlags.check(), c.connection.check()...)
}

func (c *clusterSettingsSetCommand) run(ctx context.Context, s *session) error {
	cluster, err := c.client()
	if err != nil {
		return err
	}
	defer cluster.Close()
	res, err := cluster.UpdateSettings(ctx, &v1.UpdateSettingsRequest{Settings: c.message()})
	if err != nil {
		return err
	}
	if c.JSON {
		return s.out.json(res)
	}
	printSettings(s.out, res.GetSettings())
	return nil
}

// printSettings names each as the flag that changes it.
func printSettings(p *printer, m *v1.Settings) {
	list := fields{}
	list.add("mode", strings.ToLower(m.GetMode().String()))
	list.add("issuer", m.GetIssuer())
	list.add("default-ttl", plainDuration(m.GetDefaultTtl()))
	list.add("min-ttl", plainDuration(m.GetMinTtl()))
	list.add("max-ttl", plainDuration(m.GetMaxTtl()))
	forget := "never"
	if m.GetForgetAfter().AsDuration() > 0 {
		forget = plainDuration(m.GetForgetAfter())
	}
	list.add("forget-after", forget)
	list.add("max-retiring-keys", strconv.FormatUint(uint64(m.GetMaxRetiringKeys()), 10))
	list.add("wanted-voters", strconv.FormatUint(uint64(m.GetWantedVoters()), 10))
	region := "anywhere"
	if m.GetLeaderRegion() != "" {
		region = m.GetLeaderRegion()
	}
	list.add("leader-region", region)
	list.add("max-staleness", plainDuration(m.GetMaxStaleness()))
	p.fields(list)
}

func plainDuration(d *durationpb.Duration) string { return d.AsDuration().String() }
