package console

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
	"unicode"

	"callhome/internal/nms/netconf"
	"callhome/internal/sysexits"
)

// Style is how XML is shown.
type Style string

// The styles, named as netconf-console's.
const (
	Pretty Style = "pretty" // an element a line
	Plain  Style = "plain"  // as it came
	Raw    Style = "raw"    // as it came, the server's hello too
)

// ParseStyle reads a style; "all" is pretty here, which shows every reply.
func ParseStyle(s string) (Style, error) {
	switch style := Style(s); style {
	case Pretty, Plain, Raw:
		return style, nil
	case "all":
		return Pretty, nil
	}
	return "", usage(fmt.Errorf("%q is no style of pretty, plain and raw", s))
}

// Console runs operations over one session and shows what comes of them.
type Console struct {
	// Out gets the XML.
	Out io.Writer
	// IsTerminal has control characters replaced in what is shown.
	IsTerminal bool
	Style      Style
	// Timeout bounds each reply, and how long notifications are printed; 0: not.
	Timeout time.Duration
	// Warn gets what a reply warns of, a line each.
	Warn func(line string)

	mu       sync.Mutex // guards what follows, and Out
	err      error      // of writing
	complete chan struct{}
}

// New returns a Console.
func New(out io.Writer, style Style) *Console {
	return &Console{Out: out, Style: style, Warn: func(string) {}, complete: make(chan struct{})}
}

// Notification shows one as it came; it is for netconf.Options.
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

// isComplete reports whether a notification says that it was the last (RFC
// 5277 section 3.3.1).
func isComplete(message []byte) bool {
	var n struct {
		Complete *struct{} `xml:"urn:ietf:params:xml:ns:netmod:notification notificationComplete"`
	}
	return xml.Unmarshal(message, &n) == nil && n.Complete != nil
}

// Run does the requests one after the other, up to the first that fails. With a
// subscription among them it then shows notifications until ctx or the timeout
// ends or the server says that there are no more. The end of ctx is an error
// only where something was left to do.
func (c *Console) Run(ctx context.Context, s *netconf.Session, requests []*Request) error {
	done, err := c.doAll(ctx, s, requests)
	if err != nil {
		return err
	}
	if done["create-subscription"] && !done["close-session"] {
		if err := c.follow(ctx, s); err != nil {
			return err
		}
	}
	if !done["close-session"] {
		c.close(s)
	}
	return c.writeError()
}

// doAll does the requests up to the first that fails and returns their names.
func (c *Console) doAll(ctx context.Context, s *netconf.Session, requests []*Request) (map[string]bool, error) {
	if c.Style == Raw {
		c.show(s.Hello)
	}
	done := make(map[string]bool)
	for _, r := range requests {
		if err := c.do(ctx, s, r); err != nil {
			return nil, err
		}
		done[r.Operation.Name] = true
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

// politeness is how long the server may take to agree to the session's end.
const politeness = 5 * time.Second

// close ends the session as RFC 6241 section 7.8 has it. There is nothing left
// that could fail.
func (c *Console) close(s *netconf.Session) {
	ctx, cancel := context.WithTimeout(context.Background(), politeness)
	defer cancel()
	_, _ = s.Do(ctx, []byte("<close-session/>"))
}

// do sends one request and shows the reply. An <rpc-error> is an error.
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
		return sysexits.New(sysexits.Unavailable, "--timeout allows for more", fmt.Errorf("%s: the device did not answer in time", name))
	case errors.Is(err, context.Canceled):
		return sysexits.New(sysexits.Unavailable, "", fmt.Errorf("%s: interrupted", name))
	case err != nil:
		return fmt.Errorf("%s: %w", name, broken(err))
	}
	if text, ok := schema(reply.Raw); ok && name == "get-schema" && c.Style == Pretty {
		c.write([]byte(text))
	} else {
		c.show(reply.Raw)
	}
	return errors.Join(c.judge(name, reply), c.writeError())
}

// judge makes an error of a reply's errors, one a line.
func (c *Console) judge(name string, reply *netconf.Reply) error {
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

// broken is the end of a session that was not asked for. What carries the
// connection may know why already.
func broken(err error) error {
	var known *sysexits.Error
	switch {
	case errors.As(err, &known):
		return err
	case errors.Is(err, netconf.ErrEnded):
		return sysexits.New(sysexits.Unavailable, "its log may say why", err)
	}
	return sysexits.New(sysexits.Protocol, "", err)
}

// schema is the text of get-schema's reply.
func schema(reply []byte) (string, bool) {
	var r struct {
		Data *struct {
			Text string `xml:",chardata"`
		} `xml:"urn:ietf:params:xml:ns:yang:ietf-netconf-monitoring data"`
	}
	if xml.Unmarshal(reply, &r) != nil || r.Data == nil {
		return "", false
	}
	return strings.TrimSpace(r.Data.Text) + "\n", true
}

// show prints a message in the style.
func (c *Console) show(message []byte) {
	if c.Style == Pretty {
		message, _ = netconf.Pretty(message) // what is no XML is shown as it is
	}
	if len(message) == 0 || message[len(message)-1] != '\n' {
		message = append(message[:len(message):len(message)], '\n')
	}
	c.write(message)
}

func (c *Console) write(text []byte) {
	if c.IsTerminal {
		text = []byte(Tame(string(text)))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, err := c.Out.Write(text); err != nil && c.err == nil {
		c.err = fmt.Errorf("printing: %w", err)
	}
}

func (c *Console) writeError() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// steering is what turns the direction of writing or begins a line without
// being a control character: the marks and overrides of Unicode's bidirectional
// algorithm (UAX 9), and the separators of lines and paragraphs.
var steering = &unicode.RangeTable{R16: []unicode.Range16{
	{Lo: 0x061c, Hi: 0x061c, Stride: 1},
	{Lo: 0x200e, Hi: 0x200f, Stride: 1},
	{Lo: 0x2028, Hi: 0x202e, Stride: 1},
	{Lo: 0x2066, Hi: 0x2069, Stride: 1},
}}

// Tame replaces what could steer a terminal: control characters of both ranges
// but newline and tab, and what turns the direction of writing or begins a line.
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

// Printable makes the server's words one line of bounded length.
func Printable(s string) string {
	const most = 1000
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "..."
	}
	return strings.NewReplacer("\n", " ", "\t", " ").Replace(Tame(s))
}
