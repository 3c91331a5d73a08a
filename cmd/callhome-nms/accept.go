package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"callhome/internal/cmdline"
	"callhome/internal/fdpass"
	"callhome/internal/nms/announce"
	"callhome/internal/nms/knownhosts"
	"callhome/internal/nms/listen"
	"callhome/internal/sysexits"

	"github.com/urfave/cli/v2"
)

// announceTime is how long a peer may take to send its SSH version string, and how
// long the connection of another device than --device is kept open: a device whose
// connection is closed at once may call again at once.
const announceTime = time.Minute

func acceptCommand() *cli.Command {
	return &cli.Command{
		Name:  "accept",
		Usage: "wait for one call home and pass its socket to ssh, as a ProxyCommand with ProxyUseFdpass",
		Flags: append(listenFlags(),
			&cli.StringSliceFlag{Name: "listen", Usage: "accept call homes on `ADDRESS[:PORT]`; repeatable (default: all addresses, port 4334)"},
			&cli.StringFlag{Name: "device", Usage: "take the call home that announces `DEVICE`, and keep others waiting"},
			cmdline.DurationFlag("timeout", 0, "give up after `TIME` without a call home; 0 for no limit"),
		),
		Action: accept,
	}
}

// listenFlags are those of every command that waits for calls.
func listenFlags() []cli.Flag {
	return []cli.Flag{&cli.StringSliceFlag{Name: "from", Usage: "accept call homes from `NETWORK` only, such as 192.0.2.0/24; repeatable"}}
}

// openListener listens on addrs, and reports calls from outside the networks from.
func openListener(addrs, from []string) (*listen.Listener, error) {
	nets, err := listen.ParseNets(from)
	if err != nil {
		return nil, err
	}
	l, err := listen.Open(addrs)
	if err != nil {
		return nil, err
	}
	l.From = nets
	l.Refused = func(from netip.AddrPort) {
		report(fmt.Sprintf("refused a call from %v, which is outside --from", from))
	}
	l.Unprepared = func(from netip.AddrPort, err error) {
		report(fmt.Sprintf("a call from %v continues without an option of its connection: %v", from, err))
	}
	return l, nil
}

// accept passes the socket of one call to ssh, which then owns it.
func accept(c *cli.Context) error {
	want := c.String("device")
	if _, err := knownhosts.Name(want); want != "" && err != nil {
		return err
	}
	ssh, err := sshSocket(os.Stdout)
	if err != nil {
		return err
	}
	defer ssh.Close()
	l, err := openListener(c.StringSlice("listen"), c.StringSlice("from"))
	if err != nil {
		return err
	}
	defer l.Close()
	ctx, cancel := limited(c.Context, c.Duration("timeout"))
	defer cancel()
	ctx, gone := context.WithCancelCause(ctx)
	go func() { // ssh never writes to this socket, so Read returns when ssh ends
		_, _ = ssh.Read(make([]byte, 1))
		gone(errGone)
	}()
	conn, err := listen.First(ctx, l, listen.Trial[*net.TCPConn]{
		Limit: announceTime,
		Try:   func(ctx context.Context, conn *net.TCPConn) (*net.TCPConn, error) { return choose(ctx, conn, want) },
		Failed: func(from netip.AddrPort, err error) bool {
			report(fmt.Sprintf("closed a call from %v: %v", from, err))
			return true
		},
	})
	if err != nil {
		return noCall(ctx, want, err)
	}
	defer conn.Close()
	f, err := conn.File()
	if err != nil {
		return fmt.Errorf("passing the call to ssh: %w", err)
	}
	defer f.Close()
	f.Fd() // sets O_NONBLOCK off, as ssh expects of its socket
	return fdpass.Send(ssh, []byte{0}, f)
}

var errGone = errors.New("ssh has ended")

// sshSocket is the socket on which ssh receives a descriptor from a ProxyCommand.
func sshSocket(stdout *os.File) (*net.UnixConn, error) {
	conn, err := net.FileConn(stdout)
	if err == nil {
		if ssh, ok := conn.(*net.UnixConn); ok {
			return ssh, nil
		}
		conn.Close()
	}
	return nil, sysexits.New(sysexits.Usage, "run it as a ProxyCommand: ssh -o ProxyUseFdpass=yes -o 'ProxyCommand=callhome-nms accept' ...",
		errors.New("standard output is not the socket that ssh gives with ProxyUseFdpass=yes"))
}

// choose returns conn once its peer has sent an SSH version string and, where an id
// is wanted, announced it. It keeps another device's connection until ctx ends.
func choose(ctx context.Context, conn *net.TCPConn, want string) (*net.TCPConn, error) {
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	id, err := announce.ID(ctx, conn)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		err = errors.New("no SSH version string in time")
	case err == nil && want != "" && id != want:
		report(fmt.Sprintf("a call from %v announces %q, expected %q; it is kept waiting", conn.RemoteAddr(), id, want))
		<-ctx.Done()
		err = fmt.Errorf("it announces %q, expected %q", id, want)
	}
	if err == nil {
		err = conn.SetReadDeadline(time.Time{})
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// limited returns a context with a time limit; 0 sets no limit.
func limited(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	if limit <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, limit)
}

// noCall returns why no call home was accepted.
func noCall(ctx context.Context, device string, err error) error {
	awaited := "a call home"
	if device != "" {
		awaited = "a call home of " + device
	}
	switch {
	case errors.Is(err, listen.ErrNone):
		return sysexits.New(sysexits.Unavailable, "run callhome-trigger --check on the device",
			fmt.Errorf("waiting for %s: no call in time", awaited))
	case errors.Is(context.Cause(ctx), errGone):
		return sysexits.New(sysexits.Unavailable, "", fmt.Errorf("waiting for %s: ssh has ended", awaited))
	case errors.Is(err, context.Canceled):
		return sysexits.New(sysexits.Unavailable, "", fmt.Errorf("waiting for %s: interrupted", awaited))
	}
	return err
}
