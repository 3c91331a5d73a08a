package daemon

import (
	"errors"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// acceptPause is between two tries, in which something may be given back.
const acceptPause = 100 * time.Millisecond

// passing are the errors of accept(2) that say nothing of the listener.
var passing = []unix.Errno{unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM, unix.ECONNABORTED}

// Accept calls accept until it returns a connection or an error that is not
// temporary. A temporary error, such as EMFILE, is reported to passed, and
// accept is called again after a acceptPause.
func Accept[C any](accept func() (C, error), passed func(error)) (C, error) {
	for {
		c, err := accept()
		var errno unix.Errno
		if !errors.As(err, &errno) || !slices.Contains(passing, errno) {
			return c, err
		}
		passed(err)
		time.Sleep(acceptPause)
	}
}
