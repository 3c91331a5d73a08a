package devsock

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"

	"callhome/internal/daemon"
	"callhome/internal/poller"

	"golang.org/x/sys/unix"
)

// listening are the listening sockets. One goroutine accepts for all: one of each costs
// a fleet several KiB a device. The path of a Unix socket is all that tells which device
// a client wants, so each device has a socket, and a descriptor, of its own.
type listening struct {
	poller *poller.Poller

	mu      sync.Mutex // guards the fields that follow; held while one is opened, closed or asked
	sockets map[string]*socket
	byFD    map[int]*socket
}

// socket is the listening socket of a device.
type socket struct {
	id, path string
	fd       int
	sessions int // guarded by mu
}

// backlog is how many clients may wait at one socket.
const backlog = 128

// errKept is why a device has no socket while others have one.
var errKept = errors.New("no file descriptor is left for it")

func newListening() (*listening, error) {
	p, err := poller.New()
	if err != nil {
		return nil, err
	}
	return &listening{poller: p, sockets: make(map[string]*socket), byFD: make(map[int]*socket)}, nil
}

// open opens the socket of a device in dir.
func (l *listening) open(dir, id string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := &socket{id: id, path: filepath.Join(dir, id+Suffix)}
	var err error
	if s.fd, err = listen(s.path); err != nil {
		return err
	}
	if err := l.poller.Add(s.fd); err != nil {
		s.close()
		return err
	}
	l.sockets[id], l.byFD[s.fd] = s, s
	return nil
}

func listen(path string) (fd int, err error) {
	fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if daemon.IsKeptNumber(fd) {
		unix.Close(fd)
		return -1, errKept
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("binding %q: %w", path, err)
	}
	// Every user may connect: SO_PEERCRED decides who may use the device.
	err = os.Chmod(path, 0o666)
	if err == nil {
		err = os.NewSyscallError("listen", unix.Listen(fd, backlog))
	}
	if err != nil {
		unix.Close(fd)
		os.Remove(path)
		return -1, err
	}
	return fd, nil
}

func (s *socket) close() {
	unix.Close(s.fd) // which takes it out of epoll
	os.Remove(s.path)
}

// has reports whether the socket of a device is open.
func (l *listening) has(id string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sockets[id] != nil
}

// ids returns the devices with a socket.
func (l *listening) ids() (out []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id := range l.sockets {
		out = append(out, id)
	}
	return out
}

// shut closes the socket of a device.
func (l *listening) shut(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.sockets[id]
	delete(l.sockets, id)
	delete(l.byFD, s.fd)
	s.close()
}

// end closes all sockets, and ends serve.
func (l *listening) end() {
	for _, id := range l.ids() {
		l.shut(id)
	}
	l.poller.Close()
}

// serve passes each connection to take, which owns it, until end. If accept(2) fails, it
// calls failed and tries again when that returns.
func (l *listening) serve(take func(*socket, *net.UnixConn), failed func(*socket, error)) {
	l.poller.Wait(func(fd int) {
		s, conn, err := l.accept(fd)
		switch {
		case err == unix.EAGAIN || err == unix.EINTR || err == unix.ECONNABORTED || s == nil:
		case err != nil:
			failed(s, err)
		default:
			take(s, conn)
		}
	})
}

// accept accepts a connection at a socket, which may be another device's by now, or none.
func (l *listening) accept(fd int) (*socket, *net.UnixConn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.byFD[fd]
	if s == nil {
		return nil, nil, nil
	}
	n, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
	if err != nil {
		return s, nil, err
	}
	f := os.NewFile(uintptr(n), s.path)
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		return s, nil, err
	}
	return s, conn.(*net.UnixConn), nil
}

// enter counts a session, or reports that there are too many.
func (l *listening) enter(s *socket) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.sessions >= maxConns {
		return false
	}
	s.sessions++
	return true
}

func (l *listening) leave(s *socket) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s.sessions--
}
