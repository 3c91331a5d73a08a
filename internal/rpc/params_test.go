package rpc

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"

	"callhome/internal/proto"
)

// sample has each kind of member.
type sample struct {
	Name   string            `json:"name"`
	Number int               `json:"number,omitempty" min:"1"`
	Port   uint16            `json:"port,omitempty" min:"1"`
	Labels map[string]string `json:"labels,omitempty"`
	Kind   proto.Wait        `json:"kind,omitempty"`
}

// An error names the member, what was found and what was expected, in terms of JSON. A
// missing member and a number out of range are wrong values (9), another type is
// JSON-RPC's own error.
func TestErrorsOfParameters(t *testing.T) {
	const wrongType, wrongValue = invalidParams, proto.CodeBadType
	long := strings.Repeat("x", 100)
	for _, tt := range []struct {
		params, want string
		code         proto.Code
	}{
		{`{"name":"n","number":7,"port":830,"labels":{"a":"b"},"kind":"ssh"}`, "", 0},
		{`{"name":"n","number":null,"port":null,"labels":null}`, "", 0},
		{`{}`, `parameter "name" is missing; expected a string`, wrongValue},
		{``, `parameter "name" is missing; expected a string`, wrongValue},
		{`[]`, `parameter "name" is missing; expected a string`, wrongValue},
		{`{"name":null}`, `parameter "name" is missing; expected a string`, wrongValue},
		{`{"name":5}`, `parameter "name": found 5; expected a string`, wrongType},
		{`{"name":["a"]}`, `parameter "name": found ["a"]; expected a string`, wrongType},
		{`{"name":true}`, `parameter "name": found true; expected a string`, wrongType},
		{`{"name":"n","port":0}`, `parameter "port": found 0; expected a whole number from 1 to 65535`, wrongValue},
		{`{"name":"n","port":-1}`, `parameter "port": found -1; expected a whole number from 1 to 65535`, wrongValue},
		{`{"name":"n","port":65536}`, `parameter "port": found 65536; expected a whole number from 1 to 65535`, wrongValue},
		{`{"name":"n","port":830.5}`, `parameter "port": found 830.5; expected a whole number from 1 to 65535`, wrongValue},
		{`{"name":"n","port":"830"}`, `parameter "port": found "830"; expected a whole number from 1 to 65535`, wrongType},
		{`{"name":"n","number":0}`, `parameter "number": found 0; expected a whole number from 1`, wrongValue},
		{`{"name":"n","number":1e99}`, `parameter "number": found 1e99; expected a whole number from 1`, wrongValue},
		{`{"name":"n","number":99999999999999999999}`, `parameter "number": found 99999999999999999999; expected a whole number from 1`, wrongValue},
		{`{"name":"n","labels":{"a":1}}`, `parameter "labels": found {"a":1}; expected an object whose members are strings`, wrongType},
		{`{"name":"n","kind":1}`, `parameter "kind": found 1; expected a string`, wrongType},
		{`{"name":"n","Port":830}`, `unknown parameter "Port"; expected name, number, port, labels, kind`, wrongType},
		{`{"name":"n","\u001b[2J":1}`, `unknown parameter "?[2J"; expected name, number, port, labels, kind`, wrongType},
		{`["n"]`, `params: found ["n"]; expected an object with name, number, port, labels, kind`, wrongType},
		{`{"name":{"a": "` + long + `"}}`, `parameter "name": found {"a":"` + long[:54] + `...; expected a string`, wrongType},
	} {
		var got sample
		err := decode("method", []byte(tt.params), reflect.ValueOf(&got).Elem())
		if tt.want == "" {
			if err != nil || got.Name != "n" || (got.Port == 830) != strings.Contains(tt.params, "830") {
				t.Errorf("%s: %+v, %v", tt.params, got, err)
			}
			continue
		}
		var e *proto.Error
		var code proto.Code
		if errors.As(err, &e) {
			code = e.Code
		}
		if code != tt.code || err == nil || err.Error() != tt.want {
			t.Errorf("%s: code %d, %v\nwant %d, %s", tt.params, code, err, tt.code, tt.want)
		}
	}
}

