// Package sysexits owns the exit statuses of the programs, which are those of
// sysexits(3) in the manual pages, and the error that carries one of them to main,
// with a hint for the user. All packages that fail use it. It never exits and
// never prints.
package sysexits

import "errors"

// The exit statuses, as a call home uses them. After a handover with exec the exit
// status is that of sshd.
const (
	OK          = 0
	Usage       = 64 // the command line is wrong; nothing was opened
	DataErr     = 65 // the device answered an operation with rpc-error
	NoInput     = 66 // a required file is missing: host key, sshd_config
	NoHost      = 68 // the name of the NETCONF client does not resolve
	Unavailable = 69 // no connection: refused, unreachable, timed out
	OSErr       = 71 // an operating system call failed
	Protocol    = 76 // the peer does not speak SSH or NETCONF as it should
	NoPerm      = 77 // not permitted
	Config      = 78 // a setting or sshd_config is wrong
)

// Error is an error with its exit status and with what the user can do next (Hint,
// a clause without a full stop; may be empty).
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

// Code returns the exit status of err: OK for nil, OSErr where it carries none.
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

// Hint returns the hint of err, or "".
func Hint(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Hint
	}
	return ""
}
