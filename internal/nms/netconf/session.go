package netconf

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Options are the client's options of a session. The zero value is valid.
type Options struct {
	// Versions are the framings to offer; empty: both.
	Versions []Framing
	// Capabilities are announced in addition to the base protocol's.
	Capabilities []string
	// Notification is called with each notification, on the goroutine that reads: the
	// next message is read after it returns.
	Notification func(message []byte)
	// Trace, if set, is called with each message after the hellos, and whether it was
	// "sent" or "received". Several goroutines call it.
	Trace func(direction string, message []byte)
	// MaxMessage is the limit of a message, in bytes; 0: the constant MaxMessage.
	MaxMessage int
}

// Session is an established session. Its methods may be called by several goroutines.
type Session struct {
	// ID is the session-id in the server's hello.
	ID string
	// Capabilities are the server's, as it sent them.
	Capabilities []string
	// Hello is the server's hello as it came.
	Hello []byte
	// Framing is the negotiated framing.
	Framing Framing

	conn         io.ReadWriteCloser
	notification func([]byte)
	trace        func(string, []byte)
	ended        chan struct{} // closed at the end of the stream; err has the cause

	writing sync.Mutex // one message at a time

	mu      sync.Mutex // guards the fields that follow
	last    int        // last message-id
	waiting []waiter   // requests without a reply, the oldest first
	err     error
}

type waiter struct {
	id    int
	reply chan *Reply
}

// ErrEnded is the error after the server has closed the stream between two messages.
var ErrEnded = errors.New("the server ended the session")

// maxHello is the limit of a hello, in bytes: thousands of modules fit.
const maxHello = 1 << 20

// Open exchanges hellos and returns the session, which then owns conn. It closes conn
// on an error, and when ctx ends first.
func Open(ctx context.Context, conn io.ReadWriteCloser, o Options) (*Session, error) {
	if len(o.Versions) == 0 {
		o.Versions = []Framing{EndOfMessage, Chunked}
	}
	most := cmp.Or(o.MaxMessage, MaxMessage)
	reader := NewReader(conn)
	reader.Max = min(most, maxHello)
	s := &Session{conn: conn, notification: o.Notification, trace: o.Trace, ended: make(chan struct{})}
	greeted := make(chan error, 1)
	go func() { greeted <- s.greet(reader, o) }()
	select {
	case err := <-greeted:
		if err != nil {
			conn.Close()
			return nil, fmt.Errorf("exchanging hellos: %w", err)
		}
		reader.Max = most
	case <-ctx.Done():
		conn.Close() // which ends greet
		<-greeted
		return nil, fmt.Errorf("exchanging hellos: %w", ctx.Err())
	}
	go s.read(reader)
	return s, nil
}

