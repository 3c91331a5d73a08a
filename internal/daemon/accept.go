package daemon

import (
	"errors"
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
