// Package scrape serves Prometheus metrics over HTTP, on a loopback address or
// a Unix socket. It owns the listener and its limits. Both daemons call it and own
// what is counted. It never authenticates: every local user may scrape, so no
// secret may be registered.
//
// It answers one request a connection and has one page, so that a device needs neither
// net/http nor the TLS that belongs to it.
package scrape

import (
	"context"
	"io"
	"net"
	"sync"
	"time"

	"callhome/internal/daemon"
	"callhome/internal/ratelimit"

	"github.com/hashicorp/go-hclog"
)

// Limits of the HTTP server. A scrape is one short request and some 20 KiB of
// answer.
const (
	maxConns    = 16
	maxHeader   = 8 << 10
	requestTime = 2 * time.Second // for all of a request
	answerTime  = 10 * time.Second
	endTime     = time.Second // for unfinished scrapes when the daemon ends
	// A connection that is closed with unread bytes is reset, and the peer can lose the
	// answer. So they are read for this long.
	lingerTime  = 500 * time.Millisecond
	lingerBytes = 64 << 10
)

// Serve answers HTTP on l until ctx ends, and closes l. Unfinished scrapes get
// endTime then. page returns the metrics; it may be called by several scrapes at a time.
func Serve(ctx context.Context, l net.Listener, page func() []byte, log hclog.Logger) error {
	s := server{page: page, places: make(chan struct{}, maxConns), open: make(map[net.Conn]bool)}
	warnings := ratelimit.NewWarnings(log)
	closeListener := sync.OnceFunc(func() { l.Close() })
	defer context.AfterFunc(ctx, closeListener)()
	defer closeListener()
	for {
		select {
		case s.places <- struct{}{}:
		case <-ctx.Done():
		}
		c, err := daemon.Accept(l.Accept, func(err error) {
			warnings.Warn("connections cannot be accepted, retrying", "error", err)
		})
		if ctx.Err() != nil {
			if c != nil {
				c.Close()
			}
			s.end()
			return nil
		}
		if err != nil {
			s.end()
			return err
		}
		s.start(c)
	}
}

// Run calls Serve, and logs the start and a failure.
func Run(ctx context.Context, l net.Listener, page func() []byte, log hclog.Logger) {
	log.Info("serving metrics", "address", l.Addr().String())
	if err := Serve(ctx, l, page, log); err != nil {
		log.Error("metrics are no longer served", "error", err)
	}
}

// server has the connections that are being answered.
type server struct {
	page   func() []byte
	places chan struct{} // taken by each connection

	mu    sync.Mutex
	open  map[net.Conn]bool
	ended bool
	all   sync.WaitGroup
}

// start answers one request of c, which it owns.
func (s *server) start(c net.Conn) {
	s.mu.Lock()
	s.open[c] = true
	_ = c.SetDeadline(time.Now().Add(requestTime)) // one that fails is closed
	s.mu.Unlock()
	s.all.Go(func() {
		defer func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			delete(s.open, c)
			c.Close()
			<-s.places
		}()
		s.answer(c)
	})
}

func (s *server) answer(c net.Conn) {
	answer := respond(c, s.page)
	if answer == nil {
		return
	}
	_ = c.SetWriteDeadline(time.Now().Add(answerTime))
	if _, err := c.Write(answer); err != nil {
		return
	}
	half, ok := c.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	s.mu.Lock()
	if !s.ended {
		_ = c.SetReadDeadline(time.Now().Add(lingerTime))
	}
	s.mu.Unlock()
	_, _ = io.CopyN(io.Discard, c, lingerBytes)
}

// end ends all connections: at once those whose request is not complete, the others
// within endTime.
func (s *server) end() {
	s.mu.Lock()
	s.ended = true
	for c := range s.open {
		_ = c.SetReadDeadline(time.Unix(1, 0))
	}
	s.mu.Unlock()
	gone := make(chan struct{})
	go func() {
		s.all.Wait()
		close(gone)
	}()
	select {
	case <-gone:
	case <-time.After(endTime):
		s.mu.Lock()
		defer s.mu.Unlock()
		for c := range s.open {
			c.Close()
		}
	}
}
