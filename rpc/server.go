package rpc

import (
	"errors"
	"log/slog"
	"net/http"
	"time"
)

// ServerConfig is what NewServer needs. Its zero value will do.
type ServerConfig struct {
	// Logger gets what net/http has to say, and says when connections are turned away. slog.Default() if nil.
	Logger *slog.Logger
	// MaxConns bounds the connections that are open; 2048 if zero. Past it, the one that has been idle longest is closed
	// for the next one; where none is idle, the next one is. No address has more than three quarters of them.
	MaxConns int
}

// Validate tells what is wrong with c.
func (c ServerConfig) Validate() error {
	if c.MaxConns < 0 {
		return errors.New("rpc: ServerConfig.MaxConns must not be negative")
	}
	return nil
}

// NewServer gives a server for h, with HTTP/1.1 and HTTP/2, with or without TLS, on one port, and with bounds on what
// slow or greedy callers can hold. Its owner calls Serve (or sets TLSConfig and calls ServeTLS), and Shutdown or Close.
// Where Config.MaxTimeout is longer than its default, WriteTimeout has to follow. It panics if cfg is not valid.
func NewServer(h http.Handler, cfg ServerConfig) *http.Server {
	if err := cfg.Validate(); err != nil {
		panic(err)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.MaxConns == 0 {
		cfg.MaxConns = 2048
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{
		Handler:           h,
		Protocols:         protocols,
		ConnContext:       withShown,
		ConnState:         newConns(cfg.MaxConns, cfg.Logger).note,
		ErrorLog:          slog.NewLogLogger(netHTTPLog{cfg.Logger.Handler()}, slog.LevelDebug),
		ReadHeaderTimeout: 5 * time.Second,
		// Over HTTP/2 this and WriteTimeout hold for each stream by itself.
		ReadTimeout: 15 * time.Second,
		// Longer than a request may take by default. A stream that is to last sets its own by http.ResponseController.
		WriteTimeout:   2 * DefaultMaxTimeout,
		IdleTimeout:    2 * time.Minute,
		MaxHeaderBytes: 16 << 10,
		// The handler bounds what it answers; net/http would not.
		DisableGeneralOptionsHandler: true,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: 100,
			// What has come and was not read yet: a stream may use what the others leave.
			MaxReceiveBufferPerConnection: 256 << 10,
			MaxReceiveBufferPerStream:     256 << 10,
			// A connection keeps a buffer as large as the largest frame that it got.
			MaxReadFrameSize: 16 << 10,
			// A caller that is cut off says nothing: ask whether it is there. One that talks but does not read would
			// not be found out by that.
			SendPingTimeout:  30 * time.Second,
			PingTimeout:      15 * time.Second,
			WriteByteTimeout: 15 * time.Second,
		},
	}
}
