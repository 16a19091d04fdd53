package rpc

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"
	"regexp"
	"strings"

	"connectrpc.com/connect"
)

var (
	errContentType = errors.New(
		"Content-Type: send application/json, application/proto or application/grpc (curl: -H 'Content-Type: application/json')")
	errStreamType = errors.New("Content-Type: this is a stream: send application/connect+json, application/connect+proto or application/grpc")
	errVersion    = errors.New(`Connect-Protocol-Version: must be "1", or left out`)
	errEnvelope   = errors.New("the body is not one uncompressed message in its envelope")
	errLate       = errors.New("the body did not come in time")
	errCutShort   = errors.New("the body ended before it was complete")
)

// receive reads a request's body, up to most bytes, and refuses whatever connect would refuse before it asks an
// interceptor: connect's answer would not have the request's id. Nothing of the request is worked on before all of it is
// here, so one that trickles in holds no more than its bytes.
func receive(r *http.Request, most int64, stream bool) *connect.Error {
	if err := unacceptable(r, stream); err != nil {
		return err
	}
	enveloped, room := isGRPC(r) || stream, most
	if enveloped {
		room += envelope
	}
	if r.ContentLength > room {
		return tooLarge(most)
	}
	body := bytes.NewBuffer(make([]byte, 0, max(r.ContentLength, 0)+bytes.MinRead))
	_, err := body.ReadFrom(io.LimitReader(r.Body, room+1))
	switch {
	case int64(body.Len()) > room:
		return tooLarge(most)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return connect.NewError(connect.CodeDeadlineExceeded, errLate)
	case err != nil:
		return connect.NewError(connect.CodeInvalidArgument, errCutShort)
	case enveloped && !isEnveloped(body.Bytes()):
		return connect.NewError(connect.CodeInvalidArgument, errEnvelope)
	}
	r.Body = io.NopCloser(body)
	return nil
}

func tooLarge(most int64) *connect.Error {
	return connect.NewError(connect.CodeResourceExhausted, fmt.Errorf("the request is larger than %d bytes", most))
}

// unacceptable says why a request cannot be read, by its headers alone.
func unacceptable(r *http.Request, stream bool) *connect.Error {
	for _, header := range []string{"Content-Encoding", "Grpc-Encoding", "Connect-Content-Encoding"} {
		if encoding := r.Header.Get(header); encoding != "" && encoding != "identity" {
			return connect.NewError(connect.CodeUnimplemented, fmt.Errorf("%s: send the request uncompressed", header))
		}
	}
	if err := contentType(r, stream); err != nil {
		return connect.NewError(connect.CodeInvalidArgument, err)
	}
	header, form := "Connect-Timeout-Ms", connectTimeout
	if isGRPC(r) {
		header, form = "Grpc-Timeout", grpcTimeout
	} else if version := r.Header.Get("Connect-Protocol-Version"); version != "" && version != "1" {
		return connect.NewError(connect.CodeInvalidArgument, errVersion)
	}
	if timeout := r.Header.Get(header); timeout != "" && !form.MatchString(timeout) {
		return connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("%s: must have the form %s", header, form))
	}
	return nil
}

// Time-outs as the protocols' specifications have them.
var (
	connectTimeout = regexp.MustCompile(`^[0-9]{1,10}$`)
	grpcTimeout    = regexp.MustCompile(`^[0-9]{1,8}[HMSmun]$`)
)

// contentType refuses what has no answer in the form that is asked for: connect has one for streams, and one for the rest.
func contentType(r *http.Request, stream bool) error {
	kind := strings.ToLower(r.Header.Get("Content-Type"))
	switch {
	case !stream && !acceptable(r.Header.Get("Content-Type")):
		return errContentType
	case stream && !isGRPC(r) && kind != "application/connect+json" && kind != "application/connect+proto",
		stream && isGRPC(r) && !acceptable(kind):
		return errStreamType
	}
	return nil
}

func acceptable(contentType string) bool {
	switch contentType {
	case "application/json", "application/proto",
		"application/grpc", "application/grpc+proto", "application/grpc+json",
		"application/grpc-web", "application/grpc-web+proto", "application/grpc-web+json":
		return true
	}
	mediaType, params, err := mime.ParseMediaType(contentType)
	switch {
	case err != nil || len(params) > 1:
		return false
	case len(params) == 1:
		return mediaType == "application/json" && strings.EqualFold(params["charset"], "utf-8")
	}
	return mediaType != contentType && acceptable(mediaType) // in other letters, or with space around it
}

func isGRPC(r *http.Request) bool {
	return strings.HasPrefix(strings.ToLower(r.Header.Get("Content-Type")), "application/grpc")
}

// envelope is the size of what gRPC sends before a message: whether it is compressed, and its length.
const envelope = 5

func isEnveloped(body []byte) bool {
	return len(body) >= envelope && body[0] == 0 && int(binary.BigEndian.Uint32(body[1:])) == len(body)-envelope
}
