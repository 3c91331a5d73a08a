package console

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"callhome/internal/nms/netconf"
	"callhome/internal/sysexits"
)

// Style is how XML is printed.
type Style string

// The styles, named as netconf-console's.
const (
	Pretty Style = "pretty" // one element per line
	Plain  Style = "plain"  // as it came
	Raw    Style = "raw"    // as it came, with the server's hello
)

// ParseStyle parses a style. netconf-console's "all" is pretty here, which prints every
// reply.
func ParseStyle(s string) (Style, error) {
	switch style := Style(s); style {
	case Pretty, Plain, Raw:
		return style, nil
	case "all":
		return Pretty, nil
	}
	return "", usage(fmt.Errorf("style %q: expected pretty, plain or raw", s))
}

// Console runs operations in one session and prints the replies.
type Console struct {
	// Out gets the XML.
	Out io.Writer
	// IsTerminal replaces control characters in the output.
	IsTerminal bool
	Style      Style
	// Timeout bounds the wait for each reply, and how long notifications are printed;
	// 0: no limit.
	Timeout time.Duration
	// PrintHelp prints Help.
	PrintHelp func(io.Writer)
	// Iterations is how often the requests are sent; 0 is 1.
	Iterations int
	// Warn gets the warnings in replies, one line each.
	Warn func(line string)

	mu       sync.Mutex // guards the fields that follow, and Out
	err      error      // of writing
	complete chan struct{}
}

// New returns a Console.
func New(out io.Writer, style Style) *Console {
	return &Console{Out: out, Style: style, PrintHelp: func(io.Writer) {}, Warn: func(string) {}, complete: make(chan struct{})}
}

// Notification prints a notification; it is for netconf.Options.
func (c *Console) Notification(message []byte) {
	c.show(message)
	if isComplete(message) {
		c.mu.Lock()
		defer c.mu.Unlock()
		select {
		case <-c.complete:
		default:
			close(c.complete)
		}
	}
}

// lastNotifications are those that no other notification of the subscription follows
// (RFC 5277 section 3.3.1, RFC 8639 section 2.7).
var lastNotifications = []xml.Name{
	{Space: "urn:ietf:params:xml:ns:netmod:notification", Local: "notificationComplete"},
	{Space: subscribedNS, Local: "subscription-completed"},
	{Space: subscribedNS, Local: "subscription-terminated"},
}

// isComplete reports whether a notification is the last one.
func isComplete(message []byte) bool {
	return slices.ContainsFunc(lastNotifications, func(n xml.Name) bool {
		if !bytes.Contains(message, []byte(n.Local)) {
			return false
		}
		_, is := netconf.Text(message, n)
		return is
	})
}

// Run runs the requests one after the other, up to the first that fails. If one is a
// subscription, it then prints notifications until ctx or the timeout ends or the
// server sends the last one. The end of ctx is an error only while requests are left.
func (c *Console) Run(ctx context.Context, s *netconf.Session, requests []*Request) error {
	done, err := c.doAll(ctx, s, requests)
	if err != nil {
		return err
	}
	if (done["create-subscription"] || done["establish-subscription"]) && !done["close-session"] {
		if err := c.follow(ctx, s); err != nil {
			return err
		}
	}
	if !done["close-session"] {
		c.close(s)
	}
	return c.writeError()
}

// doAll runs the requests up to the first that fails, and returns their names.
func (c *Console) doAll(ctx context.Context, s *netconf.Session, requests []*Request) (map[string]bool, error) {
	if c.Style == Raw {
		c.show(s.Hello)
	}
	done := make(map[string]bool)
	for range max(c.Iterations, 1) {
		for _, r := range requests {
			if err := c.do(ctx, s, r); err != nil {
				return nil, err
			}
			done[r.name()] = true
		}
	}
	return done, nil
}

func (c *Console) follow(ctx context.Context, s *netconf.Session) error {
	if c.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.Timeout)
		defer cancel()
	}
	select {
	case <-ctx.Done():
		return nil
	case <-c.complete:
		return nil
	case <-s.Ended():
		return broken(s.Err())
	}
}

// closeTime bounds the wait for the reply to <close-session>.
const closeTime = 5 * time.Second

// close ends the session with <close-session> (RFC 6241 section 7.8). It ignores
// errors: all requests are done.
func (c *Console) close(s *netconf.Session) {
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	_, _ = s.Do(ctx, []byte("<close-session/>"))
}

// do sends one request and prints the reply. An <rpc-error> is an error.
func (c *Console) do(ctx context.Context, s *netconf.Session, r *Request) error {
	if r.Operation.Name == "hello" {
		if c.Style != Raw {
			c.show(s.Hello)
		}
		return c.writeError()
	}
	return c.send(ctx, s, r.Operation.Name, r.xml)
}

