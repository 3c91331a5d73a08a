package rpc

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"callhome/internal/proto"
)

// version is the member jsonrpc of all messages.
const version = "2.0"

// The codes of JSON-RPC 2.0 itself (section 5.1).
const (
	parseError     proto.Code = -32700
	invalidRequest proto.Code = -32600
	methodNotFound proto.Code = -32601
	invalidParams  proto.Code = -32602
)

// Request is a request, as the handler of its method gets it.
type Request struct {
	Method string
	Params json.RawMessage // an object or an array, or nil

	id    string // as JSON; "" where it has none that may be answered
	fault string // why it is not carried out
}

// Handler carries out a request. Errors other than *proto.Error are the operating
// system's (proto.CodeOS).
type Handler func(context.Context, *Request) (any, error)

// parse returns the requests of a message that is JSON, and whether they are a batch.
func parse(message []byte) (list []*Request, batch bool) {
	if !bytes.HasPrefix(bytes.TrimLeft(message, " \t\r\n"), []byte("[")) {
		return []*Request{parseRequest(message)}, false
	}
	var all []json.RawMessage
	_ = json.Unmarshal(message, &all) // the caller has checked that it is JSON
	for _, one := range all {
		list = append(list, parseRequest(one))
	}
	return list, true
}

func parseRequest(message []byte) *Request {
	r := &Request{}
	var members map[string]json.RawMessage
	if json.Unmarshal(message, &members) != nil || members == nil {
		r.fault = "a request is an object"
		return r
	}
	fail := func(format string, args ...any) {
		if r.fault == "" {
			r.fault = fmt.Sprintf(format, args...)
		}
	}
	switch id := members["id"]; {
	case id == nil || string(id) == "null":
		fail("a request needs an id")
	case id[0] == '"' || id[0] == '-' || id[0] >= '0' && id[0] <= '9':
		r.id = string(id)
	default:
		fail("the id of a request is a string or a number")
	}
	if string(members["jsonrpc"]) != `"`+version+`"` {
		fail("member \"jsonrpc\" of a request is %q", version)
	}
	if json.Unmarshal(members["method"], &r.Method) != nil || r.Method == "" {
		fail("member \"method\" of a request is the name of a method")
	}
	switch params := members["params"]; {
	case params == nil || string(params) == "null":
	case params[0] == '{' || params[0] == '[':
		r.Params = params
	default:
		fail("member \"params\" of a request is an object or an array")
	}
	for _, known := range []string{"jsonrpc", "id", "method", "params"} {
		delete(members, known)
	}
	for name := range members {
		fail("a request has no member %q", name)
	}
	return r
}

// response is the answer to a request.
type response struct {
	Version string          `json:"jsonrpc"`
	ID      json.RawMessage `json:"id"` // null where the request's is not known
	Result  json.RawMessage `json:"result,omitempty"`
	Error   *proto.Error    `json:"error,omitempty"`
}

// answerTo returns the answer to the request with that id; "" is null.
func answerTo(id string, result any, err error) []byte {
	r := response{Version: version}
	if id != "" {
		r.ID = json.RawMessage(id)
	}
	if err == nil {
		r.Result, err = json.Marshal(result)
	}
	if err != nil && !errors.As(err, &r.Error) {
		r.Error = proto.NewError(proto.CodeOS, err.Error())
	}
	out, _ := json.Marshal(r) // nothing in it can fail
	return out
}

// standardError is an error that JSON-RPC 2.0 defines, with the data that all
// errors have.
func standardError(code proto.Code, message string) error {
	return &proto.Error{Code: code, Message: message, Data: proto.ErrorData{Name: proto.CodeBadType.String()}}
}

// refusal is the answer to a message that is no request. Its id is null.
func refusal(code proto.Code, why string) []byte { return answerTo("", nil, standardError(code, why)) }

// notification is how a message begins that answers no request.
var notification = []byte(`{"jsonrpc":"2.0","method":`)

// notice returns a notification.
func notice(method string, params any) ([]byte, error) {
	return json.Marshal(struct {
		Version string `json:"jsonrpc"`
		Method  string `json:"method"`
		Params  any    `json:"params"`
	}{version, method, params})
}
