package jsoncodec_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	peerv1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/peer/v1"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
	"github.com/keyquorum/keyquorum/rpc/jsoncodec"
)

func encode(t testing.TB, m proto.Message) string {
	t.Helper()
	out, err := jsoncodec.Append(nil, m)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func TestDefaultsAreWrittenAndNothingElseVaries(t *testing.T) {
	claims, err := structpb.NewStruct(map[string]any{"b": 1.5, "a": "x: \\ \" , y", "c": []any{true, nil, 1700000000}})
	if err != nil {
		t.Fatal(err)
	}
	at := timestamppb.New(time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC))
	for want, m := range map[string]proto.Message{
		`{"valid":false,"reason":"EXPIRED","subject":"","keyId":"","revision":"7","node":"n 1"}`: &v1.VerifyResponse{
			Reason: v1.VerifyResponse_EXPIRED, Revision: 7, Node: "n 1",
		},
		`{"subjects":[],"nextPageToken":"","revision":"0"}`: &v1.ListResponse{},
		`{"keys":[{"keyId":"k","state":"RETIRING","createdAt":"2030-01-02T03:04:05Z"}],"revision":"0"}`: &v1.GetResponse{
			Keys: []*v1.Key{{KeyId: "k", State: v1.Key_RETIRING, CreatedAt: at}},
		},
		`{"subject":"a b","ttl":"900s","audience":[],"claims":{"a":"x: \\ \" , y","b":1.5,"c":[true,null,1700000000]}}`: &v1.IssueRequest{
			Subject: "a b", Ttl: durationpb.New(15 * time.Minute), Claims: claims,
		},
	} {
		if got := encode(t, m); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

func TestAppendKeepsWhatIsThere(t *testing.T) {
	got, err := jsoncodec.New("json").MarshalAppend([]byte("a b "), &v1.GetRequest{Subject: "c d"})
	if want := `a b {"subject":"c d"}`; err != nil || string(got) != want {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}

func TestDecode(t *testing.T) {
	var got v1.IssueRequest
	body := " {\"subject\" : \"a\\u00e9\\n\\\"\",\r\n\t\"ttl\":\"1.5s\", \"audience\":[\"x\", \"y\"], \"claims\":{\"n\":1,\"l\":[[],{}]}} \n"
	if err := jsoncodec.Unmarshal([]byte(body), &got); err != nil {
		t.Fatal(err)
	}
	claims, _ := structpb.NewStruct(map[string]any{"n": 1, "l": []any{[]any{}, map[string]any{}}})
	want := &v1.IssueRequest{
		Subject: "aé\n\"", Ttl: durationpb.New(1500 * time.Millisecond), Audience: []string{"x", "y"}, Claims: claims,
	}
	if !proto.Equal(&got, want) {
		t.Errorf("got %v, want %v", &got, want)
	}
}

func TestDecodeClearsTheMessage(t *testing.T) {
	got := &v1.GetRequest{Subject: "old"}
	if err := jsoncodec.Unmarshal([]byte("{}"), got); err != nil || got.Subject != "" {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestNullIsAbsent(t *testing.T) {
	var got v1.IssueRequest
	body := `{"subject":null,"ttl":null,"audience":null,"claims":{"x":null}}`
	if err := jsoncodec.Unmarshal([]byte(body), &got); err != nil {
		t.Fatal(err)
	}
	if got.Ttl != nil || got.Audience != nil || got.Claims.Fields["x"].GetKind() == nil {
		t.Errorf("got %v", &got)
	}
}

func TestPresenceIsKept(t *testing.T) {
	var got v1.UpdateSettingsRequest
	body := `{"settings":{"mode":"STRICT","forgetAfter":"0s","issuer":"","wantedVoters":3,"maxRetiringKeys":"7"}}`
	if err := jsoncodec.Unmarshal([]byte(body), &got); err != nil {
		t.Fatal(err)
	}
	s := got.Settings
	if s.ForgetAfter == nil || s.Issuer == nil || s.MinTtl != nil || s.GetWantedVoters() != 3 || s.GetMaxRetiringKeys() != 7 ||
		s.Mode != v1.Settings_STRICT {
		t.Errorf("got %v", s)
	}
}

func TestRefusals(t *testing.T) {
	deep := strings.Repeat("[", jsoncodec.MaxDepth) + strings.Repeat("]", jsoncodec.MaxDepth)
	many := "[" + strings.Repeat("1,", jsoncodec.MaxFreeValues) + "1]"
	for _, c := range []struct {
		name, body string
		into       proto.Message
		want       string
	}{
		{"misspelt field", `{"subject":"a", "audiense":["x"]}`, &v1.IssueRequest{}, `audiense: unknown field (line 1, column 17)`},
		{"second line", "{\"subject\":\"a\",\n  \"tttl\":1}", &v1.IssueRequest{}, `tttl: unknown field (line 2, column 3)`},
		{"snake case", `{"page_size":1}`, &v1.ListRequest{}, `page_size: unknown field: it is spelled "pageSize" (line 1, column 2)`},
		{"other case", `{"Subject":"a"}`, &v1.GetRequest{}, `Subject: unknown field: it is spelled "subject" (line 1, column 2)`},
		{"nested field", `{"settings":{"min_ttl":"1s"}}`, &v1.InitRequest{}, `settings.min_ttl: unknown field: it is spelled "minTtl" (line 1, column 14)`},
		{"twice", `{"subject":"a","subject":"b"}`, &v1.GetRequest{}, `subject: stands there twice (line 1, column 16)`},
		{"twice, by an escape", `{"subject":"a","s\u0075bject":"b"}`, &v1.GetRequest{}, `subject: stands there twice (line 1, column 16)`},
		{"twice, null", `{"subject":null,"subject":"b"}`, &v1.GetRequest{}, `subject: stands there twice (line 1, column 17)`},
		{"twice in claims", `{"claims":{"a":{"b":1,"b":2}}}`, &v1.IssueRequest{}, `claims.a: the name b stands there twice (line 1, column 23)`},
		{"type of a scalar", `{"subject":17}`, &v1.GetRequest{}, `subject: must be a string (line 1, column 12)`},
		{"type in a list", `{"audience":["a",{}]}`, &v1.IssueRequest{}, `audience[1]: must be a string (line 1, column 18)`},
		{"type of a list", `{"audience":"a"}`, &v1.IssueRequest{}, `audience: must be a list (line 1, column 13)`},
		{"null in a list", `{"audience":[null]}`, &v1.IssueRequest{}, `audience[0]: must be a string (line 1, column 14)`},
		{"claims", `{"claims":[1]}`, &v1.IssueRequest{}, `claims: must be an object (line 1, column 11)`},
		{"number beyond a double", `{"claims":{"n":1e400}}`, &v1.IssueRequest{}, `claims.n: is a number out of range: send it as a string (line 1, column 16)`},
		{"integer beyond a double", `{"claims":{"a":[1,{"n":-` + strings.Repeat("9", 400) + `}]}}`, &v1.IssueRequest{}, `claims.a[1].n: is a number out of range: send it as a string (line 1, column 24)`},
		{"number beyond a double, and then a mistake", `{"claims":{"n":1e400,}}`, &v1.IssueRequest{}, `claims: not valid JSON: a name in quotes was expected here (line 1, column 22)`},
		{"lone surrogate in claims", `{"claims":{"a":["\ud800"]}}`, &v1.IssueRequest{}, `claims.a[0]: a string with an escape that means no character (line 1, column 17)`},
		{"duration as a number", `{"ttl":900}`, &v1.IssueRequest{}, `ttl: must be a duration in seconds such as "900s" (line 1, column 8)`},
		{"duration in minutes", `{"ttl":"15m"}`, &v1.IssueRequest{}, `ttl: must be a duration in seconds such as "900s" (line 1, column 8)`},
		{"boolean", `{"omitClaims":"true"}`, &v1.VerifyRequest{}, `omitClaims: must be true or false (line 1, column 15)`},
		{"integer", `{"pageSize":1.5}`, &v1.ListRequest{}, `pageSize: must be an integer of 32 bits (line 1, column 13)`},
		{"integer too large", `{"pageSize":2147483648}`, &v1.ListRequest{}, `pageSize: must be an integer of 32 bits (line 1, column 13)`},
		{"enum", `{"settings":{"mode":"strict"}}`, &v1.InitRequest{}, `settings.mode: must be one of UNSPECIFIED, OVERLAP, STRICT (line 1, column 21)`},
		{"enum as a number", `{"settings":{"mode":1}}`, &v1.InitRequest{}, `settings.mode: must be one of UNSPECIFIED, OVERLAP, STRICT (line 1, column 21)`},
		{"oneof", `{"issue":{},"rotate":{}}`, &peerv1.ForwardRequest{}, `rotate: excludes another field that is there (line 1, column 22)`},
		{"empty", "", &v1.GetRequest{}, `the body is empty: send at least {} (line 1, column 1)`},
		{"no object", `"a"`, &v1.GetRequest{}, `not valid JSON: an object was expected here (line 1, column 1)`},
		{"trailing", `{} {}`, &v1.GetRequest{}, `something follows the JSON (line 1, column 4)`},
		{"comma at the end", `{"subject":"a",}`, &v1.GetRequest{}, `not valid JSON: a name in quotes was expected here (line 1, column 16)`},
		{"cut off", `{"subject":"a`, &v1.GetRequest{}, `subject: the JSON ends early: a string is not closed (line 1, column 14)`},
		{"cut off after a name", `{"subject":`, &v1.GetRequest{}, `subject: the JSON ends early: a value is missing (line 1, column 12)`},
		{"single quotes", `{'subject':'a'}`, &v1.GetRequest{}, `not valid JSON: a name in quotes was expected here (line 1, column 2)`},
		{"control character", "{\"subject\":\"a\tb\"}", &v1.GetRequest{}, `subject: not valid JSON: a control character in a string (line 1, column 14)`},
		{"lone surrogate", `{"subject":"\ud800"}`, &v1.GetRequest{}, `subject: a string with an escape that means no character (line 1, column 12)`},
		{"UTF-8", "{\"subject\":\"a\xff\"}", &v1.GetRequest{}, `not valid UTF-8 (line 1, column 14)`},
		{"NaN", `{"claims":{"a":NaN}}`, &v1.IssueRequest{}, `claims.a: not valid JSON: a value was expected here (line 1, column 16)`},
		{"leading zero", `{"claims":{"a":01}}`, &v1.IssueRequest{}, `claims.a: not valid JSON: a value was expected here (line 1, column 16)`},
		{"deep", `{"claims":{"a":` + deep + `}}`, &v1.IssueRequest{}, `nested deeper than 64 levels (line 1, column 78)`},
		{"many", `{"claims":{"a":` + many + `}}`, &v1.IssueRequest{}, `more than 4096 values (line 1, column 8205)`},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := jsoncodec.Unmarshal([]byte(c.body), c.into)
			if _, ok := errors.AsType[*jsoncodec.Error](err); !ok {
				t.Fatalf("got %v, want an *Error", err)
			}
			if got := err.Error(); got != c.want && !(len(c.body) > 100 && strings.HasSuffix(got, c.want)) {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestErrorsQuoteNoValueAndStayShort(t *testing.T) {
	secret := strings.Repeat("eyJsecret", 100)
	for _, body := range []string{
		`{"ttl":"` + secret + `"}`,
		`{"claims":"` + secret + `"}`,
		`{"subject":` + secret + `}`,
		`{"audience":[true,"` + secret + `"]}`,
		secret,
		`{}` + secret,
	} {
		err := jsoncodec.Unmarshal([]byte(body), &v1.IssueRequest{})
		if err == nil || strings.Contains(err.Error(), "eyJ") {
			t.Errorf("got %v", err)
		}
	}
	err := jsoncodec.Unmarshal([]byte(`{"`+secret+`":1}`), &v1.IssueRequest{})
	if err == nil || len(err.Error()) > 200 {
		t.Errorf("got %v", err)
	}
}

// Every message that a caller can send has only fields of the kinds that the decoder knows.
func TestAllRequestsCanBeSent(t *testing.T) {
	for _, file := range []protoreflect.FileDescriptor{
		v1.File_keyquorum_v1_token_proto, v1.File_keyquorum_v1_key_proto, v1.File_keyquorum_v1_cluster_proto,
		peerv1.File_keyquorum_peer_v1_peer_proto,
	} {
		for i := range file.Messages().Len() {
			checkFields(t, file.Messages().Get(i))
		}
	}
}

func checkFields(t *testing.T, md protoreflect.MessageDescriptor) {
	for i := range md.Fields().Len() {
		fd := md.Fields().Get(i)
		switch fd.Kind() {
		case protoreflect.Fixed32Kind, protoreflect.Fixed64Kind, protoreflect.Sfixed32Kind, protoreflect.Sfixed64Kind,
			protoreflect.Sint32Kind, protoreflect.Sint64Kind, protoreflect.FloatKind, protoreflect.DoubleKind, protoreflect.GroupKind:
			t.Errorf("%s has kind %s", fd.FullName(), fd.Kind())
		}
		if fd.IsMap() {
			t.Errorf("%s is a map", fd.FullName())
		}
	}
}

// What is accepted means what protojson takes it for, and survives being written and read again.
func FuzzUnmarshal(f *testing.F) {
	for _, body := range []string{
		`{"subject":"a","ttl":"900s","audience":["x"],"claims":{"a":[1,2.5e3,{"b":null}],"c":"\u00e9\ud83d\ude00"}}`,
		`{"settings":{"mode":"STRICT","forgetAfter":"0s","issuer":"","wantedVoters":"3"}}`,
		`{"issue":{"subject":"a"},"requestId":"x"}`,
		`{"member":{"nodeId":"n","format":1,"replica":true,"role":"VOTER"},"keyringProof":"AAE="}`,
		`{"audience":[null],"claims":[[[[`, `{"a":1}x`, `{"verdicts":[{"claims":{},"issuedAt":"2030-01-02T03:04:05Z"}]}`,
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, m := range []proto.Message{
			&v1.IssueRequest{}, &v1.UpdateSettingsRequest{}, &peerv1.ForwardRequest{}, &peerv1.JoinRequest{},
			&v1.VerifyBatchResponse{}, &v1.StatusResponse{},
		} {
			if jsoncodec.Unmarshal(body, m) != nil {
				continue
			}
			theirs := m.ProtoReflect().New().Interface()
			if err := protojson.Unmarshal(body, theirs); err != nil || !proto.Equal(m, theirs) {
				t.Fatalf("%q: read as %v, protojson: %v, %v", body, m, theirs, err)
			}
			again := m.ProtoReflect().New().Interface()
			if err := jsoncodec.Unmarshal([]byte(encode(t, m)), again); err != nil || !proto.Equal(m, again) {
				t.Fatalf("%q: read as %v, written and read again: %v, %v", body, m, again, err)
			}
		}
	})
}

func BenchmarkUnmarshalVerify(b *testing.B) {
	body := fmt.Appendf(nil, `{"token":%q,"audience":"api"}`, strings.Repeat("x", 400))
	b.ReportAllocs()
	for b.Loop() {
		if err := jsoncodec.Unmarshal(body, &v1.VerifyRequest{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMarshalVerdict(b *testing.B) {
	claims, _ := structpb.NewStruct(map[string]any{"sub": "ada", "iss": "keyquorum", "exp": 1900000000})
	m := &v1.VerifyResponse{Valid: true, Subject: "ada", KeyId: strings.Repeat("k", 22), Claims: claims, Revision: 9, Node: "n1"}
	buf := make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := jsoncodec.Append(buf, m); err != nil {
			b.Fatal(err)
		}
	}
}
