package rpc

import (
	"bufio"
	"encoding/json"
	"io"
	"strings"
	"testing"
)

func TestRepeatedMembers(t *testing.T) {
	for message, want := range map[string]string{
		`{"a":1,"b":{"a":2},"c":[{"a":1},{"a":2}]}`: "",
		`{"a":"a","b":"a"}`:                         "",
		`{"a":["b","b"],"b":1}`:                     "",
		`{"a":1,"a":1}`:                             "a",
		`{"a":{"x":[1,{"b":1,"b":2}]}}`:             "b",
		`[{"a":1},{"id":1,"id":2}]`:                 "id",
		`{"host":"a","HOST":"b"}`:                   "HOST",
		`{"session":1,"ſession":2}`:                 `\u017fession`,
		`{"kind":1,"\u212aind":2}`:                  `\u212aind`,
		`{"a":{},"a":[]}`:                           "a",
		`{"a`:                                       "",
		`{"a":1,"a"`:                                "a",
		`]`:                                         "",
		``:                                          "",
	} {
		if want != "" {
			want = `member "` + want + `" is repeated`
		}
		if got := strings.ReplaceAll(repeatedMember([]byte(message)), `\\`, `\`); got != want {
			t.Errorf("%s: %q, want %q", message, got, want)
		}
	}
}

// A request that two readers could understand differently is not carried out.
func TestARequestWithARepeatedMemberIsRefused(t *testing.T) {
	b := &backend{}
	c := dial(t, serve(t, b, full()))
	r := bufio.NewReader(c)
	if _, err := io.WriteString(c, `{"jsonrpc":"2.0","id":1,"method":"kill_user_session","params":{"session":1,"session":2}}`+"\n"+status+"\n"); err != nil {
		t.Fatal(err)
	}
	if a := answer(t, r); a.Error == nil || a.Error.Code != -32600 || a.Error.Message != `member "session" is repeated` {
		t.Errorf("got %+v", a)
	}
	if a := answer(t, r); a.ID != 1 || a.Error != nil {
		t.Errorf("what came after it got %+v", a)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.killed) > 0 {
		t.Errorf("%v were carried out", b.killed)
	}
}

// What is not refused has as many members after Go's decoder, which drops repeated ones.
func FuzzRepeatedMember(f *testing.F) {
	for _, s := range []string{`{"a":1,"b":[{"a":1}]}`, `{"a":1,"a":2}`, `{"a":{"b":1,"B":2}}`, `[[{}]]`, `{"a"`, `{"\u003a":":\":"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		refused := repeatedMember(message) != ""
		var value any
		if json.Unmarshal(message, &value) != nil || refused {
			return
		}
		if got, want := members(value), colons(message); got != want {
			t.Errorf("%s has %d members, %d of them different", message, want, got)
		}
	})
}

func members(value any) (n int) {
	switch value := value.(type) {
	case map[string]any:
		n = len(value)
		for _, v := range value {
			n += members(v)
		}
	case []any:
		for _, v := range value {
			n += members(v)
		}
	}
	return n
}

// colons counts those outside of strings.
func colons(message []byte) (n int) {
	inString := false
	for i := 0; i < len(message); i++ {
		switch {
		case message[i] == '"':
			inString = !inString
		case inString && message[i] == '\\':
			i++
		case !inString && message[i] == ':':
			n++
		}
	}
	return n
}