// greet sends the client's hello while it reads the server's: each end sends its hello
// without waiting for the other's (RFC 6241 section 8.1), and both writes can block.
func (s *Session) greet(reader *Reader, o Options) error {
	sent := make(chan error, 1)
	go func() { sent <- Write(s.conn, EndOfMessage, ourHello(o)) }()
	message, err := reader.Next()
	if err != nil {
		s.conn.Close() // ends the writer
		<-sent
		return fmt.Errorf("reading the server's hello: %w", ended(err))
	}
	h, err := parseHello(message)
	if err == nil {
		_, idErr := strconv.ParseUint(h.SessionID, 10, 32)
		if idErr != nil || h.SessionID == "0" {
			err = fmt.Errorf("session-id %q, expected a number above 0", quoted(h.SessionID))
		}
	}
	if err != nil {
		s.conn.Close()
		<-sent
		return fmt.Errorf("reading the server's hello: %w", err)
	}
	if err := <-sent; err != nil {
		return fmt.Errorf("sending the client's hello: %w", err)
	}
	s.ID, s.Capabilities, s.Hello = h.SessionID, h.Capabilities, message
	for _, f := range []Framing{Chunked, EndOfMessage} {
		if slices.Contains(o.Versions, f) && slices.Contains(h.Capabilities, capabilityBase+string(f)) {
			s.Framing, reader.Framing = f, f
			return nil
		}
	}
	return fmt.Errorf("no common base version: the server offers neither of %v", o.Versions)
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

// read reads messages until the stream ends or fails.
func (s *Session) read(reader *Reader) {
	err := s.dispatch(reader)
	s.mu.Lock()
	s.err = err
	s.mu.Unlock()
	close(s.ended)
	s.conn.Close()
}

// dispatch passes each message to its receiver.
func (s *Session) dispatch(reader *Reader) error {
	for {
		message, err := reader.Next()
		if err != nil {
			return ended(err)
		}
		if s.trace != nil {
			s.trace("received", message)
		}
		start, err := newDocument(message).start()
		if err != nil {
			// If it is a reply, the session can continue.
			if !bytes.Contains(message, []byte(kindReply)) || !s.deliverUnread(&Reply{Raw: message, Malformed: err}) {
				return err
			}
			continue
		}
		switch kinds[start.Name] {
		case kindReply:
			id, given := attribute(start, "message-id")
			if err := s.deliver(id, given, parseReply(message)); err != nil {
				return err
			}
		case kindNotification:
			if s.notification != nil {
				s.notification(message)
			}
		default:
			return unexpected(start.Name, "a reply or a notification")
		}
	}
}

// deliver passes a reply to the Do that waits for it. A reply without a message-id is
// for the oldest request: a server replies so to a request that it could not parse (RFC
// 6241 section 4.1). A reply to a cancelled request is dropped.
func (s *Session) deliver(id string, given bool, reply *Reply) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := strconv.Atoi(id)
	if given && (err != nil || n < 1 || n > s.last) {
		return fmt.Errorf("a reply with message-id %q, which no request has", quoted(id))
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

// deliverUnread passes a message whose first element cannot be read to the oldest
// request, and reports whether there is one.
func (s *Session) deliverUnread(reply *Reply) bool {
	s.mu.Lock()
	waits := len(s.waiting) > 0
	s.mu.Unlock()
	return waits && s.deliver("", false, reply) == nil
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

// Do sends one operation, the content of <rpc> or an <rpc>, and waits for its reply. A reply with
// <rpc-error> is not an error here; one that is not XML or exceeds the limits of a
// document is in Reply.Malformed. When ctx ends, the session stays usable, and a late
// reply is dropped.
func (s *Session) Do(ctx context.Context, operation []byte) (*Reply, error) {
	w := waiter{reply: make(chan *Reply, 1)}
	s.mu.Lock()
	s.last++
	w.id = s.last
	s.waiting = append(s.waiting, w)
	s.mu.Unlock()
	defer s.forget(w.id)

	message, err := request(operation, w.id)
	if err != nil {
		return nil, fmt.Errorf("checking the request: %w", err)
	}
	if s.trace != nil {
		s.trace("sent", message)
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

// send writes one message. When ctx ends first, the stream may have a part of the
// message, so send closes it, which ends the session.
func (s *Session) send(ctx context.Context, message []byte) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	stop := context.AfterFunc(ctx, func() { s.conn.Close() })
	err := Write(s.conn, s.Framing, message)
	if !stop() && ctx.Err() != nil {
		return fmt.Errorf("sending the request: %w", ctx.Err())
	}
	switch {
	case errors.Is(err, io.EOF): // the error of a closed SSH channel
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

// Ended returns a channel that is closed when the session has ended; Err has the cause.
func (s *Session) Ended() <-chan struct{} { return s.ended }

// Err returns why the session has ended, ErrEnded if the server closed it, and nil
// before the end.
func (s *Session) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Close closes the stream at once. For an orderly end send <close-session/> first.
func (s *Session) Close() error {
	err := s.conn.Close()
	<-s.ended
	return err
}
