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

// atOnce is how many calls are tried at a time. With more the oldest is given
// up: whoever opens many connections and stays silent then keeps nobody out.
const atOnce = 512

// ErrNone says that no call came to anything before the time was over.
var ErrNone = errors.New("no device called in time")

// Trial is what First does with each call. Try owns the connection: it returns
// what it made of it, or an error after closing it; limit bounds it, and when
// its context ends it has to return. Failed is told of each error, from one
// goroutine, and returns whether to go on waiting.
type Trial[T io.Closer] struct {
	Try    func(ctx context.Context, conn *net.TCPConn) (T, error)
	Limit  time.Duration
	Failed func(from netip.AddrPort, err error) (goOn bool)
}

// First tries calls, many at a time, until one succeeds, Failed ends it or ctx
// does. Those that are still being tried then are closed.
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

// acceptTo gives away what l accepts until it fails or ctx ends. Who receives a
// connection owns it.
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
