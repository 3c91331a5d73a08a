package process

import (
	"fmt"
	"os"
	"sync"

	"callhome/internal/poller"

	"golang.org/x/sys/unix"
)

// Exits waits for the ends of any number of processes with one goroutine: each
// goroutine that waited by itself would keep a stack, and each wait4(2) a thread.
type Exits struct {
	poller *poller.Poller

	mu    sync.Mutex
	ended map[int]func() // by pidfd, which Exits owns; guarded by mu
}

// NewExits returns an Exits that waits for no process yet. Its owner closes it.
func NewExits() (*Exits, error) {
	p, err := poller.New()
	if err != nil {
		return nil, fmt.Errorf("preparing to wait for processes: %w", err)
	}
	e := &Exits{poller: p, ended: make(map[int]func())}
	go p.Wait(e.exited)
	return e, nil
}

// Close ends all waits. ended is called for no process after it.
func (e *Exits) Close() error {
	err := e.poller.Close()
	e.mu.Lock()
	defer e.mu.Unlock()
	for fd := range e.ended {
		unix.Close(fd)
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
	} else {
		err = e.poller.Add(pidfd)
	}
	if err != nil {
		unix.Close(pidfd)
		return fmt.Errorf("waiting for process %d: %w", id.PID, err)
	}
	e.ended[pidfd] = ended
	return nil
}

// exited calls ended of the process of a pidfd.
func (e *Exits) exited(pidfd int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	ended := e.ended[pidfd]
	if ended == nil {
		return // closed meanwhile
	}
	delete(e.ended, pidfd)
	_ = e.poller.Remove(pidfd)
	unix.Close(pidfd)
	go ended()
}
