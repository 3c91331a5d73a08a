package netconf

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Options are what a client brings to a session. The zero value is in order.
type Options struct {
	// Versions are the framings to offer; empty: both.
	Versions []Framing
	// Capabilities to announce beside the base protocol's.
	Capabilities []string
	// Notification is called with each notification as it came. It runs on the
	// goroutine that reads, so while it does not return nothing else is read.
	Notification func(message []byte)
	// MaxMessage is the longest message taken, in bytes; 0: MaxMessage.
	MaxMessage int
}

// Session is an established session. Its methods are for any goroutine.
type Session struct {
	// ID is the session-id that the server gave.
	ID string
	// Capabilities are the server's, as it sent them.
	Capabilities []string
	// Hello is the server's hello as it came.
	Hello []byte
	// Framing is the one in use.
	Framing Framing

	conn         io.ReadWriteCloser
	notification func([]byte)
	ended        chan struct{} // closed when nothing more is read; err says why

	writing sync.Mutex // one message at a time

	mu      sync.Mutex // guards what follows
	last    int        // message-id that was given last
	waiting []waiter   // in the order in which they were asked
	err     error
}

type waiter struct {
	id    int
	reply chan *Reply
}

// ErrEnded says that the server closed the stream between two messages.
var ErrEnded = errors.New("the server ended the session")

// Open exchanges hellos and returns the session, which owns conn then. With an
// error, or when ctx ends first, conn is closed.
func Open(ctx context.Context, conn io.ReadWriteCloser, o Options) (*Session, error) {
	if len(o.Versions) == 0 {
		o.Versions = []Framing{EndOfMessage, Chunked}
	}
	reader := NewReader(conn)
	if o.MaxMessage > 0 {
		reader.Max = o.MaxMessage
	}
	s := &Session{conn: conn, notification: o.Notification, ended: make(chan struct{})}
	greeted := make(chan error, 1)
	go func() { greeted <- s.greet(reader, o) }()
	select {
	case err := <-greeted:
		if err != nil {
			conn.Close()
			return nil, fmt.Errorf("exchanging hellos: %w", err)
		}
	case <-ctx.Done():
		conn.Close() // which ends greet
		<-greeted
		return nil, fmt.Errorf("exchanging hellos: %w", ctx.Err())
	}
	go s.read(reader)
	return s, nil
}

// greet sends our hello while it waits for the server's, as both ends may wait
// for room to write (RFC 6241 section 8.1: each sends without waiting).
func (s *Session) greet(reader *Reader, o Options) error {
	sent := make(chan error, 1)
	go func() { sent <- Write(s.conn, EndOfMessage, ourHello(o)) }()
	message, err := reader.Next()
	if err != nil {
		s.conn.Close() // so that the writer ends
		<-sent
		return fmt.Errorf("reading the server's: %w", ended(err))
	}
	h, err := parseHello(message)
	if err == nil {
		_, idErr := strconv.ParseUint(h.SessionID, 10, 32)
		if idErr != nil || h.SessionID == "0" {
			err = fmt.Errorf("it has no session-id but %q", quoted(h.SessionID))
		}
	}
	if err != nil {
		s.conn.Close()
		<-sent
		return fmt.Errorf("reading the server's: %w", err)
	}
	if err := <-sent; err != nil {
		return fmt.Errorf("sending ours: %w", err)
	}
	s.ID, s.Capabilities, s.Hello = h.SessionID, h.Capabilities, message
	for _, f := range []Framing{Chunked, EndOfMessage} {
		if slices.Contains(o.Versions, f) && slices.Contains(h.Capabilities, capabilityBase+string(f)) {
			s.Framing, reader.Framing = f, f
			return nil
		}
	}
	return fmt.Errorf("no base version in common: the server has none of %v", o.Versions)
}

func ourHello(o Options) []byte {
	var b strings.Builder
	b.WriteString(`<?xml version="1.0" encoding="UTF-8"?>` + "\n<hello xmlns=\"" + baseNS + "\"><capabilities>")
	for _, v := range o.Versions {
		b.WriteString("<capability>" + capabilityBase + string(v) + "</capability>")
	}
	for _, c := range o.Capabilities {
		b.WriteString("<capability>" + Escape(c) + "</capability>")
	}
	b.WriteString("</capabilities></hello>")
	return []byte(b.String())
}

