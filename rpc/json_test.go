package rpc_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/keyquorum/keyquorum/rpc"
)

const (
	issue       = "/keyquorum.v1.TokenService/Issue"
	verify      = "/keyquorum.v1.TokenService/Verify"
	verifyBatch = "/keyquorum.v1.TokenService/VerifyBatch"
	rotate      = "/keyquorum.v1.KeyService/Rotate"
	revoke      = "/keyquorum.v1.KeyService/Revoke"
	deleteKeys  = "/keyquorum.v1.KeyService/Delete"
	get         = "/keyquorum.v1.KeyService/Get"
	list        = "/keyquorum.v1.KeyService/List"
	initialize  = "/keyquorum.v1.ClusterService/Init"
	status      = "/keyquorum.v1.ClusterService/Status"
	members     = "/keyquorum.v1.ClusterService/Members"
	remove      = "/keyquorum.v1.ClusterService/Remove"
	transfer    = "/keyquorum.v1.ClusterService/TransferLeadership"
	settings    = "/keyquorum.v1.ClusterService/GetSettings"
	update      = "/keyquorum.v1.ClusterService/UpdateSettings"
	forward     = "/keyquorum.peer.v1.PeerService/Forward"
	peerClock   = "/keyquorum.peer.v1.PeerService/Clock"
	join        = "/keyquorum.peer.v1.PeerService/Join"
	leave       = "/keyquorum.peer.v1.PeerService/Leave"
)

func TestAVerdictIsWrittenInFull(t *testing.T) {
	s := serve(t, nil)
	got := s.post(t, verify, `{"token":"x"}`)
	want := `{"valid":false,"reason":"EXPIRED","subject":"","keyId":"","revision":"7","node":"n1"}`
	if got.status != http.StatusOK || got.body != want {
		t.Errorf("got %d %s, want %s", got.status, got.body, want)
	}
}

func TestEveryProcedureAnswersJSON(t *testing.T) {
	s := serve(t, nil)
	for procedure, body := range map[string]string{
		issue:       `{"subject":"ada","ttl":"900s","audience":["api"],"claims":{"name":"Ada"}}`,
		verify:      `{"token":"x"}`,
		verifyBatch: `{"tokens":["x"]}`,
		rotate:      `{"subject":"ada"}`,
		revoke:      `{"subject":"ada"}`,
		deleteKeys:  `{"subject":"ada"}`,
		get:         `{"subject":"ada"}`,
		list:        `{"pageSize":1000}`,
		initialize:  `{}`,
		status:      `{}`,
		members:     `{}`,
		remove:      `{"node":"n2"}`,
		transfer:    `{}`,
		settings:    `{}`,
		update:      `{"settings":{"mode":"STRICT"}}`,
		forward:     `{"actor":"a","source":"::1","node":"n2","nodeId":"id-n2","requestId":"r","rotate":{"subject":"ada"}}`,
		peerClock:   `{}`,
		join:        `{"member":{"nodeId":"i","name":"n","rpcAddress":"h:1","raftAddress":"h:2"},"keyringProof":"AAAA"}`,
		leave:       `{"nodeId":"i","keyringProof":"AAAA"}`,
	} {
		for _, contentType := range []string{"application/json", "application/json; charset=utf-8", "application/json;charset=UTF-8"} {
			got := s.post(t, procedure, body, "Content-Type: "+contentType)
			if got.status != http.StatusOK || !strings.HasPrefix(got.body, "{") {
				t.Errorf("%s as %s: %d %s", procedure, contentType, got.status, got.body)
			}
		}
	}
	if asked, forwarded := len(s.node.requests()), len(s.node.local.requests()); asked != 3*18 || forwarded != 3 {
		t.Errorf("the node was asked %d times and %d times locally", asked, forwarded)
	}
}

func TestABodyThatCannotBeDecodedIsToldByFieldAndPosition(t *testing.T) {
	s := serve(t, nil)
	for _, c := range []struct{ body, field, description string }{
		{`{"subject":"ada","audiense":["api"]}`, "audiense", "unknown field (line 1, column 18)"},
		{`{"subject":"ada","ttl":900}`, "ttl", `must be a duration in seconds such as "900s" (line 1, column 24)`},
		{`{"subject":"ada","subject":"bob"}`, "subject", "stands there twice (line 1, column 18)"},
		{`{"claims":{"a":` + strings.Repeat("[", 64<<9) + `}}`, "", "nested deeper than 64 levels (line 1, column 78)"},
	} {
		got := s.post(t, issue, c.body)
		f := got.failure(t)
		if got.status != http.StatusBadRequest || f.Code != "invalid_argument" || !strings.HasSuffix(f.Message, c.description) {
			t.Errorf("%.40s: got %d %s", c.body, got.status, got.body)
		}
		violation := f.detail(t, "FieldViolation")
		if c.field != "" && (violation["field"] != c.field || violation["description"] != c.description ||
			f.Message != c.field+": "+c.description) {
			t.Errorf("%.40s: got %s", c.body, got.body)
		}
		if f.detail(t, "RequestInfo")["requestId"] != got.header.Get(rpc.RequestIDHeader) {
			t.Errorf("%.40s: no request id in %s", c.body, got.body)
		}
	}
	for _, body := range []string{"", "{", `{"subject":"ada"} {}`, "[]", "{\"subject\":\"\xff\"}"} {
		got := s.post(t, issue, body)
		if f := got.failure(t); f.Code != "invalid_argument" || !strings.Contains(f.Message, "(line 1, column ") {
			t.Errorf("%q: got %d %s", body, got.status, got.body)
		}
	}
	if asked := s.node.requests(); len(asked) != 0 {
		t.Errorf("the node was asked %v", asked)
	}
}
