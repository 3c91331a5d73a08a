package daemon

import (
	"errors"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

func TestAcceptRetriesTemporaryErrors(t *testing.T) {
	call := func(errno unix.Errno) error {
		return &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", errno)}
	}
	for _, tt := range []struct {
		name   string
		errors []error // one a try; then there is a connection
		want   error
		tries  int
	}{
		{"at once", nil, nil, 1},
		{"out of descriptors", []error{call(unix.EMFILE), call(unix.EMFILE)}, nil, 3},
		{"the machine is out of descriptors", []error{call(unix.ENFILE)}, nil, 2},
		{"out of memory", []error{call(unix.ENOMEM), call(unix.ENOBUFS)}, nil, 3},
		{"the peer has gone", []error{call(unix.ECONNABORTED)}, nil, 2},
		{"closed meanwhile", []error{call(unix.EMFILE), net.ErrClosed}, net.ErrClosed, 2},
		{"no listener", []error{call(unix.EINVAL)}, unix.EINVAL, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tries, reported := 0, 0
				begun := time.Now()
				c, err := Accept(func() (string, error) {
					tries++
					if tries <= len(tt.errors) {
						return "", tt.errors[tries-1]
					}
					return "connection", nil
				}, func(error) { reported++ })
				if !errors.Is(err, tt.want) || (err == nil) != (c == "connection") {
					t.Errorf("got %q, %v, want error %v", c, err, tt.want)
				}
				if tries != tt.tries || reported != tt.tries-1 || time.Since(begun) != time.Duration(reported)*acceptPause {
					t.Errorf("%d tries, %d reported, in %s, want %d tries", tries, reported, time.Since(begun), tt.tries)
				}
			})
		})
	}
}
