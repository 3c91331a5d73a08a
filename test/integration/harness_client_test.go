//go:build integration

package integration

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"callhome/test/sandbox"
	"callhome/test/skips"
)

// client is a stock NETCONF client that waits for one call home. Finish then
// follows the session to its end and returns an error unless every step was
// done: accept, host key, login, hello, get-config, edit-config, close-session.
type client struct {
	*process
	Finish func() error
}

// clients are the stock clients by name. Each listens on addr and writes value
// into the configuration of the device's server.
var clients = []struct {
	name string
	ipv6 bool // ncclient 0.6.13 listens on IPv4 only
	wait func(n *nms, server *netconfd, addr, value string) *client
}{
	{"ncclient", false, (*nms).Ncclient},
	{"libnetconf2", true, (*nms).Libnetconf2},
	{"ssh", true, (*nms).SshNetconf},
	{"accept", true, (*nms).AcceptNetconf},
	{"console", true, (*nms).ConsoleNetconf},
}

// steps is what the clients of our own clients/ directory print.
var steps = []string{"accept: ", "host key: ", "login: ", "hello: ", "get-config: ", "edit-config: ", "close-session: "}

// Ncclient is python3-ncclient's manager.call_home.
func (n *nms) Ncclient(_ *netconfd, addr, value string) *client {
	n.t.Helper()
	sandbox.Need(n.t, "/usr/bin/python3")
	if err := exec.Command("/usr/bin/python3", "-c", "import ncclient").Run(); err != nil {
		skips.Story(n.t, "python3-ncclient is not installed")
	}
	host, port := splitAddr(n.t, addr)
	return n.steps("ncclient", addr, "/usr/bin/python3", "clients/ncclient_callhome.py", host, port, n.user, n.key, n.hostKey, value)
}

// Libnetconf2 is a C program on nc_accept_callhome.
func (n *nms) Libnetconf2(_ *netconfd, addr, value string) *client {
	n.t.Helper()
	host, port := splitAddr(n.t, addr)
	return n.steps("libnetconf2", addr, libnetconf2(n.t, "libnetconf2_client"), host, port, n.user, n.key, n.knownHosts, alias, value)
}

func (n *nms) steps(name, addr string, argv ...string) *client {
	n.t.Helper()
	p := start(n.t, name, n.here(argv...))
	p.AwaitListening(addr)
	return &client{p, func() error { return stepped(p, steps) }}
}

// stepped wants a client to have ended well, with these steps in their order.
// It gives up before the client would: see consoleTimeout.
func stepped(p *process, steps []string) error {
	if !p.over(patience) {
		return fmt.Errorf("%s still runs after %v", p.name, patience)
	}
	if !p.state.Success() {
		return fmt.Errorf("%s: %v", p.name, p.state)
	}
	var done []string
	for line := range strings.Lines(p.Stdout()) {
		done = append(done, line)
	}
	for i, step := range steps {
		if i >= len(done) || !strings.HasPrefix(done[i], step) {
			return fmt.Errorf("%s: step %d is not %q in:\n%s", p.name, i+1, step, strings.Join(done, ""))
		}
	}
	return nil
}

// here is a command where the station lives.
func (n *nms) here(argv ...string) *exec.Cmd {
	if n.netns != "" {
		argv = append([]string{"/usr/bin/nsenter", "--net=" + n.netns, "--"}, argv...)
	}
	return exec.Command(argv[0], argv[1:]...)
}

// Dial connects from the station's network.
func (n *nms) Dial(ctx context.Context, d *net.Dialer, to string) (net.Conn, error) {
	if n.netns == "" {
		return d.DialContext(ctx, "tcp", to)
	}
	type result struct {
		conn net.Conn
		err  error
	}
	r := atNetns(n.t, n.netns, func() result {
		conn, err := d.DialContext(ctx, "tcp", to)
		return result{conn, err}
	})
	return r.conn, r.err
}

// SshCommand is the stock ssh behind a listener of ours that passes it the
// accepted socket (ProxyUseFdpass). What it is to do stands in args.
func (n *nms) SshCommand(addr string, args ...string) *exec.Cmd {
	n.t.Helper()
	sandbox.Need(n.t, "ssh")
	argv := []string{"/usr/bin/ssh", "-F", "none"}
	for _, option := range []string{
		"ProxyCommand=" + n.proxyCommand(addr),
		"ProxyUseFdpass=yes",
		"HostKeyAlias=" + alias,
		"UserKnownHostsFile=" + n.knownHosts,
		"GlobalKnownHostsFile=/dev/null",
		"StrictHostKeyChecking=yes",
		"UpdateHostKeys=no",
		"IdentityFile=" + n.key,
		"IdentitiesOnly=yes",
		"IdentityAgent=none",
		"BatchMode=yes",
		"LogLevel=VERBOSE",
	} {
		argv = append(argv, "-o", option)
	}
	return n.here(append(argv, args...)...)
}

// proxyCommand is what waits for the call on ssh's behalf.
func (n *nms) proxyCommand(addr string) string {
	if n.accept == nil {
		return binDir + "/fdpass-listen " + addr
	}
	return strings.Join(append([]string{binDir + "/callhome-nms accept --listen", addr}, n.accept...), " ")
}

// Ssh runs it and waits until it listens; args come before the destination.
func (n *nms) Ssh(addr string, options []string, command ...string) *process {
	n.t.Helper()
	args := append(append(append([]string(nil), options...), n.user+"@"+alias), command...)
	p := start(n.t, "ssh", n.SshCommand(addr, args...))
	p.AwaitListening(addr)
	return p
}