// read takes messages until the stream ends or breaks.
func (s *Session) read(reader *Reader) {
	err := s.take(reader)
	s.mu.Lock()
	s.err = err
	s.mu.Unlock()
	close(s.ended)
	s.conn.Close()
}

func (s *Session) take(reader *Reader) error {
	for {
		message, err := reader.Next()
		if err != nil {
			return ended(err)
		}
		_, start, err := root(message)
		if err != nil {
			return err
		}
		switch kinds[start.Name] {
		case kindReply:
			id, given := attribute(start, "message-id")
			reply, err := parseReply(message)
			if err != nil {
				return err
			}
			if err := s.deliver(id, given, reply); err != nil {
				return err
			}
		case kindNotification:
			if s.notification != nil {
				s.notification(message)
			}
		default:
			return fmt.Errorf("<%s> where a reply or a notification should be", quoted(start.Name.Local))
		}
	}
}

// deliver hands a reply to whoever waits for it. One without a message-id is
// for the oldest request: a server answers so what it could not read (RFC 6241
// section 4.1). One for a request that was given up is dropped.
func (s *Session) deliver(id string, given bool, reply *Reply) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := strconv.Atoi(id)
	if given && (err != nil || n < 1 || n > s.last) {
		return fmt.Errorf("a reply to message %q, which was not sent", quoted(id))
	}
	for i, w := range s.waiting {
		if !given || w.id == n {
			s.waiting = slices.Delete(s.waiting, i, i+1)
			w.reply <- reply
			return nil
		}
	}
	return nil
}

func ended(err error) error {
	if errors.Is(err, io.EOF) {
		return ErrEnded
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the server ended the session within a message")
	}
	return err
}

// Do sends one operation, the XML that stands inside <rpc>, and waits for its
// reply. A reply that holds <rpc-error> is no error here. When ctx ends the
// session stays usable, and the reply is dropped if it still comes.
func (s *Session) Do(ctx context.Context, operation []byte) (*Reply, error) {
	w := waiter{reply: make(chan *Reply, 1)}
	s.mu.Lock()
	s.last++
	w.id = s.last
	s.waiting = append(s.waiting, w)
	s.mu.Unlock()
	defer s.forget(w.id)

	message := fmt.Appendf(nil, `<rpc xmlns="%s" message-id="%d">`, baseNS, w.id)
	message = append(append(message, operation...), "</rpc>"...)
	if err := wellFormed(message); err != nil {
		return nil, fmt.Errorf("the request is not sent: %w", err)
	}
	if err := s.send(ctx, message); err != nil {
		return nil, err
	}
	select {
	case reply := <-w.reply:
		return reply, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for the reply: %w", ctx.Err())
	case <-s.ended:
	}
	select {
	case reply := <-w.reply: // it was the last message
		return reply, nil
	default:
		return nil, s.Err()
	}
}

// send writes one message. When ctx ends before it is written the stream holds
// a part of it at most, and the session with it is over.
func (s *Session) send(ctx context.Context, message []byte) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	stop := context.AfterFunc(ctx, func() { s.conn.Close() })
	err := Write(s.conn, s.Framing, message)
	if !stop() && ctx.Err() != nil {
		return fmt.Errorf("sending the request: %w", ctx.Err())
	}
	switch {
	case errors.Is(err, io.EOF): // what an SSH channel says that the other end closed
		return ErrEnded
	case err != nil:
		return fmt.Errorf("sending the request: %w", err)
	}
	return nil
}

func (s *Session) forget(id int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting = slices.DeleteFunc(s.waiting, func(w waiter) bool { return w.id == id })
}

// Ended is closed when the session is over; Err then says why.
func (s *Session) Ended() <-chan struct{} { return s.ended }

// Err returns why the session is over, ErrEnded where the server closed it, and
// nil while it lasts.
func (s *Session) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Close closes the stream without asking the server; <close-session/> is the
// polite way.
func (s *Session) Close() error {
	err := s.conn.Close()
	<-s.ended
	return err
}
