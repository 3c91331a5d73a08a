// Package sysexits owns the exit statuses of the project's programs: the
// short list of sysexits(3) that README and the manual pages print, and the
// error that carries one of them up to main together with advice for the
// person at the terminal. It never exits and never prints.
package sysexits

import "errors"

// The exit statuses, with the meaning they have for a call home. After a
// handover with exec the status is sshd's own and none of these.
const (
	OK          = 0
	Usage       = 64 // the command line was not understood; nothing was opened
	DataErr     = 65 // the device answered an operation with rpc-error
	NoInput     = 66 // a file that is needed is not there: host key, sshd_config
	NoHost      = 68 // the name of the NETCONF client does not resolve
	Unavailable = 69 // nobody answered: refused, unreachable, timed out
	OSErr       = 71 // the operating system failed us
	Protocol    = 76 // the peer does not speak SSH or NETCONF as it should
	NoPerm      = 77 // not permitted
	Config      = 78 // a setting or sshd_config is wrong
)

// Error is a failure with its exit status and with what the reader can do
// about it (Hint, a clause without a full stop; may be empty).
type Error struct {
	Code int
	Hint string
	Err  error
}

func (e *Error) Error() string { return e.Err.Error() }

func (e *Error) Unwrap() error { return e.Err }

// New returns err with its exit status and hint.
func New(code int, hint string, err error) *Error {
	return &Error{Code: code, Hint: hint, Err: err}
}

// Code returns the exit status that err carries: OK for nil, OSErr where
// none was given.
func Code(err error) int {
	if err == nil {
		return OK
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return OSErr
}

// Hint returns the advice that err carries, or "".
func Hint(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Hint
	}
	return ""
}
