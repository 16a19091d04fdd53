package client_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/keyquorum/keyquorum/client"
)

func timestamp(t time.Time) *timestamppb.Timestamp { return timestamppb.New(t) }

func TestClaimsArriveAsWritten(t *testing.T) {
	got, err := client.ParseClaims([]byte(` {"plan":"pro","n":9007199254740991,"f":1.5,"deep":{"list":[true,null,{"a":-9007199254740991}]}} `))
	if err != nil {
		t.Fatal(err)
	}
	if got.GetFields()["n"].GetNumberValue() != 9007199254740991 || got.GetFields()["plan"].GetStringValue() != "pro" {
		t.Error(got)
	}
	list := got.GetFields()["deep"].GetStructValue().GetFields()["list"].GetListValue().GetValues()
	if len(list) != 3 || list[2].GetStructValue().GetFields()["a"].GetNumberValue() != -9007199254740991 {
		t.Error(list)
	}
}

func TestClaimsThatWouldChangeOnTheWayAreRefused(t *testing.T) {
	for text, field := range map[string]string{
		`{"profile":{"id":9007199254740992}}`: "claims.profile.id",
		`{"list":[0,-9007199254740993]}`:      "claims.list[1]",
		`{"n":1e999}`:                         "claims.n",
		`{"a":1,"b":{"c":1,"c":2}}`:           "claims.b.c",
		`{"isAdmin":false,"isadmin":true}`:    "claims.isadmin",
		`{"l":[{"scope":1,"ſcope":2}]}`:       "claims.l[0].ſcope",
		`[1]`:                                 "claims",
		`null`:                                "claims",
		`"x"`:                                 "claims",
		``:                                    "claims",
		`{"a":`:                               "claims",
		`{"a":1}}`:                            "claims",
		`{"a":1} {"b":2}`:                     "claims",
		`{'a':1}`:                             "claims",
		"{\"a\":\"\xff\"}":                    "claims",
		`{"a":` + strings.Repeat("[", 5000) + `}`:  "claims",
		`{"a":` + strings.Repeat(`{"b":`, 1) + `}`: "claims",
	} {
		got, err := client.ParseClaims([]byte(text))
		var e *client.Error
		if !errors.Is(err, client.ErrInvalidArgument) || !errors.As(err, &e) || e.Field != field {
			t.Errorf("%.60s: %v, %v", text, got, err)
		}
	}
}

func TestClaimsOfAGoValue(t *testing.T) {
	type profile struct {
		Plan string `json:"plan"`
		ID   int64  `json:"id"`
	}
	got, err := client.Claims(profile{"pro", 42})
	if err != nil || got.GetFields()["id"].GetNumberValue() != 42 {
		t.Error(got, err)
	}
	if _, err := client.Claims(map[string]any{"id": int64(1) << 53}); !errors.Is(err, client.ErrInvalidArgument) {
		t.Error(err)
	}
	if _, err := client.Claims(map[string]any{"f": func() {}}); !errors.Is(err, client.ErrInvalidArgument) {
		t.Error(err)
	}
}

func FuzzParseClaims(f *testing.F) {
	f.Add([]byte(`{"a":[1,{"b":null}],"c":"d"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		claims, err := client.ParseClaims(data)
		if (claims == nil) == (err == nil) {
			t.Error(claims, err)
		}
		if err != nil && !errors.Is(err, client.ErrInvalidArgument) {
			t.Error(err)
		}
	})
}