// Every type of parameters is one that decode knows.
func TestParametersAreOfKnownTypes(t *testing.T) {
	for _, p := range []any{proto.CallParams{}, proto.HandoverParams{}, proto.SessionParams{}, proto.RestartParams{}} {
		for i := range reflect.TypeOf(p).NumField() {
			f := reflect.TypeOf(p).Field(i)
			if k := f.Type.Kind(); k != reflect.String && !isNumber(k) || f.Tag.Get("json") == "" {
				t.Errorf("%T.%s is a %v", p, f.Name, k)
			}
		}
	}
}

func TestAKillNeedsASession(t *testing.T) {
	path := serve(t, &backend{}, full())
	for _, params := range []string{"", `,"params":{}`, `,"params":{"session":null}`, `,"params":{"session":1.5}`} {
		r := ask(t, dial(t, path), `{"jsonrpc":"2.0","id":1,"method":"kill_user_session"`+params+`}`)
		if r.Error == nil || r.Error.Code != proto.CodeBadType || !strings.Contains(r.Error.Message, `parameter "session"`) || r.Error.Data.Name != "CALLHOME_ERR_BADTYPE" {
			t.Errorf("%s: got %+v", params, r.Error)
		}
	}
}

// What a person types: blank lines, and JSON over several lines.
func TestLinesByHand(t *testing.T) {
	c := dial(t, serve(t, &backend{}, full()))
	r := bufio.NewReader(c)
	if _, err := io.WriteString(c, "\n\r\n \t\n"+status+"\r\n\n"); err != nil {
		t.Fatal(err)
	}
	if a := answer(t, r); a.ID != 1 || a.Error != nil {
		t.Errorf("after blank lines: %+v", a)
	}
	if _, err := io.WriteString(c, "{\n"); err != nil {
		t.Fatal(err)
	}
	if a := answer(t, r); a.Error == nil || a.Error.Code != -32700 || a.Error.Message != "the line ends before the message does; send one message a line" {
		t.Errorf("the first line of several: %+v", a.Error)
	}
	if _, err := io.WriteString(c, "  \"jsonrpc\": \"2.0\",\n"); err != nil {
		t.Fatal(err)
	}
	if a := answer(t, r); a.Error == nil || a.Error.Code != -32700 || !strings.Contains(a.Error.Message, "send one message a line") {
		t.Errorf("the second line of several: %+v", a.Error)
	}
	if _, err := io.WriteString(c, status+"\n"); err != nil {
		t.Fatal(err)
	}
	if a := answer(t, r); a.ID != 1 || a.Error != nil {
		t.Errorf("a line after that: %+v", a)
	}
}

// A line above the limit is answered before the connection ends, however its sender
// writes it.
func TestALineThatIsTooLongIsAnswered(t *testing.T) {
	for _, n := range []int{proto.MaxLine + 1, 4 * proto.MaxLine, 2 * maxDiscarded} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			c := dial(t, serve(t, &backend{}, full()))
			go func() { _, _ = io.WriteString(c, strings.Repeat("x", n)+"\n") }() // the daemon may end it in the middle
			r := bufio.NewReader(c)
			if a := answer(t, r); a.Error == nil || a.Error.Code != -32600 || a.Error.Message != fmt.Sprintf("a message is longer than %d bytes", proto.MaxLine) {
				t.Errorf("got %+v", a.Error)
			}
			if _, err := r.ReadByte(); err == nil {
				t.Error("the connection stays open")
			}
		})
	}
}

// Plain and Typed pass the context on.
func TestHandlersGetTheContext(t *testing.T) {
	type key struct{}
	ctx := context.WithValue(t.Context(), key{}, "v")
	got, err := Plain(func(ctx context.Context) (any, error) { return ctx.Value(key{}), nil })(ctx, &Request{Method: "m"})
	if err != nil || got != "v" {
		t.Errorf("got %v, %v", got, err)
	}
}
