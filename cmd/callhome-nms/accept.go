package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"callhome/internal/fdpass"
	"callhome/internal/nms/announce"
	"callhome/internal/nms/knownhosts"
	"callhome/internal/nms/listen"
	"callhome/internal/sysexits"

	"github.com/urfave/cli/v2"
)

// announceTime is how long a caller may take to speak SSH, and how long a device
// that is not asked for is kept waiting: were it sent away at once, it could
// call again at once, and so on.
const announceTime = time.Minute

func acceptCommand() *cli.Command {
	return &cli.Command{
		Name:  "accept",
		Usage: "wait for one call home and pass it to ssh: a ProxyCommand for ProxyUseFdpass",
		Flags: append(listenFlags(),
			&cli.StringSliceFlag{Name: "listen", Usage: "`ADDRESS[:PORT]` to wait on; repeatable (all addresses, port 4334)"},
			&cli.StringFlag{Name: "device", Usage: "take the call that claims to be of `ID`, and keep others waiting"},
			&cli.DurationFlag{Name: "timeout", Usage: "how `long` to wait; 0 for ever"},
		),
		Action: accept,
	}
}

// listenFlags are those of every command that waits for calls.
func listenFlags() []cli.Flag {
	return []cli.Flag{&cli.StringSliceFlag{Name: "from", Usage: "take calls from `NETWORK` alone, as 192.0.2.0/24; repeatable"}}
}

// openListener listens as the flags say, and tells of calls from elsewhere.
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
	l.Refused = func(from netip.AddrPort) { say(fmt.Sprintf("a call from %v, which --from excludes", from)) }
	return l, nil
}

// accept gives ssh the socket of one call, which is then ssh's alone.
func accept(c *cli.Context) error {
	if c.Args().Present() {
		return program.Usage(fmt.Errorf("unexpected argument %q", c.Args().First()))
	}
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
	go func() { // ssh writes nothing there, so an end of it is ssh's end
		_, _ = ssh.Read(make([]byte, 1))
		gone(errGone)
	}()
	conn, err := listen.First(ctx, l, listen.Trial[*net.TCPConn]{
		Limit: announceTime,
		Try:   func(ctx context.Context, conn *net.TCPConn) (*net.TCPConn, error) { return choose(ctx, conn, want) },
		Failed: func(from netip.AddrPort, err error) bool {
			say(fmt.Sprintf("a call from %v: %v", from, err))
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
	f.Fd() // makes the socket blocking, as ssh would make its own
	return fdpass.Send(ssh, []byte{0}, f)
}

var errGone = errors.New("ssh has gone")

// sshSocket is the socket that ssh gives a ProxyCommand for a descriptor.
func sshSocket(stdout *os.File) (*net.UnixConn, error) {
	conn, err := net.FileConn(stdout)
	if err == nil {
		if ssh, ok := conn.(*net.UnixConn); ok {
			return ssh, nil
		}
		conn.Close()
	}
	return nil, sysexits.New(sysexits.Usage, "accept is a ProxyCommand: ssh -o ProxyUseFdpass=yes -o 'ProxyCommand=callhome-nms accept' ...",
		errors.New("standard output is not the socket that ssh gives with ProxyUseFdpass=yes"))
}

// choose takes a call that speaks SSH, and with an id wanted one that claims it.
// Another one is kept until the time is over.
func choose(ctx context.Context, conn *net.TCPConn, want string) (*net.TCPConn, error) {
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	id, err := announce.ID(ctx, conn)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		err = errors.New("it sent no SSH version string in time")
	case err == nil && want != "" && id != want:
		say(fmt.Sprintf("a call from %v that claims to be %q, not %s; it is kept waiting", conn.RemoteAddr(), id, want))
		<-ctx.Done()
		err = errors.New("it waited long enough for somebody to want it")
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

// limited is a context with a time limit, of which 0 is none.
func limited(ctx context.Context, max time.Duration) (context.Context, context.CancelFunc) {
	if max <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, max)
}

// noCall says why nothing came of waiting.
func noCall(ctx context.Context, device string, err error) error {
	who := "a call home"
	if device != "" {
		who = "a call home of " + device
	}
	switch {
	case errors.Is(err, listen.ErrNone):
		return sysexits.New(sysexits.Unavailable, "callhome-trigger --check on the device tells what is missing there",
			fmt.Errorf("waiting for %s: nobody called in time", who))
	case errors.Is(context.Cause(ctx), errGone):
		return sysexits.New(sysexits.Unavailable, "", fmt.Errorf("waiting for %s: ssh has gone", who))
	case errors.Is(err, context.Canceled):
		return sysexits.New(sysexits.Unavailable, "", fmt.Errorf("waiting for %s: interrupted", who))
	}
	return err
}
