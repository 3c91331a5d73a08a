package process

import (
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Exits waits for the ends of any number of processes with one goroutine: each
// goroutine that waited by itself would keep a stack, and each wait4(2) a thread.
type Exits struct {
	epoll *os.File
	raw   syscall.RawConn

	mu    sync.Mutex
	ended map[int32]func() // by pidfd, which Exits owns; guarded by mu
}

// NewExits returns an Exits that waits for no process yet. Its owner closes it.
func NewExits() (*Exits, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		return nil, fmt.Errorf("preparing to wait for processes: %w", err)
	}
	e := &Exits{epoll: os.NewFile(uintptr(fd), "epoll"), ended: make(map[int32]func())}
	if err = e.epoll.SetReadDeadline(time.Time{}); err == nil { // the runtime can wait for it
		e.raw, err = e.epoll.SyscallConn()
	}
	if err != nil {
		e.epoll.Close()
		return nil, fmt.Errorf("preparing to wait for processes: %w", err)
	}
	go func() {
		_ = e.raw.Read(func(uintptr) bool {
			e.drain()
			return false // wait for more, until Close
		})
	}()
	return e, nil
}

// Close ends all waits. ended is called for no process after it.
func (e *Exits) Close() error {
	err := e.epoll.Close()
	e.mu.Lock()
	defer e.mu.Unlock()
	for fd := range e.ended {
		unix.Close(int(fd))
	}
	e.ended = nil
	return err
}

// Await calls ended once, in a goroutine of its own, when the process has ended. On
// error, unix.ESRCH where it has ended already, ended is not called.
func (e *Exits) Await(id Identity, ended func()) error {
	pidfd, err := id.pidfd()
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ended == nil {
		err = os.ErrClosed
	} else if ctlErr := e.raw.Control(func(epoll uintptr) {
		err = unix.EpollCtl(int(epoll), unix.EPOLL_CTL_ADD, pidfd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(pidfd)})
	}); ctlErr != nil {
		err = ctlErr
	}
	if err != nil {
		unix.Close(pidfd)
		return fmt.Errorf("waiting for process %d: %w", id.PID, err)
	}
	e.ended[int32(pidfd)] = ended
	return nil
}

// drain calls ended of the processes that have ended by now.
func (e *Exits) drain() {
	e.mu.Lock()
	defer e.mu.Unlock()
	_ = e.raw.Control(func(epoll uintptr) {
		var events [16]unix.EpollEvent
		for {
			n, err := unix.EpollWait(int(epoll), events[:], 0)
			if err == unix.EINTR {
				continue
			}
			if n <= 0 {
				return
			}
			for _, event := range events[:n] {
				ended := e.ended[event.Fd]
				delete(e.ended, event.Fd)
				// A child that is between fork and exec has a copy, with which a closed
				// pidfd would stay in epoll.
				_ = unix.EpollCtl(int(epoll), unix.EPOLL_CTL_DEL, int(event.Fd), nil)
				unix.Close(int(event.Fd))
				if ended != nil {
					go ended()
				}
			}
		}
	})
}
