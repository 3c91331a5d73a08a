// Package poller waits for many descriptors with one goroutine, where one of each would
// keep a stack of several KiB and a call that blocks a thread. Packages device/process
// and nms/devsock use it. It owns its epoll instance, and no descriptor that it waits for.
package poller

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Poller is an epoll instance. Its methods may be called by several goroutines.
type Poller struct {
	file *os.File
	raw  syscall.RawConn
}

// New returns a Poller that waits for nothing yet. Its owner closes it.
func New() (*Poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	// A descriptor that does not block gets into the runtime's poller: no thread waits.
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	p := &Poller{file: os.NewFile(uintptr(fd), "epoll")}
	if p.raw, err = p.file.SyscallConn(); err != nil {
		p.file.Close()
		return nil, err
	}
	return p, nil
}

// Close ends Wait and fails later calls. ready may be called until Wait has returned.
func (p *Poller) Close() error { return p.file.Close() }

// Add has Wait report fd while it can be read. The caller keeps it.
func (p *Poller) Add(fd int) error { return p.control(unix.EPOLL_CTL_ADD, fd) }

// Remove takes fd out. It must come before a close of fd that a child between fork and
// exec may have a copy of: the copy would stay in epoll.
func (p *Poller) Remove(fd int) error { return p.control(unix.EPOLL_CTL_DEL, fd) }

func (p *Poller) control(op, fd int) error {
	var err error
	if closed := p.raw.Control(func(epoll uintptr) {
		err = os.NewSyscallError("epoll_ctl", unix.EpollCtl(int(epoll), op, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}))
	}); closed != nil {
		return fmt.Errorf("waiting for a descriptor: %w", closed)
	}
	return err
}

// Wait calls ready with each descriptor that can be read, again and again until it is
// read or removed, and returns after Close. A descriptor may have been removed by another
// goroutine since.
func (p *Poller) Wait(ready func(fd int)) {
	_ = p.raw.Read(func(epoll uintptr) bool {
		var events [64]unix.EpollEvent
		for {
			n, err := unix.EpollWait(int(epoll), events[:], 0)
			if err == unix.EINTR {
				continue
			}
			if n <= 0 {
				return false // wait for more
			}
			for _, e := range events[:n] {
				ready(int(e.Fd))
			}
		}
	})
}
