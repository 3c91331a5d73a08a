// Package proto owns the words that the project's programs say to each other
// over the manager's Unix socket: JSON-RPC 2.0, one message a line. It has
// types and constants only; everybody may import it, it imports nobody.
//
//	callhome-trigger                         callhome-mgr
//	  {"method":"adopt",…}\n  + 1 descriptor  ──▶
//	  ◀──  {"result":{"session":"…"}}\n   or   {"error":{"code":…}}\n
//
// The descriptor rides on the first byte of the line (SCM_RIGHTS, unix(7)).
package proto

// Version is JSON-RPC's own, in every message.
const Version = "2.0"

// MethodAdopt hands over a connected socket to be served by sshd.
const MethodAdopt = "adopt"

// MaxLine bounds one message, in bytes, its newline included.
const MaxLine = 64 << 10

// Request is a call with its parameters.
type Request[P any] struct {
	Version string `json:"jsonrpc"`
	ID      int    `json:"id"`
	Method  string `json:"method"`
	Params  P      `json:"params"`
}

// Response carries a result or an error, never both.
type Response[R any] struct {
	Version string `json:"jsonrpc"`
	ID      int    `json:"id"`
	Result  *R     `json:"result,omitempty"`
	Error   *Error `json:"error,omitempty"`
}

// Error is JSON-RPC's error object.
type Error struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

// AdoptParams say what is known of the socket that comes with them.
type AdoptParams struct {
	// Host and Port are the NETCONF client as the caller named it.
	Host string `json:"host"`
	Port uint16 `json:"port"`
	// Opaque is the caller's word for the session; data, at most 1024 bytes.
	Opaque string `json:"opaque,omitempty"`
}

// AdoptResult says that the manager has the socket.
type AdoptResult struct {
	// Session names the session in the manager's other methods.
	Session string `json:"session"`
}
