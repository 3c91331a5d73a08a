package rpc

import (
	"bufio"
	"encoding/json"
	"io"
	"strings"
	"testing"

	"callhome/internal/proto"
)

// What is JSON and no request is answered, with its id where it has one.
func TestFaultsOfARequest(t *testing.T) {
	c := dial(t, serve(t, &backend{}, full()))
	r := bufio.NewReader(c)
	for _, tt := range []struct {
		line, id, want string
	}{
		{`5`, "null", "a request is an object"},
		{`null`, "null", "a request is an object"},
		{`[]`, "null", "a batch has at least one request"},
		{`[5]`, "null", "a request is an object"},
		{`{"jsonrpc":"2.0","id":true,"method":"m"}`, "null", "the id of a request is a string or a number"},
		{`{"jsonrpc":"2.0","id":[1],"method":"m"}`, "null", "the id of a request is a string or a number"},
		{`{"jsonrpc":"1.0","id":3,"method":"m"}`, "3", `member "jsonrpc" of a request is "2.0"`},
		{`{"id":"x","method":"m"}`, `"x"`, `member "jsonrpc" of a request is "2.0"`},
		{`{"jsonrpc":"2.0","id":-3}`, "-3", `member "method" of a request is the name of a method`},
		{`{"jsonrpc":"2.0","id":3,"method":5}`, "3", `member "method" of a request is the name of a method`},
		{`{"jsonrpc":"2.0","id":3,"method":"m","params":5}`, "3", `member "params" of a request is an object or an array`},
		{`{"jsonrpc":"2.0","id":3,"method":"m","result":5}`, "3", `a request has no member "result"`},
		{`{"jsonrpc":"2.0","ID":3,"id":3,"method":"m"}`, "null", `member "id" is repeated`},
	} {
		if _, err := io.WriteString(c, tt.line+"\n"); err != nil {
			t.Fatal(err)
		}
		line, err := r.ReadBytes('\n')
		if err != nil {
			t.Fatal(err)
		}
		var a response
		if err := json.Unmarshal(line, &a); err != nil || a.Error == nil {
			t.Fatalf("%s: %s, %v", tt.line, line, err)
		}
		if string(a.ID) != tt.id || a.Error.Code != invalidRequest || a.Error.Message != tt.want || a.Error.Data.Name != proto.CodeBadType.String() {
			t.Errorf("%s: got %s", tt.line, line)
		}
	}
	// A batch has the answers in its order, of those at fault too.
	if _, err := io.WriteString(c, `[{"jsonrpc":"2.0","id":1,"method":"reboot"},{"jsonrpc":"2.0","id":2},`+strings.Replace(status, `"id":1`, `"id":3`, 1)+"]\n"); err != nil {
		t.Fatal(err)
	}
	line, err := r.ReadBytes('\n')
	var all []response
	if err != nil || json.Unmarshal(line, &all) != nil || len(all) != 3 || all[0].Error.Code != methodNotFound || all[1].Error.Code != invalidRequest || string(all[2].ID) != "3" || all[2].Error != nil {
		t.Errorf("%s, %v", line, err)
	}
}

// A second request with the id of one that is being carried out is refused, and the first
// one's descriptor stays its own.
func TestAnIDIsInUseOnce(t *testing.T) {
	b := &backend{block: make(chan struct{})}
	c := dial(t, serve(t, b, full()))
	call := `{"jsonrpc":"2.0","id":7,"method":"netconf_ssh_call_home","params":{"host":"nms"}}` + "\n"
	if _, err := io.WriteString(c, call+call); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(c)
	if a := answer(t, r); a.ID != 7 || a.Error == nil || a.Error.Message != "a request with this id is being carried out" {
		t.Errorf("the second one got %+v", a)
	}
	close(b.block)
	if a := answer(t, r); a.ID != 7 || a.Error != nil {
		t.Errorf("the first one got %+v", a)
	}
	if a := ask(t, c, strings.Replace(call, "nms", "other", 1)); a.Error != nil {
		t.Errorf("the id is not free afterwards: %+v", a)
	}
}
