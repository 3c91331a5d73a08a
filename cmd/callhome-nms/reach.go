package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"callhome/internal/cmdline"
	"callhome/internal/nms/knownhosts"
	"callhome/internal/nms/listen"
	"callhome/internal/nms/login"
	"callhome/internal/nms/nmsproto"
	"callhome/internal/sysexits"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"
)

// reachFlags say how a console gets its session: whom it talks to, who that has
// to be, and who it is itself.
func reachFlags(where *words) []cli.Flag {
	const way, identity, credentials = "the way", "the device", "the user"
	return append(listenFlags(),
		&cli.GenericFlag{Name: "listen", Category: way, Value: where, Usage: "wait for a call home, on [`ADDRESS[:PORT]`]; repeatable (all addresses, port 4334)"},
		&cli.StringFlag{Name: "listen-address", Category: way, Usage: "netconf-console's way to write --listen `ADDRESS`"},
		&cli.IntFlag{Name: "listen-port", Category: way, Value: listen.DefaultPort, Usage: "and its `PORT`"},
		&cli.StringFlag{Name: "host", Category: way, Usage: "connect to `HOST` instead, the ordinary way"},
		&cli.IntFlag{Name: "port", Category: way, Value: 830, Usage: "`PORT` of --host"},
		&cli.StringFlag{Name: "socket", Category: way, Value: nmsproto.DefaultSocket, EnvVars: []string{"CALLHOME_NMS_SOCKET"}, Usage: "with --device alone: reach it through callhome-nms serve at `SOCKET`"},
		&cli.StringFlag{Name: "proto", Category: way, Value: "ssh", Usage: "ssh, there is no `OTHER`"},
		&cli.DurationFlag{Name: "login-timeout", Category: way, Value: time.Minute, Usage: "how `long` connecting, login and hello may take"},
		&cli.DurationFlag{Name: "keepalive", Category: way, Value: 30 * time.Second, Usage: "how `often` the device is asked whether it is there, and how long it may take to answer"},

		&cli.StringFlag{Name: "device", Category: identity, Usage: "the device's `NAME`, by which its key is looked up; with --listen it has to be given"},
		&cli.StringSliceFlag{Name: "known-hosts", Category: identity, Usage: "known_hosts `FILE`; repeatable (~/.ssh/known_hosts, /etc/ssh/ssh_known_hosts)"},
		&cli.BoolFlag{Name: "accept-new", Category: identity, Usage: "record the key of a device of which nothing is known, in the first of those"},
		&cli.StringSliceFlag{Name: "fingerprint", Category: identity, Usage: "the device has a key of that `SHA256:...`; repeatable"},
		&cli.StringSliceFlag{Name: "ca", Category: identity, Usage: "public key `FILE` of a CA that issues the device's certificate; repeatable"},
		&cli.StringFlag{Name: "principal", Category: identity, Usage: "`NAME` in that certificate (the device's)"},
		&cli.StringSliceFlag{Name: "revoked", Category: identity, Usage: "`FILE` of revoked keys, one a line, or a KRL; repeatable"},

		&cli.StringFlag{Name: "user", Aliases: []string{"u"}, Category: credentials, Usage: "`USER` on the device (who you are here)"},
		&cli.StringSliceFlag{Name: "privKeyFile", Category: credentials, Usage: "private key `FILE`; repeatable (ssh-agent's keys, ~/.ssh/id_*)"},
		&cli.StringFlag{Name: "password-file", Category: credentials, Usage: "`FILE` with the password on its first line"},
		&cli.StringFlag{Name: "password", Aliases: []string{"p"}, Hidden: true, Action: func(*cli.Context, string) error {
			return sysexits.New(sysexits.Usage, "use --password-file, or wait to be asked", errors.New("a password on the command line can be read by every user of this machine"))
		}},
	)
}

// reached is a stream with a netconf subsystem at its other end.
type reached struct {
	stream io.ReadWriteCloser
	name   string
	close  func()
}

// reach connects as the command line says.
func reach(c *cli.Context, where *words) (*reached, error) {
	if c.Duration("keepalive") <= 0 {
		return nil, program.Usage(errors.New("--keepalive needs a duration above 0"))
	}
	if c.String("proto") != "ssh" {
		return nil, program.Usage(fmt.Errorf("there is no --proto %s here", c.String("proto")))
	}
	if c.IsSet("listen-address") || c.IsSet("listen-port") {
		where.given = true
		where.list = append(where.list, net.JoinHostPort(c.String("listen-address"), strconv.Itoa(c.Int("listen-port"))))
	}
	host, device := c.String("host"), c.String("device")
	switch {
	case !where.given && host == "" && device != "":
		return reachHeld(c, device)
	case where.given == (host != ""):
		return nil, program.Usage(errors.New("either --listen or --host says how to reach the device, or --device alone where callhome-nms serve holds it"))
	case where.given && device == "":
		return nil, program.Usage(errors.New("--listen needs --device: who is to call"))
	}
	identity, err := identify(c, host, device)
	if err != nil {
		return nil, err
	}
	who := c.String("user")
	if who == "" {
		me, err := user.Current()
		if err != nil {
			return nil, program.Usage(fmt.Errorf("--user is needed: %w", err))
		}
		who = me.Username
	}
	methods, agent, err := credentials(c).Methods(who)
	if err != nil {
		return nil, err
	}
	defer agent.Close() // its work is done with the login
	try := func(ctx context.Context, conn *net.TCPConn) (*login.Client, error) {
		return login.Do(ctx, conn, identity, who, methods)
	}
	var client *login.Client
	if where.given {
		client, err = await(c, where.list, identity.Name, try)
	} else {
		client, err = dial(c, host, try)
	}
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(c.Context, c.Duration("login-timeout"))
	defer cancel()
	stream, err := client.Netconf(ctx)
	if err != nil {
		client.Close()
		return nil, err
	}
	go client.KeepAlive(c.Duration("keepalive"))
	return &reached{stream, identity.Name, func() { client.Close() }}, nil
}

