// Package fdpass passes one open descriptor over a Unix socket, with
// SCM_RIGHTS (unix(7)): the trigger's connected socket to the manager, and an
// accepted call home to ssh (ProxyUseFdpass in ssh_config(5)). It owns the rule
// "exactly one": what else arrives is closed, and nothing is received that
// would survive an exec. It knows nothing of what the descriptor is for.
package fdpass

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// Errors of Recv and Reader. With each of them everything that arrived is closed.
var (
	ErrNone      = errors.New("no descriptor came with the message")
	ErrMany      = errors.New("more than one descriptor came with the message")
	ErrTruncated = errors.New("more control data came with the message than one descriptor needs")
	ErrForeign   = errors.New("control data of another kind came with the message")
)

// Send writes data, which must not be empty, with f beside it. It borrows f:
// the receiver gets a duplicate. A short write is an error.
func Send(c *net.UnixConn, data []byte, f *os.File) error {
	if len(data) == 0 {
		return errors.New("passing a descriptor: without a byte of data it cannot travel")
	}
	// Not f.Fd(): that would make the socket blocking for good.
	raw, err := f.SyscallConn()
	if err != nil {
		return fmt.Errorf("passing %s: %w", f.Name(), err)
	}
	var sendErr error
	err = raw.Control(func(fd uintptr) {
		n, oobn, err := c.WriteMsgUnix(data, unix.UnixRights(int(fd)), nil)
		if err == nil && (n != len(data) || oobn == 0) {
			err = fmt.Errorf("wrote %d of %d bytes", n, len(data))
		}
		sendErr = err
	})
	if err = errors.Join(err, sendErr); err != nil {
		return fmt.Errorf("passing %s: %w", f.Name(), err)
	}
	return nil
}

// Recv reads one message into buf and returns its length and the descriptor
// that came with it, close-on-exec and owned by the caller. The end of the
// stream is io.EOF.
func Recv(c *net.UnixConn, buf []byte) (int, *os.File, error) {
	n, f, err := receive(c, buf)
	switch {
	case err == nil && n == 0 && f == nil:
		return 0, nil, io.EOF
	case err == nil && f == nil:
		return n, nil, fmt.Errorf("receiving a descriptor: %w", ErrNone)
	}
	return n, f, err
}

// receive reads one message, which may come with one descriptor.
func receive(c *net.UnixConn, buf []byte) (int, *os.File, error) {
	// Room for two, so that a second one is seen and closed; the kernel drops
	// any further ones and says so with MSG_CTRUNC.
	oob := make([]byte, unix.CmsgSpace(2*4))
	// ReadMsgUnix asks for MSG_CMSG_CLOEXEC on Linux.
	n, oobn, flags, _, err := c.ReadMsgUnix(buf, oob)
	fds, foreign := rights(oob[:oobn])
	for _, fd := range fds {
		// Else the sender decides how long it takes to close a socket
		// (SO_LINGER in socket(7)). Other files lack that option.
		_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{})
	}
	switch {
	case err != nil:
	case flags&unix.MSG_CTRUNC != 0:
		err = ErrTruncated
	case foreign:
		err = ErrForeign
	case len(fds) > 1:
		err = ErrMany
	case len(fds) == 1:
		return n, os.NewFile(uintptr(fds[0]), "passed descriptor"), nil
	}
	for _, fd := range fds {
		unix.Close(fd)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return n, nil, fmt.Errorf("receiving a descriptor: %w", err)
	}
	return n, nil, nil
}

// rights collects every descriptor in oob, also where part of it cannot be
// understood, and reports whether anything else was there.
func rights(oob []byte) (fds []int, foreign bool) {
	if len(oob) == 0 {
		return nil, false
	}
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, true
	}
	for i := range messages {
		m := &messages[i]
		if m.Header.Level != unix.SOL_SOCKET || m.Header.Type != unix.SCM_RIGHTS {
			foreign = true
			continue
		}
		got, err := unix.ParseUnixRights(m)
		if err != nil {
			foreign = true
			continue
		}
		fds = append(fds, got...)
	}
	return fds, foreign
}
