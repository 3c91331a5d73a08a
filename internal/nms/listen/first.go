package listen

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"time"
)

// atOnce is how many calls are tried at a time. One more evicts the oldest: so a
// peer that opens many silent connections does not block a device.
const atOnce = 512

// ErrNone means that no trial succeeded within the time limit.
var ErrNone = errors.New("no device called in time")

// Trial is what First does with each call home. Try owns the connection: it returns
// a value that owns it, or closes it and returns an error; when its context ends,
// after Limit at the latest, Try must return. First calls Failed with each error,
// from one goroutine; false ends First.
type Trial[T io.Closer] struct {
	Try    func(ctx context.Context, conn *net.TCPConn) (T, error)
	Limit  time.Duration
	Failed func(from netip.AddrPort, err error) (goOn bool)
}

// First tries calls, many at a time, until one succeeds, Failed returns false or ctx
// ends. It then closes those that are still being tried.
func First[T io.Closer](ctx context.Context, l *Listener, trial Trial[T]) (T, error) {
	type outcome struct {
		id   int
		from netip.AddrPort
		made T
		err  error
	}
	type under struct {
		id     int
		cancel context.CancelFunc
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	calls, outcomes := make(chan *net.TCPConn), make(chan outcome)
	failed := make(chan error, 1)
	go func() { failed <- l.acceptTo(ctx, calls) }()
	var none T
	var trying []under
	for id := 0; ; id++ {
		select {
		case err := <-failed:
			if errors.Is(err, context.DeadlineExceeded) {
				err = ErrNone
			}
			return none, err
		case conn := <-calls:
			if len(trying) == atOnce {
				trying[0].cancel()
				trying = trying[1:]
			}
			one, stop := context.WithTimeout(ctx, trial.Limit)
			trying = append(trying, under{id, stop})
			go func() {
				defer stop()
				made, err := trial.Try(one, conn)
				select {
				case outcomes <- outcome{id, addrPort(conn.RemoteAddr()), made, err}:
				case <-ctx.Done():
					if err == nil {
						made.Close()
					}
				}
			}()
		case o := <-outcomes:
			trying = slices.DeleteFunc(trying, func(u under) bool { return u.id == o.id })
			if o.err == nil {
				return o.made, nil
			}
			if !trial.Failed(o.from, o.err) {
				return none, o.err
			}
		}
	}
}

// acceptTo sends the connections that l accepts to calls, until accepting fails or
// ctx ends. The receiver owns the connection.
func (l *Listener) acceptTo(ctx context.Context, calls chan<- *net.TCPConn) error {
	for {
		conn, err := l.Accept(ctx)
		if err != nil {
			return err
		}
		select {
		case calls <- conn:
		case <-ctx.Done():
			conn.Close()
		}
	}
}
