package web

import (
	"context"
	"net"
	"net/http"
	"slices"
	"sync"
)

// conns is a listener that bounds the open connections. Any local user can open
// connections to a loopback address: when all are taken, the oldest on which no user was
// authenticated is closed in favour of a new one. Oldest first: a browser sends its
// request at once, so it is authenticated before as many others have come.
type conns struct {
	net.Listener
	places chan struct{} // has a value for each connection
	closed chan struct{}
	once   sync.Once

	mu              sync.Mutex
	unauthenticated []*conn // no user was authenticated on these; the oldest first; guarded by mu
}

// conn is a connection of conns.
type conn struct {
	net.Conn
	of   *conns
	once sync.Once
}

func newConns(l net.Listener, most int) *conns {
	return &conns{Listener: l, places: make(chan struct{}, most), closed: make(chan struct{})}
}

// Accept implements net.Listener.
func (l *conns) Accept() (net.Conn, error) {
	raw, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	select {
	case l.places <- struct{}{}:
	default:
		l.evict()
		select { // only users' connections are left: wait
		case l.places <- struct{}{}:
		case <-l.closed:
			raw.Close()
			return nil, net.ErrClosed
		}
	}
	c := &conn{Conn: raw, of: l}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unauthenticated = append(l.unauthenticated, c)
	return c, nil
}

// evict closes the oldest connection without an authenticated user, if there is one.
func (l *conns) evict() {
	l.mu.Lock()
	var oldest *conn
	if len(l.unauthenticated) > 0 {
		oldest = l.unauthenticated[0]
	}
	l.mu.Unlock()
	if oldest != nil {
		oldest.Close()
	}
}

// Close implements net.Listener.
func (l *conns) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// Close implements net.Conn.
func (c *conn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() {
		c.retain()
		<-c.of.places
	})
	return err
}

// retain takes the connection off those that can be evicted.
func (c *conn) retain() {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	if i := slices.Index(c.of.unauthenticated, c); i >= 0 {
		c.of.unauthenticated = slices.Delete(c.of.unauthenticated, i, i+1)
	}
}

type connKey struct{}

// withConn lets requests find their connection.
func withConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

// retainConn keeps the connection of an authenticated user's request from being evicted.
func retainConn(r *http.Request) {
	if c, ok := r.Context().Value(connKey{}).(*conn); ok {
		c.retain()
	}
}