func (c *Console) send(ctx context.Context, s *netconf.Session, name, operation string) error {
	if c.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.Timeout)
		defer cancel()
	}
	reply, err := s.Do(ctx, []byte(operation))
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return sysexits.New(sysexits.Unavailable, "allow more time with --timeout", fmt.Errorf("%s: the device did not answer in time", name))
	case errors.Is(err, context.Canceled):
		return sysexits.New(sysexits.Unavailable, "", fmt.Errorf("%s: interrupted", name))
	case err != nil:
		return fmt.Errorf("%s: %w", name, broken(err))
	}
	if text, ok := schema(reply.Raw); ok && name == "get-schema" && c.Style == Pretty {
		c.write(text)
	} else {
		c.show(reply.Raw)
	}
	if reply.Malformed != nil {
		return errors.Join(sysexits.New(sysexits.Protocol, "see what came with --style raw", fmt.Errorf("%s: reading the reply: %w", name, reply.Malformed)), c.writeError())
	}
	return errors.Join(c.replyError(name, reply), c.writeError())
}

// replyError returns a reply's errors as one error, and reports its warnings.
func (c *Console) replyError(name string, reply *netconf.Reply) error {
	for _, e := range reply.Errors {
		if e.IsWarning() {
			c.Warn(name + ": warning: " + Printable(e.Error()))
		}
	}
	var lines []string
	for _, e := range reply.Failed() {
		lines = append(lines, Printable(e.Error()))
	}
	if len(lines) == 0 {
		return nil
	}
	return sysexits.New(sysexits.DataErr, "", fmt.Errorf("%s: the device answered %s", name, strings.Join(lines, "; ")))
}

// broken returns the error for a session that ended on its own. The connection's own
// error has an exit status and hint already.
func broken(err error) error {
	var known *sysexits.Error
	switch {
	case errors.As(err, &known):
		return err
	case errors.Is(err, netconf.ErrEnded):
		return sysexits.New(sysexits.Unavailable, "look into the log of the device", err)
	}
	return sysexits.New(sysexits.Protocol, "", err)
}

// schema returns the YANG text in the reply to get-schema.
func schema(reply []byte) (string, bool) {
	text, ok := netconf.Text(reply, xml.Name{Space: "urn:ietf:params:xml:ns:yang:ietf-netconf-monitoring", Local: "data"})
	return strings.TrimSpace(text) + "\n", ok
}

// show prints a message in the style.
func (c *Console) show(message []byte) {
	c.print(func(w io.Writer) {
		if c.Style == Pretty {
			_ = netconf.Pretty(w, message) // what it cannot format it copies
			return
		}
		_, _ = w.Write(message)
		if !bytes.HasSuffix(message, []byte("\n")) {
			_, _ = io.WriteString(w, "\n")
		}
	})
}

func (c *Console) write(text string) {
	c.print(func(w io.Writer) { _, _ = io.WriteString(w, text) })
}

// print prints one text, which no other text interrupts, and keeps Out's first error.
func (c *Console) print(write func(io.Writer)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := &firstError{w: c.Out}
	if c.IsTerminal {
		write(&safeWriter{w: out})
	} else {
		write(out)
	}
	if out.err != nil && c.err == nil {
		c.err = fmt.Errorf("printing: %w", out.err)
	}
}

// firstError keeps the first error of w, and writes nothing after it.
type firstError struct {
	w   io.Writer
	err error
}

func (o *firstError) Write(p []byte) (int, error) {
	if o.err == nil {
		_, o.err = o.w.Write(p)
	}
	return len(p), o.err
}

// safeWriter makes text safe for a terminal. A character may be split over two writes.
type safeWriter struct {
	w    io.Writer
	rest []byte // the begin of a character
}

func (t *safeWriter) Write(p []byte) (int, error) {
	text := append(t.rest, p...)
	whole := len(text)
	for i := 1; i < utf8.UTFMax && i <= len(text); i++ {
		if last := text[len(text)-i:]; utf8.RuneStart(last[0]) {
			if !utf8.FullRune(last) {
				whole -= i
			}
			break
		}
	}
	t.rest = slices.Clone(text[whole:])
	_, err := io.WriteString(t.w, Tame(string(text[:whole])))
	return len(p), err
}

func (c *Console) writeError() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// steering are the characters that change the direction of text or begin a line, and
// are not control characters: the marks and overrides of Unicode's bidirectional
// algorithm (UAX 9), and the separators of lines and paragraphs.
var steering = &unicode.RangeTable{R16: []unicode.Range16{
	{Lo: 0x061c, Hi: 0x061c, Stride: 1},
	{Lo: 0x200e, Hi: 0x200f, Stride: 1},
	{Lo: 0x2028, Hi: 0x202e, Stride: 1},
	{Lo: 0x2066, Hi: 0x2069, Stride: 1},
}}

// Tame replaces the characters that control a terminal: control characters of both
// ranges except newline and tab, and those of steering. Package printable does not do
// for XML, where lines must stay lines and text may be in any language.
func Tame(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return r
		case r == '\r':
			return -1
		case unicode.IsControl(r), unicode.Is(steering, r):
			return '\ufffd'
		}
		return r
	}, s)
}

// Printable returns s as one line of bounded length. It is for messages to the user.
// printable.Line would replace all letters that are not ASCII, and a server's
// error-message may be in any language; printable.Quoted would escape the quotes and
// backslashes of values that the message has quoted already.
func Printable(s string) string {
	const most = 1000
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "..."
	}
	return strings.NewReplacer("\n", " ", "\t", " ").Replace(Tame(s))
}
