package rpc

import (
	"maps"
	"math"
	"slices"
	"strconv"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/keyquorum/keyquorum/internal/fault"
	"github.com/keyquorum/keyquorum/internal/token"
)

// maxClaimDepth bounds the recursion of what follows. The rule on claims is token.CheckClaims, and stricter.
const maxClaimDepth = 64

// checkClaims refuses what a binary message can say and JSON cannot, before it is turned into something else in
// silence (structpb gives NaN as a text, and a value of no kind as null), and then what may not be in a token.
func checkClaims(claims *structpb.Struct) error {
	if claims == nil {
		return nil
	}
	if err := checkFields("claims", claims.GetFields(), maxClaimDepth); err != nil {
		return err
	}
	return token.CheckClaims("claims", claims.AsMap())
}

func checkFields(path string, fields map[string]*structpb.Value, depth int) error {
	for _, name := range slices.Sorted(maps.Keys(fields)) { // sorted: the same fault is found first each time
		if err := checkClaim(path+"."+name, fields[name], depth-1); err != nil {
			return err
		}
	}
	return nil
}

func checkClaim(path string, v *structpb.Value, depth int) error {
	if depth == 0 {
		return fault.Invalid("claims", "is nested too deep")
	}
	switch kind := v.GetKind().(type) {
	case nil:
		return fault.Invalid(path, "has no value")
	case *structpb.Value_NumberValue:
		if math.IsNaN(kind.NumberValue) || math.IsInf(kind.NumberValue, 0) {
			return fault.Invalid(path, "must be a finite number")
		}
	case *structpb.Value_StructValue:
		return checkFields(path, kind.StructValue.GetFields(), depth)
	case *structpb.Value_ListValue:
		for i, element := range kind.ListValue.GetValues() {
			if err := checkClaim(path+"["+strconv.Itoa(i)+"]", element, depth-1); err != nil {
				return err
			}
		}
	}
	return nil
}
