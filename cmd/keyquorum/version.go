package main

import (
	"context"
	"encoding/json"
	"runtime"
	"runtime/debug"
)

// version is set by the linker for releases: -ldflags "-X main.version=v1.2.3". Empty, the build's own is told.
var version string

type versionCommand struct{ format }

// build tells where a binary came from.
type build struct {
	Version  string `json:"version"`
	Commit   string `json:"commit"`
	Time     string `json:"time"`
	Modified bool   `json:"modified"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func (c *versionCommand) run(_ context.Context, s *session) error {
	b := thisBuild()
	if c.JSON {
		return json.NewEncoder(s.out).Encode(b)
	}
	s.out.printf("%s %s\n", programName, b.Version)
	list := fields{}
	list.add("commit", b.commit())
	list.add("time", b.Time)
	list.add("built with", b.Go)
	list.add("for", b.Platform)
	s.out.fields(list)
	return nil
}

func (b build) commit() string {
	if b.Modified {
		return b.Commit + ", with changes"
	}
	return b.Commit
}

func thisBuild() build {
	b := build{Version: version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if ok {
		b.take(info)
	}
	if b.Version == "" {
		b.Version = "(devel)"
	}
	return b
}

func (b *build) take(info *debug.BuildInfo) {
	if b.Version == "" {
		b.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Commit = s.Value
		case "vcs.time":
			b.Time = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
}