// identify reads what is known of the device. One that is reached by its host
// name, without a name of its own, is looked up as ssh does.
func identify(c *cli.Context, host, device string) (*knownhosts.Device, error) {
	o := knownhosts.Options{Files: c.StringSlice("known-hosts"), Fingerprints: c.StringSlice("fingerprint"),
		Principal: c.String("principal"), Revoked: c.StringSlice("revoked")}
	if len(o.Files) == 0 {
		o.Files = []string{filepath.Join(home(), ".ssh", "known_hosts"), "/etc/ssh/ssh_known_hosts"}
		if c.Bool("accept-new") { // as ssh does; if it cannot be made, recording tells
			_ = os.Mkdir(filepath.Join(home(), ".ssh"), 0o700)
		}
	}
	if c.Bool("accept-new") {
		o.AcceptNew = o.Files[0]
	}
	for _, file := range c.StringSlice("ca") {
		keys, err := knownhosts.ReadKeys(file)
		if err != nil {
			return nil, err
		}
		o.Authorities = append(o.Authorities, keys...)
	}
	if device == "" {
		device, o.Port = host, strconv.Itoa(c.Int("port"))
	}
	return knownhosts.New(device, o)
}

func home() string {
	if dir, err := os.UserHomeDir(); err == nil {
		return dir
	}
	return "/"
}

func credentials(c *cli.Context) login.Credentials {
	o := login.Credentials{KeyFiles: c.StringSlice("privKeyFile"), PasswordFile: c.String("password-file"), AgentSocket: os.Getenv("SSH_AUTH_SOCK")}
	for _, name := range []string{"id_ed25519", "id_ecdsa", "id_rsa"} {
		o.DefaultKeys = append(o.DefaultKeys, filepath.Join(home(), ".ssh", name))
	}
	if tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0); err == nil {
		o.Prompt = prompt(tty)
	}
	return o
}

// prompt asks at the terminal, one question at a time.
func prompt(tty *os.File) func(string) (string, error) {
	var mu sync.Mutex
	return func(question string) (string, error) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprint(tty, question)
		answer, err := term.ReadPassword(int(tty.Fd()))
		fmt.Fprintln(tty)
		return string(answer), err
	}
}

// await waits until the device calls. A call of anybody else is told of and
// closed, and the waiting goes on; so it does when many call and say nothing.
func await(c *cli.Context, addrs []string, device string, try func(context.Context, *net.TCPConn) (*login.Client, error)) (*login.Client, error) {
	l, err := openListener(addrs, c.StringSlice("from"))
	if err != nil {
		return nil, err
	}
	defer l.Close()
	ctx, cancel := limited(c.Context, c.Duration("timeout"))
	defer cancel()
	var last error
	client, err := listen.First(ctx, l, listen.Trial[*login.Client]{
		Limit: c.Duration("login-timeout"),
		Try:   try,
		Failed: func(from netip.AddrPort, err error) bool {
			var final *login.Error
			if errors.As(err, &final) {
				return false
			}
			last = sysexits.New(sysexits.Code(err), sysexits.Hint(err), fmt.Errorf("a call from %v: %w", from, err))
			say(cmdline.OneLine(last))
			return true
		},
	})
	switch {
	case errors.Is(err, listen.ErrNone) && last != nil:
		return nil, sysexits.New(sysexits.Code(last), "", fmt.Errorf("waiting for a call home of %s: none came in time but those above", device))
	case err != nil:
		return nil, noCall(ctx, device, err)
	}
	return client, nil
}

// dial connects the ordinary way.
func dial(c *cli.Context, host string, try func(context.Context, *net.TCPConn) (*login.Client, error)) (*login.Client, error) {
	address := net.JoinHostPort(host, strconv.Itoa(c.Int("port")))
	ctx, cancel := context.WithTimeout(c.Context, c.Duration("login-timeout"))
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns):
		return nil, sysexits.New(sysexits.NoHost, "", fmt.Errorf("connecting to %s: the name does not resolve: %s", address, dns.Err))
	case err != nil:
		var op *net.OpError
		if errors.As(err, &op) {
			err = op.Err
		}
		return nil, sysexits.New(sysexits.Unavailable, "", fmt.Errorf("connecting to %s: %w", address, err))
	}
	client, err := try(ctx, conn.(*net.TCPConn))
	if err != nil {
		return nil, sysexits.New(sysexits.Code(err), sysexits.Hint(err), fmt.Errorf("connecting to %s: %w", address, err))
	}
	return client, nil
}
