package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"net/url"
	"os"
	"os/signal"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"callhome/internal/cmdline"
	"callhome/internal/daemon"
	"callhome/internal/logging"
	"callhome/internal/nms/control"
	"callhome/internal/nms/nmsproto"
	"callhome/internal/nms/web"
	"callhome/internal/ratelimit"
	"callhome/internal/rpc"
	"callhome/internal/sysexits"

	"github.com/hashicorp/go-hclog"
	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"
)

func webCommand() *cli.Command {
	return &cli.Command{Name: "web", Usage: "serve a page of the devices to browsers", Action: serveWeb, Flags: slices.Concat([]cli.Flag{
		socketFlag(),
		&cli.StringFlag{Name: "listen", Usage: "listen on `ADDRESS`, a loopback address with or without a port, or unix:PATH (default: one of 127.0.0.0/8)"},
		&cli.StringFlag{Name: "url", Usage: "the page is at `URL` for browsers, behind a reverse proxy"},
		cmdline.DurationFlag("link-time", 5*time.Minute, "the link that is printed is valid for `TIME`, once"),
		&cli.StringFlag{Name: "trust-user-header", Usage: "with unix:PATH: the reverse proxy names the user in the header `NAME`; no link is printed"},
		&cli.StringSliceFlag{Name: "proxy-user", Usage: "with unix:PATH: let processes of `USER` connect, too (default: root and the user of this command); repeatable"},
		&cli.StringSliceFlag{Name: "operator", Usage: "let `USER`, as the reverse proxy names it, do all that this command's user may; repeatable. Others may only read"},
	}, cmdline.LogFlags())}
}

// serveWeb serves the page until a signal. SIGUSR1 prints another link.
func serveWeb(c *cli.Context) error {
	log, err := logging.New(logging.Options{Name: "callhome-nms", Format: c.String("log-format"), Level: c.String("log-level"), Syslog: c.Bool("syslog")})
	if err != nil {
		return err
	}
	o, err := webOptions(c, log)
	if err != nil {
		return err
	}
	var status nmsproto.Status
	switch err := ask(c, func(m *control.Client) error { return m.Call(c.Context, nmsproto.MethodStatus, nil, &status) }); {
	case sysexits.Code(err) == sysexits.NoPerm:
		return err
	case err != nil: // the page shows it, and when the daemon answers again
		report(cmdline.OneLine(err))
	}
	l, err := listenWeb(c, log)
	if err != nil {
		return err
	}
	defer l.Close()
	s := web.New(o)
	if o.Header == "" {
		links := make(chan os.Signal, 1)
		signal.Notify(links, unix.SIGUSR1)
		defer signal.Stop(links)
		link := func() {
			text, until := s.Link(l.Addr().String())
			fmt.Println(text)
			report(fmt.Sprintf("the link is valid once, until %s; SIGUSR1 to PID %d prints another one", until.Format("15:04:05"), os.Getpid()))
		}
		link()
		go func() {
			for range links {
				link()
			}
		}()
	}
	log.Info("ready", "version", version, "address", l.Addr().String(), "socket", o.Socket)
	return s.Serve(c.Context, l)
}

// webOptions reads the command line.
func webOptions(c *cli.Context, log hclog.Logger) (web.Options, error) {
	o := web.Options{Socket: c.String("socket"), Version: version, User: userName(), Header: c.String("trust-user-header"), Operators: c.StringSlice("operator"), LinkTime: c.Duration("link-time"), Log: log.Named("web")}
	_, isUnix := strings.CutPrefix(c.String("listen"), "unix:")
	usage := func(text string) (web.Options, error) { return o, program.Usage(errors.New(text)) }
	if text := c.String("url"); text != "" {
		u, err := url.Parse(text)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || strings.Trim(u.Path, "/")+u.RawQuery+u.Fragment != "" {
			return usage(fmt.Sprintf("--url %q: expected https://NAME/ or http://NAME/, without a path", text))
		}
		o.URL = u
	}
	switch {
	case o.LinkTime <= 0:
		return usage(fmt.Sprintf("--link-time %v: expected a time above 0", o.LinkTime))
	case strings.ContainsFunc(o.Header, isNoHeader):
		return usage(fmt.Sprintf("--trust-user-header %q: expected the name of a header", o.Header))
	case o.Header != "" && !isUnix:
		return usage("--trust-user-header needs --listen unix:PATH: at an address every local user could send the header")
	case o.Header == "" && len(o.Operators) > 0:
		return usage("--operator needs --trust-user-header")
	case !isUnix && len(c.StringSlice("proxy-user")) > 0:
		return usage("--proxy-user needs --listen unix:PATH")
	case o.Header == "" && isUnix && o.URL == nil:
		return usage("--listen unix:PATH needs --url or --trust-user-header: a browser cannot open a Unix socket")
	}
	return o, nil
}

