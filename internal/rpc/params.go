package rpc

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"callhome/internal/printable"
	"callhome/internal/proto"
)

// Typed makes a handler of a function with parameters. The members of P are known by
// their json tags: one without omitempty is required, and a tag min is the least value
// of a number. What P does not have is refused, and errors name the member.
func Typed[P, R any](f func(context.Context, P) (R, error)) Handler {
	return func(ctx context.Context, r *Request) (any, error) {
		var p P
		if err := decode(r.Method, r.Params, reflect.ValueOf(&p).Elem()); err != nil {
			return nil, err
		}
		return f(ctx, p)
	}
}

// Plain makes a handler of a function without parameters.
func Plain[R any](f func(context.Context) (R, error)) Handler {
	return Typed(func(ctx context.Context, _ struct{}) (R, error) { return f(ctx) })
}

// decode reads the parameters of a request into a struct. Many JSON-RPC libraries send
// an empty object or array where there are none.
func decode(method string, params []byte, into reflect.Value) error {
	members := make(map[string]json.RawMessage)
	var none []struct{}
	fits := len(params) == 0 || json.Unmarshal(params, &members) == nil || json.Unmarshal(params, &none) == nil && len(none) == 0
	switch {
	case into.NumField() == 0 && (!fits || len(members) > 0):
		return invalid("%s has no parameters: leave params out, or empty", method)
	case !fits:
		return invalid("params: found %s; expected an object with %s", shown(params), listOf(into.Type()))
	}
	for i := range into.NumField() {
		field := into.Type().Field(i)
		name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
		raw, given := members[name]
		delete(members, name)
		if !given || string(raw) == "null" {
			if options != "omitempty" {
				return proto.NewError(proto.CodeBadType, fmt.Sprintf("parameter %q is missing; expected %s", name, expected(field)))
			}
			continue
		}
		if err := decodeMember(name, raw, into.Field(i), field); err != nil {
			return err
		}
	}
	for name := range members {
		return invalid("unknown parameter %q; expected %s", printable.Line(name), listOf(into.Type()))
	}
	return nil
}

// decodeMember reads one member. A number that is out of range is a wrong value, any
// other mismatch a wrong type.
func decodeMember(name string, raw []byte, into reflect.Value, field reflect.StructField) error {
	if json.Unmarshal(raw, into.Addr().Interface()) == nil && atLeast(into, field.Tag.Get("min")) {
		return nil
	}
	text := fmt.Sprintf("parameter %q: found %s; expected %s", name, shown(raw), expected(field))
	if isNumber(field.Type.Kind()) && json.Unmarshal(raw, new(json.Number)) == nil && raw[0] != '"' {
		return proto.NewError(proto.CodeBadType, text)
	}
	return invalid("%s", text)
}

// atLeast reports whether a number is not below least; "" bounds nothing.
func atLeast(v reflect.Value, least string) bool {
	n, err := strconv.ParseInt(least, 10, 64)
	switch {
	case err != nil:
		return true
	case v.CanUint():
		return v.Uint() >= uint64(n)
	}
	return v.Int() >= n
}

func isNumber(k reflect.Kind) bool { return k >= reflect.Int && k <= reflect.Uint64 }

// expected describes the values of a member.
func expected(field reflect.StructField) string {
	least := field.Tag.Get("min")
	switch k := field.Type.Kind(); {
	case k == reflect.Uint16:
		return "a whole number from " + cmp.Or(least, "0") + " to 65535"
	case isNumber(k) && least != "":
		return "a whole number from " + least
	case isNumber(k):
		return "a whole number"
	case k == reflect.Map:
		return "an object whose members are strings"
	}
	return "a string"
}

// listOf names the members of a struct.
func listOf(t reflect.Type) string {
	var names []string
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		names = append(names, name)
	}
	return strings.Join(names, ", ")
}

// shown returns what was found, short and on one line.
func shown(raw []byte) string {
	const most = 60
	text := string(raw)
	var line bytes.Buffer
	if json.Compact(&line, raw) == nil {
		text = line.String()
	}
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "..."
	}
	return printable.ASCII(text)
}

// invalid returns JSON-RPC's error for parameters of a wrong type.
func invalid(format string, args ...any) error {
	return standardError(invalidParams, fmt.Sprintf(format, args...))
}
