package rpc

import (
	"net/http"
	"time"
)

// NewServer gives a server for h, with HTTP/1.1 and HTTP/2, with or without TLS, on one port, and with bounds on what a
// slow or greedy caller can hold. Where Config.MaxTimeout is more than half a minute, WriteTimeout has to follow. Its owner calls Serve (or sets TLSConfig and calls ServeTLS), and Shutdown or Close.
func NewServer(h http.Handler) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{
		Handler:           h,
		Protocols:         protocols,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       15 * time.Second,
		// Longer than a request may take by default. A stream that is to last sets its own by http.ResponseController.
		WriteTimeout:   2 * DefaultMaxTimeout,
		IdleTimeout:    2 * time.Minute,
		MaxHeaderBytes: 16 << 10,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:      250,
			MaxReceiveBufferPerStream: 256 << 10,
			// A caller that is cut off says nothing: ask whether it is there.
			SendPingTimeout: 30 * time.Second,
			PingTimeout:     15 * time.Second,
		},
	}
}
