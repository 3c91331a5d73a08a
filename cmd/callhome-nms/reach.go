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

// reachFlags are the options for how the console connects to a device, checks its
// host key, and logs in.
func reachFlags(where *addresses) []cli.Flag {
	const way, identity, credentials = "the connection", "the device", "the user"
	return append(listenFlags(),
		&cli.GenericFlag{Name: "listen", Category: way, Value: where, Usage: "wait for a call home on `[ADDRESS[:PORT]]`; repeatable (default: all addresses, port 4334)"},
		&cli.StringFlag{Name: "listen-address", Category: way, Usage: "wait on `ADDRESS`, as netconf-console's option"},
		&cli.IntFlag{Name: "listen-port", Category: way, Value: listen.DefaultPort, Usage: "wait on `PORT`, as netconf-console's option"},
		&cli.StringFlag{Name: "host", Category: way, Usage: "connect to `HOST` instead of waiting for a call home"},
		&cli.IntFlag{Name: "port", Category: way, Value: 830, Usage: "connect to `PORT` of --host"},
		&cli.StringFlag{Name: "socket", Category: way, Value: nmsproto.DefaultSocket, EnvVars: []string{"CALLHOME_NMS_SOCKET"}, Usage: "with --device alone, use the connection that callhome-nms serve at `SOCKET` holds"},
		in(way, cmdline.ChoiceFlag("proto", "ssh", "use `PROTOCOL`; only ssh is supported", "ssh")),
		in(way, cmdline.DurationFlag("login-timeout", time.Minute, "give up when connecting, login or hello takes longer than `TIME`")),
		in(way, cmdline.DurationFlag("keepalive", 30*time.Second, "send a keepalive every `TIME`, and close the connection when none is answered for as long")),

		&cli.StringFlag{Name: "device", Category: identity, Usage: "look up the host key of `DEVICE`; required with --listen"},
		&cli.StringSliceFlag{Name: "known-hosts", Category: identity, Usage: "read known host keys from `FILE`; repeatable (default: ~/.ssh/known_hosts, /etc/ssh/ssh_known_hosts)"},
		&cli.BoolFlag{Name: "accept-new", Category: identity, Usage: "record the host key of an unknown device in the first known_hosts file"},
		&cli.StringSliceFlag{Name: "fingerprint", Category: identity, Usage: "accept the host key with `FINGERPRINT`, as SHA256:...; repeatable"},
		&cli.StringSliceFlag{Name: "ca", Category: identity, Usage: "accept host certificates of the CA with the public key in `FILE`; repeatable"},
		&cli.StringFlag{Name: "principal", Category: identity, Usage: "require the principal `NAME` in the host certificate (default: the device's name)"},
		&cli.StringSliceFlag{Name: "revoked", Category: identity, Usage: "refuse the keys in `FILE`, one a line or a KRL; repeatable"},

		&cli.StringFlag{Name: "user", Aliases: []string{"u"}, Category: credentials, Usage: "log in as `USER` (default: your user name here)"},
		&cli.StringSliceFlag{Name: "privKeyFile", Category: credentials, Usage: "log in with the private key in `FILE`; repeatable (default: the keys of ssh-agent, ~/.ssh/id_*)"},
		&cli.StringFlag{Name: "password-file", Category: credentials, Usage: "log in with the password on the first line of `FILE`"},
		&cli.StringFlag{Name: "password", Aliases: []string{"p"}, Category: credentials, Usage: "log in with `PASSWORD`, as netconf-console's option; every user of this machine can read it"},
	)
}

// in puts a flag into a category of the help.
func in(category string, f *cli.GenericFlag) *cli.GenericFlag {
	f.Category = category
	return f
}

// reached is a stream to the netconf subsystem of a device.
type reached struct {
	stream io.ReadWriteCloser
	name   string
	close  func()
}

// reach connects to the device that the command line names.
func reach(c *cli.Context, where *addresses) (*reached, error) {
	if c.Duration("keepalive") <= 0 {
		return nil, program.Usage(fmt.Errorf("--keepalive %s: expected a time above 0", c.Duration("keepalive")))
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
		return nil, program.Usage(errors.New("expected one of --listen and --host, or --device alone where callhome-nms serve holds the connection"))
	case where.given && device == "":
		return nil, program.Usage(errors.New("--listen needs --device"))
	}
	identity, err := identify(c, host, device)
	if err != nil {
		return nil, err
	}
	name := c.String("user")
	if name == "" {
		me, err := user.Current()
		if err != nil {
			return nil, program.Usage(fmt.Errorf("no --user given, and looking up yours failed: %w", err))
		}
		name = me.Username
	}
	if err := checkPassword(c); err != nil {
		return nil, err
	}
	methods, agent, err := credentials(c).Methods(name)
	if err != nil {
		return nil, err
	}
	defer agent.Close() // not needed after the login
	try := func(ctx context.Context, conn *net.TCPConn) (*login.Client, error) {
		return login.Do(ctx, conn, identity, name, methods)
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

// identify reads the known host keys of the device. Without --device they are
// looked up by --host and --port, as ssh does.
func identify(c *cli.Context, host, device string) (*knownhosts.Device, error) {
	o := knownhosts.Options{Files: c.StringSlice("known-hosts"), Fingerprints: c.StringSlice("fingerprint"),
		Principal: c.String("principal"), Revoked: c.StringSlice("revoked")}
	if len(o.Files) == 0 {
		o.Files = []string{filepath.Join(home(), ".ssh", "known_hosts"), "/etc/ssh/ssh_known_hosts"}
		if c.Bool("accept-new") { // as ssh does; recording the key fails where it cannot be made
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

// checkPassword warns of --password.
func checkPassword(c *cli.Context) error {
	switch {
	case !c.IsSet("password"):
		return nil
	case c.IsSet("password-file"):
		return program.Usage(errors.New("--password and --password-file exclude each other"))
	}
	report("every user of this machine can read --password; --password-file keeps it secret")
	return nil
}

func credentials(c *cli.Context) login.Credentials {
	o := login.Credentials{KeyFiles: c.StringSlice("privKeyFile"), PasswordFile: c.String("password-file"), Password: c.String("password"), AgentSocket: os.Getenv("SSH_AUTH_SOCK")}
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

// await waits until the device calls. It reports and closes a call that fails the
// host key check or is silent, and goes on waiting.
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
			report(cmdline.OneLine(last))
			return true
		},
	})
	switch {
	case errors.Is(err, listen.ErrNone) && last != nil:
		return nil, sysexits.New(sysexits.Code(last), "", fmt.Errorf("waiting for a call home of %s: no other call in time", device))
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
