// Package accept takes connections from a listener and sees out times in which
// the machine has no room for another one. The API and the metrics accept with
// it, so that whoever uses up the descriptors does not end the daemon.
package accept

import (
	"errors"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// pause is between two tries, in which something may be given back.
const pause = 100 * time.Millisecond

// passing are the errors of accept(2) that say nothing of the listener.
var passing = []unix.Errno{unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM, unix.ECONNABORTED}

// Patiently calls accept until it returns a connection or an error that will
// not pass. The others are told to passed.
func Patiently[C any](accept func() (C, error), passed func(error)) (C, error) {
	for {
		c, err := accept()
		var errno unix.Errno
		if !errors.As(err, &errno) || !slices.Contains(passing, errno) {
			return c, err
		}
		passed(err)
		time.Sleep(pause)
	}
}
