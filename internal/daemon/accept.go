package daemon

import (
	"errors"
	"net"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// acceptPause is the time between two tries, in which descriptors may be closed.
const acceptPause = 100 * time.Millisecond

// temporary are the errors of accept(2) after which the listener still works.
var temporary = []unix.Errno{unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM, unix.ECONNABORTED}

// Accept calls accept until it returns a connection or an error that is not
// temporary. It reports a temporary error, such as EMFILE, to failed, and calls
// accept again after acceptPause.
func Accept[C any](accept func() (C, error), failed func(error)) (C, error) {
	for {
		c, err := accept()
		var errno unix.Errno
		if !errors.As(err, &errno) || !slices.Contains(temporary, errno) {
			return c, err
		}
		failed(err)
		time.Sleep(acceptPause)
	}
}

// Patient returns l with an Accept that tries again after a temporary error, which it
// reports to failed.
func Patient(l net.Listener, failed func(error)) net.Listener { return patient{l, failed} }

type patient struct {
	net.Listener
	failed func(error)
}

func (p patient) Accept() (net.Conn, error) { return Accept(p.Listener.Accept, p.failed) }