// SshNetconf is stock `ssh -s` with the NETCONF dialogue spoken by the test.
func (n *nms) SshNetconf(server *netconfd, addr, value string) *client {
	n.t.Helper()
	s := n.Netconf(addr)
	return &client{s.process, func() error {
		n.t.Helper()
		s.Hello(server)
		s.Ask("get-config", `<get-config><source><running/></source></get-config>`, "<data")
		s.Ask("edit-config", `<edit-config><target><running/></target><config>`+
			editLocation(value)+`</config></edit-config>`, "<ok")
		s.Ask("get-config", `<get-config><source><running/></source></get-config>`, value)
		s.Close()
		return nil
	}}
}

// AcceptNetconf is the same with `callhome-nms accept` as the ProxyCommand.
func (n *nms) AcceptNetconf(server *netconfd, addr, value string) *client {
	n.accept = []string{}
	return n.SshNetconf(server, addr, value)
}

// ConsoleNetconf is `callhome-nms console` with the same dialogue.
func (n *nms) ConsoleNetconf(_ *netconfd, addr, value string) *client {
	n.t.Helper()
	edit := writeFile(n.t, filepath.Join(n.dir, "edit.xml"), editLocation(value), 0o600)
	p := n.Console(addr, "--timeout", consoleTimeout, "--get-config", "--edit-config", edit, "--get-config", "running", "--close-session")
	return &client{p, func() error { return ended(p, "<data", "<ok", value) }}
}

// consoleTimeout is longer than ended waits: a netconfd that forgot a request
// takes it when the session ends, and then nothing shows that it had forgotten.
const consoleTimeout = "15s"

// ended wants a console to have ended well, with parts of its output in their
// order.
func ended(p *process, parts ...string) error {
	if !p.over(patience / 2) {
		return fmt.Errorf("%s still runs after %v", p.name, patience/2)
	}
	if !p.state.Success() {
		return fmt.Errorf("%s: %v: %s", p.name, p.state, p.Stderr())
	}
	rest := p.Stdout()
	for _, part := range parts {
		_, after, ok := strings.Cut(rest, part)
		if !ok {
			return fmt.Errorf("%s: no %q in what is left:\n%s", p.name, part, rest)
		}
		rest = after
	}
	return nil
}

// Console runs it and waits until it listens.
func (n *nms) Console(addr string, options ...string) *process {
	n.t.Helper()
	p := start(n.t, "callhome-nms console", n.ConsoleCommand(append([]string{"--listen", addr, "--device", alias}, options...)...))
	p.AwaitListening(addr)
	return p
}

// ConsoleCommand is the console with the station's keys and known hosts.
func (n *nms) ConsoleCommand(options ...string) *exec.Cmd {
	argv := []string{binDir + "/callhome-nms", "console", "--user", n.user, "--privKeyFile", n.key, "--known-hosts", n.knownHosts}
	return n.here(append(argv, options...)...)
}

func editLocation(value string) string {
	return `<system xmlns="urn:ietf:params:xml:ns:yang:ietf-system"><location>` + value + `</location></system>`
}

// finish is Finish for a story of one session.
func finish(t *testing.T, c *client) {
	t.Helper()
	if err := c.Finish(); err != nil {
		t.Fatal(err)
	}
}

// holdSession has a client wait on host and lets call make the call home, then
// follows the session to its end and sees to it that nothing is left of it.
// Where netconfd has forgotten a request, all is done again.
func holdSession(t *testing.T, client int, host string, call func(d *device, server *netconfd, addr string) *process) {
	t.Helper()
	c := clients[client]
	for try := 1; ; try++ {
		server := startNetconfd(t)
		device, nms := newSite(t, server.Subsystem())
		addr := freeAddr(host)
		waiting := c.wait(nms, server, addr, fmt.Sprintf("%s-%d", c.name, try))
		called := call(device, server, addr)
		seen := called.Watch()
		err := waiting.Finish()
		session := seen()
		switch {
		case err == nil:
			AwaitGone(t, patience, session)
			called.AwaitStderr("Accepted publickey for " + netop)
			return
		case try == 3 || !server.Forgot():
			t.Fatal(err)
		}
		t.Logf("netconfd forgot a request of %s's (%v); once more", c.name, err)
		waiting.end()
	}
}

// onLibnetconf2 are the C programs on libnetconf2 in clients/, each compiled
// once, by the first story that wants it.
var onLibnetconf2 = map[string]func() (binary, reason string){
	"libnetconf2_client": sync.OnceValues(func() (string, string) { return compile("libnetconf2_client") }),
	"libnetconf2_device": sync.OnceValues(func() (string, string) { return compile("libnetconf2_device") }),
}

func libnetconf2(t *testing.T, program string) string {
	t.Helper()
	sandbox.Need(t, "gcc", "pkg-config")
	binary, reason := onLibnetconf2[program]()
	if binary == "" && strings.Contains(reason, "does not compile") {
		t.Fatal(reason)
	}
	if binary == "" {
		skips.Story(t, reason)
	}
	return binary
}

// compile returns the program, or why there is none.
func compile(program string) (binary, reason string) {
	flags, err := exec.Command("pkg-config", "--cflags", "--libs", "libnetconf2", "libyang", "libssh").Output()
	if err != nil {
		return "", "libnetconf2-dev, libyang2-dev or libssh-dev is not installed"
	}
	source := "clients/" + program + ".c"
	binary = filepath.Join(binDir, program)
	args := append([]string{"-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-o", binary, source}, strings.Fields(string(flags))...)
	if out, err := exec.Command("gcc", args...).CombinedOutput(); err != nil {
		return "", fmt.Sprintf("%s does not compile: %v\n%s", source, err, out)
	}
	return binary, ""
}
