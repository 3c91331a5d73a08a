package proto

import "encoding/json"

// Code is the stable number of an error in a JSON-RPC answer.
type Code int

// The codes. JSON-RPC reserves -32768 to -32000; these are positive. Their
// names are MAAPI's with CALLHOME in place of CONFD where MAAPI has one.
const (
	CodeName         Code = 1  // CALLHOME_ERR_NAME: the name does not resolve
	CodeUnavailable  Code = 2  // CALLHOME_ERR_UNAVAILABLE: no address accepted the connection
	CodeHandover     Code = 3  // CALLHOME_ERR_HANDOVER: sshd did not take the socket
	CodeSSH          Code = 4  // CALLHOME_ERR_SSH: no key exchange
	CodeAuth         Code = 5  // CALLHOME_ERR_AUTH: no login
	CodeSubsystem    Code = 6  // CALLHOME_ERR_SUBSYSTEM: no netconf subsystem
	CodeNoExists     Code = 7  // CALLHOME_ERR_NOEXISTS: no such session
	CodeAccessDenied Code = 8  // CALLHOME_ERR_ACCESS_DENIED
	CodeBadType      Code = 9  // CALLHOME_ERR_BADTYPE: a parameter is invalid
	CodeOS           Code = 10 // CALLHOME_ERR_OS: a system call failed
	CodeBusy         Code = 11 // CALLHOME_ERR_BUSY: a limit is reached
	CodeShutdown     Code = 12 // CALLHOME_ERR_SHUTDOWN: the manager is stopping
	CodeBadConfig    Code = 13 // CALLHOME_ERR_BAD_CONFIG: a configuration was refused, the applied one stays
)

var codeNames = map[Code]string{
	CodeName: "CALLHOME_ERR_NAME", CodeUnavailable: "CALLHOME_ERR_UNAVAILABLE", CodeHandover: "CALLHOME_ERR_HANDOVER",
	CodeSSH: "CALLHOME_ERR_SSH", CodeAuth: "CALLHOME_ERR_AUTH", CodeSubsystem: "CALLHOME_ERR_SUBSYSTEM",
	CodeNoExists: "CALLHOME_ERR_NOEXISTS", CodeAccessDenied: "CALLHOME_ERR_ACCESS_DENIED", CodeBadType: "CALLHOME_ERR_BADTYPE",
	CodeOS: "CALLHOME_ERR_OS", CodeBusy: "CALLHOME_ERR_BUSY", CodeShutdown: "CALLHOME_ERR_SHUTDOWN",
	CodeBadConfig: "CALLHOME_ERR_BAD_CONFIG",
}

// String returns the code's name, as CALLHOME_ERR_AUTH.
func (c Code) String() string {
	if n, ok := codeNames[c]; ok {
		return n
	}
	return "CALLHOME_ERR_INTERNAL"
}

// Error is a JSON-RPC error object with ErrorData as its data.
type Error struct {
	Code    Code      `json:"code"`
	Message string    `json:"message"`
	Data    ErrorData `json:"data"`
}

// ErrorData says what failed at which address, and whether a retry makes sense.
type ErrorData struct {
	Name    string `json:"name"` // Code.String()
	Stage   Stage  `json:"stage,omitempty"`
	Address string `json:"address,omitempty"` // of the attempt
	// Reason is the system call's error or sshd's log line.
	Reason string `json:"reason,omitempty"`
	Retry  bool   `json:"retry"` // temporary: a retry may succeed
	// Session is the number of the session that failed, 0 for no session.
	Session int `json:"session,omitempty"`
}

func (e *Error) Error() string { return e.Message }

// stageFailure is the code of a failure at each stage, and whether a retry makes
// sense.
var stageFailure = map[Stage]struct {
	code  Code
	retry bool
}{
	StageName:      {CodeName, true},
	StageTCP:       {CodeUnavailable, true},
	StageHandover:  {CodeHandover, false},
	StageSSH:       {CodeSSH, true},
	StageAuth:      {CodeAuth, false},
	StageSubsystem: {CodeSubsystem, false},
	StageSession:   {CodeUnavailable, true},
}

// StageError returns the error for a call home that failed at a stage.
func StageError(stage Stage, message string, data ErrorData) *Error {
	f := stageFailure[stage]
	data.Name, data.Stage, data.Retry = f.code.String(), stage, f.retry
	return &Error{Code: f.code, Message: message, Data: data}
}

// NewError returns an error that has no stage of a call home.
func NewError(code Code, message string) *Error {
	return &Error{Code: code, Message: message, Data: ErrorData{Name: code.String(), Retry: code == CodeBusy}}
}

// Request is a request with its parameters, for programs without an RPC library.
type Request[P any] struct {
	Version string `json:"jsonrpc"`
	ID      int    `json:"id"`
	Method  string `json:"method"`
	Params  P      `json:"params"`
}

// Response carries a result or an error, never both.
type Response struct {
	Version string          `json:"jsonrpc"`
	ID      int             `json:"id"`
	Result  json.RawMessage `json:"result,omitempty"`
	Error   *Error          `json:"error,omitempty"`
}