// isNoHeader reports whether a character is not one of the usual names of headers.
func isNoHeader(r rune) bool {
	return r != '-' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
}

// userName is the user of this process.
func userName() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return "uid " + strconv.Itoa(os.Geteuid())
}

// listenWeb opens the listener of --listen.
func listenWeb(c *cli.Context, log hclog.Logger) (net.Listener, error) {
	text := c.String("listen")
	if path, ok := strings.CutPrefix(text, "unix:"); ok {
		if !filepath.IsAbs(path) {
			return nil, program.Usage(fmt.Errorf("--listen %q: expected unix: and an absolute path", text))
		}
		uids := []uint32{0, uint32(os.Geteuid())}
		for _, name := range c.StringSlice("proxy-user") {
			u, err := user.Lookup(name)
			if err != nil {
				return nil, sysexits.New(sysexits.NoInput, "name another --proxy-user", fmt.Errorf("looking up the user %q: %w", name, err))
			}
			uid, err := strconv.ParseUint(u.Uid, 10, 32)
			if err != nil {
				return nil, fmt.Errorf("looking up the user %q: %w", name, err)
			}
			uids = append(uids, uint32(uid))
		}
		l, err := daemon.ListenUnix(path, "web")
		if err != nil {
			return nil, err // not l, which is a nil of another type
		}
		return &proxyListener{l, uids, ratelimit.NewWarnings(log)}, nil
	}
	at, err := webAddress(text)
	if err != nil {
		return nil, program.Usage(err)
	}
	l, err := net.Listen("tcp", at.String())
	if err != nil {
		return nil, sysexits.New(sysexits.Unavailable, "use another --listen", fmt.Errorf("serving the page at %v: %w", at, err))
	}
	return l, nil
}

// webAddress reads ADDRESS or ADDRESS:PORT; without a port the kernel chooses one.
// Browsers send the cookie of an address to all of its ports, and other local users may
// have services at 127.0.0.1: without an address it is one of 127.0.0.0/8, by chance.
func webAddress(text string) (netip.AddrPort, error) {
	if text == "" {
		part := func() byte { return byte(1 + rand.IntN(254)) }
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, part(), part(), part()}), 0), nil
	}
	at, err := netip.ParseAddrPort(text)
	if err != nil {
		var a netip.Addr
		a, err = netip.ParseAddr(strings.Trim(text, "[]"))
		at = netip.AddrPortFrom(a, 0)
	}
	switch {
	case err != nil:
		return at, fmt.Errorf("--listen %q: expected a loopback address, such as 127.0.0.1:8334 or [::1]:8334, or unix:PATH", text)
	case !at.Addr().IsLoopback():
		return at, fmt.Errorf("--listen %q is not a loopback address; the page has no encryption, so use a loopback address or unix:PATH, and a reverse proxy for other machines", text)
	}
	return at, nil
}

// proxyListener closes the connections of other users than the proxy's.
type proxyListener struct {
	*net.UnixListener
	uids     []uint32
	warnings *ratelimit.Warnings
}

// Accept implements net.Listener.
func (l *proxyListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		peer, err := rpc.PeerOf(conn)
		if err == nil && slices.Contains(l.uids, peer.UID) {
			return conn, nil
		}
		fields := []any{"peer", peer.String()}
		if err != nil {
			fields = []any{"error", err}
		}
		l.warnings.Warn("connection refused: not the reverse proxy's user", fields...)
		conn.Close()
	}
}
