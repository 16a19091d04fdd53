package rpc_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
	"github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1/keyquorumv1connect"
)

func quoted(s string) string {
	b, _ := json.Marshal(s)
	return string(b)
}

func TestBadRequestsNameTheirFieldAndChangeNothing(t *testing.T) {
	long := strings.Repeat("x", 257)
	many := strings.Repeat(`"x",`, 256) + `"x"`
	for _, c := range []struct{ procedure, body, field string }{
		{issue, `{}`, "subject"},
		{issue, `{"subject":""}`, "subject"},
		{issue, `{"subject":"` + long + `"}`, "subject"},
		{issue, `{"subject":"a\u0000"}`, "subject"},
		{issue, `{"subject":"a\nb"}`, "subject"},
		{issue, `{"subject":"ada","ttl":"0s"}`, "ttl"},
		{issue, `{"subject":"ada","ttl":"-1s"}`, "ttl"},
		{issue, `{"subject":"ada","ttl":"-0.000000001s"}`, "ttl"},
		{issue, `{"subject":"ada","ttl":"1.0000001s"}`, "ttl"},
		{issue, `{"subject":"ada","ttl":"315576000000s"}`, "ttl"},
		{issue, `{"subject":"ada","ttl":"9223372037s"}`, "ttl"},
		{issue, `{"subject":"ada","ttl":"99999999999999999999s"}`, "ttl"},
		{issue, `{"subject":"ada","audience":[""]}`, "audience[0]"},
		{issue, `{"subject":"ada","audience":["a","` + long + `"]}`, "audience[1]"},
		{issue, `{"subject":"ada","audience":["1","2","3","4","5","6","7","8","9","10","11","12","13","14","15","16","17"]}`, "audience"},
		{issue, `{"subject":"ada","claims":{"sub":"bob"}}`, "claims.sub"},
		{issue, `{"subject":"ada","claims":{"exp":1}}`, "claims.exp"},
		{issue, `{"subject":"ada","claims":{"profile":{"age":9007199254740992}}}`, "claims.profile.age"},
		{issue, `{"subject":"ada","claims":{"n":9007199254740993}}`, "claims.n"},
		{issue, `{"subject":"ada","claims":{"n":[1,-9007199254740993]}}`, "claims.n[1]"},
		{issue, `{"subject":"ada","claims":{"n":1e300}}`, "claims.n"},
		{issue, `{"subject":"ada","claims":{"a":"` + strings.Repeat("x", 5000) + `"}}`, "claims"},
		{issue, `{"subject":"ada","claims":{"a":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `}}`, "claims.a"},
		{verify, `{"token":"x","audience":"` + long + `"}`, "audience"},
		{verifyBatch, `{"tokens":[` + many + `]}`, "tokens"},
		{verifyBatch, `{"tokens":[],"audience":"` + long + `"}`, "audience"},
		{rotate, `{}`, "subject"},
		{rotate, `{"subject":"ada","expectedKeyId":"short"}`, "expectedKeyId"},
		{revoke, `{"subject":"ada","expectedKeyId":"AAAAAAAAAAAAAAAAAAAAAA"}`, "expectedKeyId"},
		{deleteKeys, `{"subject":"ada","expectedKeyId":"AAAAAAAAAAAAAAAAAAAAA="}`, "expectedKeyId"},
		{get, `{}`, "subject"},
		{list, `{"pageSize":-1}`, "pageSize"},
		{list, `{"pageSize":1001}`, "pageSize"},
		{list, `{"pageToken":` + quoted(strings.Repeat("A", 600)) + `}`, "pageToken"},
		{remove, `{}`, "node"},
		{remove, `{"node":"a\nb"}`, "node"},
		{transfer, `{"node":"` + long + `"}`, "node"},
		{update, `{}`, "settings"},
		{update, `{"settings":{}}`, "settings"},
		{update, `{"settings":{"mode":"UNSPECIFIED"}}`, "settings"},
		{update, `{"settings":{"maxTtl":"0s"}}`, "settings.maxTtl"},
		{update, `{"settings":{"minTtl":"1.0005s"}}`, "settings.minTtl"},
		{update, `{"settings":{"defaultTtl":"-1s"}}`, "settings.defaultTtl"},
		{update, `{"settings":{"forgetAfter":"-1s"}}`, "settings.forgetAfter"},
		{initialize, `{"settings":{"forgetAfter":"-1s"}}`, "settings.forgetAfter"},
		{forward, `{"actor":"a","source":"::1","node":"n2","nodeId":"id-n2"}`, "write"},
		{forward, `{"actor":"a\nb","source":"::1","node":"n2","nodeId":"id-n2","rotate":{"subject":"ada"}}`, "actor"},
		{forward, `{"actor":"a","source":"::1","node":"n2","nodeId":"id-n2","rotate":{}}`, "subject"},
		{forward, `{"actor":"a","source":"::1","node":"n2","nodeId":"id-n2","issue":{"subject":"ada","ttl":"0s"}}`, "ttl"},
		{forward, `{"actor":"a","source":"::1","node":"n2","nodeId":"id-n2","updateSettings":{}}`, "settings"},
		{join, `{}`, "member.nodeId"},
		{join, `{"member":{"nodeId":"i","name":"n","rpcAddress":"h:1"}}`, "member.raftAddress"},
		{leave, `{}`, "nodeId"},
	} {
		t.Run(fmt.Sprintf("%s %.60s", c.procedure, c.body), func(t *testing.T) {
			s := serve(t, nil)
			got := s.post(t, c.procedure, c.body)
			f := got.failure(t)
			field, _ := f.detail(t, "FieldViolation")["field"].(string)
			// Below a claim, the path goes on to where the fault is.
			if f.Code != "invalid_argument" || field != c.field && !(c.field == "claims.a" && strings.HasPrefix(field, "claims.a[0]")) {
				t.Errorf("got %d %s, want the field %s", got.status, got.body, c.field)
			}
			if !strings.HasPrefix(f.Message, field+": ") {
				t.Errorf("the message does not start with the field: %s", f.Message)
			}
			if asked := append(s.node.requests(), s.node.local.requests()...); len(asked) != 0 {
				t.Errorf("the node was asked: %v", asked)
			}
		})
	}
}

func TestGoodRequestsReachTheNode(t *testing.T) {
	s := serve(t, nil)
	for _, c := range []struct{ procedure, body string }{
		{issue, `{"subject":"` + strings.Repeat("x", 256) + `"}`},
		{issue, `{"subject":"ada","ttl":"0.001s"}`},
		{issue, `{"subject":"ada","ttl":"9223372036s"}`},
		{issue, `{"subject":"ada","claims":{"n":9007199254740991,"m":-9007199254740991,"f":0.5,"t":"9007199254740993"}}`},
		{verify, `{}`},
		{verify, `{"token":"` + strings.Repeat("x", 9<<10) + `"}`},
		{verifyBatch, `{}`},
		{verifyBatch, `{"tokens":["` + strings.Repeat("x", 9<<10) + `"]}`},
		{revoke, `{"subject":"ada","expectedKeyId":"AAAAAAAAAAEAAAAAAAAAAQ"}`},
		{list, `{}`},
		{transfer, `{}`},
		{update, `{"settings":{"forgetAfter":"0s"}}`},
		{update, `{"settings":{"issuer":""}}`}, // the replicated state says what an issuer may be
		{initialize, `{"settings":{"mode":"STRICT","wantedVoters":3}}`},
	} {
		if got := s.post(t, c.procedure, c.body); got.status != 200 {
			t.Errorf("%s %.60s: %d %s", c.procedure, c.body, got.status, got.body)
		}
	}
}

// What JSON cannot say, a binary message can.
func TestBadBinaryRequests(t *testing.T) {
	deep := structpb.NewBoolValue(true)
	for range 50 {
		deep = structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{deep}})
	}
	claim := func(v *structpb.Value) *structpb.Struct {
		return &structpb.Struct{Fields: map[string]*structpb.Value{"a": v}}
	}
	s := serve(t, nil)
	for _, client := range []keyquorumv1connect.TokenServiceClient{
		keyquorumv1connect.NewTokenServiceClient(s.http, s.url),
		keyquorumv1connect.NewTokenServiceClient(s.h2c(t), s.url, connect.WithGRPC()),
		keyquorumv1connect.NewTokenServiceClient(s.http, s.url, connect.WithGRPCWeb()),
	} {
		for field, req := range map[string]*v1.IssueRequest{
			"ttl":             {Subject: "ada", Ttl: &durationpb.Duration{Seconds: 1, Nanos: -1}},
			"claims.a":        {Subject: "ada", Claims: claim(structpb.NewNumberValue(math.NaN()))},
			"claims.a[0]":     {Subject: "ada", Claims: claim(structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{structpb.NewNumberValue(math.Inf(-1))}}))},
			"claims.a[0][0]…": {Subject: "ada", Claims: claim(deep)},
			"claims.a.b":      {Subject: "ada", Claims: claim(structpb.NewStructValue(&structpb.Struct{Fields: map[string]*structpb.Value{"b": {}}}))},
		} {
			_, err := client.Issue(t.Context(), connect.NewRequest(req))
			violation, _ := detailOf[*v1.FieldViolation](t, err)
			start, more := strings.CutSuffix(field, "…")
			if connect.CodeOf(err) != connect.CodeInvalidArgument || violation.GetField() != field && !(more && strings.HasPrefix(violation.GetField(), start)) {
				t.Errorf("got %v, want the field %s", err, field)
			}
		}
		_, err := client.Issue(t.Context(), connect.NewRequest(&v1.IssueRequest{Subject: "ada"}))
		if err != nil {
			t.Error(err)
		}
	}
	if asked := s.node.requests(); len(asked) != 3 {
		t.Errorf("the node was asked %v", asked)
	}
}

func TestBinaryBodyThatIsNone(t *testing.T) {
	s := serve(t, nil)
	got := s.post(t, issue, "\xff\xff\xff", "Content-Type: application/proto")
	f := got.failure(t)
	if f.Code != "invalid_argument" || !strings.Contains(f.Message, "keyquorum.v1.IssueRequest") || f.detail(t, "RequestInfo") == nil {
		t.Errorf("got %s", got.body)
	}
	if len(s.node.requests()) != 0 {
		t.Error("the node was asked")
	}
}

// An unknown field that looks like the mark of a body that cannot be decoded is dropped as any other.
func TestABinaryRequestCannotFakeAFault(t *testing.T) {
	s := serve(t, nil)
	body := "\x0a\x03ada" + "\xfa\xff\xff\xff\x0f\x03\x0a\x01x"
	if got := s.post(t, get, body, "Content-Type: application/proto"); got.status != 200 {
		t.Errorf("got %d %s", got.status, got.body)
	}
}

func TestALifetimeBeyondAllReckoningIsCalledTooLong(t *testing.T) {
	s := serve(t, nil)
	if f := s.post(t, issue, `{"subject":"ada","ttl":"315576000000s"}`).failure(t); f.Message != "ttl: is too long to be reckoned with" {
		t.Errorf("got %+v", f)
	}
}

// Names of claims are the caller's: an error tells as much of them as fits.
func TestALongPathIsCut(t *testing.T) {
	s := serve(t, nil)
	name := strings.Repeat("ä", 20000)
	got := s.post(t, issue, `{"subject":"ada","claims":{"`+name+`":9007199254740993}}`)
	f := got.failure(t)
	field, _ := f.detail(t, "FieldViolation")["field"].(string)
	if f.Code != "invalid_argument" || !strings.HasPrefix(field, "claims") || len(f.Message) > 500 || !strings.HasPrefix(f.Message, field) {
		t.Errorf("got %d %.600s", got.status, got.body)
	}
}

func TestAnErrorOfAPeerThatIsNoConnectErrorStaysInternal(t *testing.T) {
	s := serve(t, nil)
	s.node.fail = fmt.Errorf("dial: %w", errors.New("refused"))
	if f := s.post(t, get, `{"subject":"ada"}`).failure(t); f.Code != "internal" {
		t.Errorf("got %+v", f)
	}
}
