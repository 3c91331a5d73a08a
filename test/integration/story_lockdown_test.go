//go:build integration

package integration

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Whatever else than the netconf subsystem a station asks for, it does not
// get it, with every way in which the subsystem can be set up.
func TestNothingButNetconf(t *testing.T) {
	t.Parallel()
	const pwned = "echo pwned-$((6*7)); id > PWNED"
	wishes := []struct {
		name    string
		options []string // of ssh, before the destination
		command []string // behind it
		exit    int      // ssh's own, or a command's
		says    string
	}{
		{"a shell", nil, nil, 1, "only the netconf subsystem"},
		{"a shell on a terminal", []string{"-tt"}, nil, 255, "PTY allocation request failed"},
		{"a command", nil, []string{pwned}, 1, "only the netconf subsystem"},
		{"a command called netconf", nil, []string{"netconf;" + pwned}, 1, "only the netconf subsystem"},
		{"sftp", []string{"-s"}, []string{"sftp"}, 255, "subsystem request failed"},
		{"another subsystem", []string{"-s"}, []string{"shell"}, 255, "subsystem request failed"},
		{"a subsystem that is a command", []string{"-s"}, []string{pwned}, 255, "subsystem request failed"},
		{"forwarding to a port of the device", []string{"-W", "TARGET"}, nil, 255, "administratively prohibited"},
		{"a port on the device", []string{"-N", "-o", "ExitOnForwardFailure=yes", "-R", "127.0.0.1:0:TARGET"}, nil, 255, "remote port forwarding failed"},
		{"a socket on the device", []string{"-N", "-o", "ExitOnForwardFailure=yes", "-R", "PWNED:TARGET"}, nil, 255, "remote port forwarding failed"},
		{"a tunnel", []string{"-N", "-o", "ExitOnForwardFailure=yes", "-w", "any:any"}, nil, 255, ""},
	}
	setups := []struct {
		name    string
		options []string
	}{
		{"subsystem", nil},
		{"rewritten port", []string{"--ssh-connection-port", yumaPort}},
		{"with OPAQUE", []string{"--opaque", "SSH_ORIGINAL_COMMAND=netconf"}},
	}
	for _, setup := range setups {
		for _, wish := range wishes {
			t.Run(setup.name+"/"+wish.name, func(t *testing.T) {
				t.Parallel()
				probe := newProbe(t)
				device, nms := newSite(t, probe.Command)
				target := listen(t, "127.0.0.1:0")
				fill := func(args []string) (filled []string) {
					for _, w := range args {
						filled = append(filled, strings.NewReplacer("TARGET", target.Addr(), "PWNED", filepath.Join(probe.dir, "pwned")).Replace(w))
					}
					return filled
				}
				addr := freeAddr("127.0.0.1")
				ssh := nms.Ssh(addr, fill(wish.options), fill(wish.command)...)
				call := device.Call(addr, setup.options...)
				ssh.MustExit(wish.exit)
				contains(t, "ssh", ssh.Stderr(), wish.says)
				if out := ssh.Stdout(); out != "" {
					t.Errorf("the station got %q", out)
				}
				call.AwaitStderr("Accepted publickey")
				for _, f := range []string{"pwned", "done"} {
					if _, err := os.Stat(filepath.Join(probe.dir, f)); err == nil {
						t.Errorf("something was executed (%s)", f)
					}
				}
				target.NoCall()
			})
		}
	}
}

// Local forwarding that a station sets up beside its NETCONF session leads
// nowhere; agent and X11 are not there either.
func TestNoForwardingBesideNetconf(t *testing.T) {
	t.Parallel()
	probe := newProbe(t)
	device, nms := newSite(t, probe.Command)
	target := listen(t, "127.0.0.1:0")
	local := freeAddr("127.0.0.1")
	addr := freeAddr("127.0.0.1")
	ssh := nms.Netconf(addr, "-A", "-X", "-L", local+":"+target.Addr())
	call := device.Call(addr)
	call.AwaitFamily("cat")
	env := probe.Environ()
	for _, name := range []string{"SSH_AUTH_SOCK", "DISPLAY", "SSH_TTY"} {
		if value, ok := env[name]; ok {
			t.Errorf("the session has %s=%s", name, value)
		}
	}
	c, err := net.Dial("tcp", local)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	if n, err := c.Read(make([]byte, 1)); n != 0 || os.IsTimeout(err) {
		t.Errorf("the forwarded connection is open (%d bytes, %v)", n, err)
	}
	target.NoCall()
	ssh.in.Close()
	ssh.MustExit(0)
}

// Nothing that the user has laid down on the device runs or takes effect: rc,
// environment, or the options of an authorised key.
func TestUsersOwnFilesDoNothing(t *testing.T) {
	t.Parallel()
	probe := newProbe(t)
	device, nms := newSite(t, probe.Command)
	pwned := filepath.Join(probe.dir, "pwned")
	home := runDir + "/home/" + netop + "/.ssh"
	if err := os.MkdirAll(home, 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, home+"/rc", "touch "+pwned+"\n", 0o755)
	writeFile(t, home+"/environment", "PWNED=1\n", 0o644)
	t.Cleanup(func() { os.RemoveAll(home) })
	writeFile(t, device.authorizedKeys, `environment="PWNED=2",command="touch `+pwned+`",pty,port-forwarding,user-rc `+publicKey(t, nms.key)+"\n", 0o644)
	addr := freeAddr("127.0.0.1")
	ssh := nms.Netconf(addr, "-o", "SetEnv=PWNED=3")
	call := device.Call(addr)
	call.AwaitFamily("cat")
	if value, ok := probe.Environ()["PWNED"]; ok {
		t.Errorf("PWNED=%s is in the session's environment", value)
	}
	ssh.in.Close()
	ssh.MustExit(0)
	// sshd runs rc for a command, not for a subsystem.
	addr = freeAddr("127.0.0.1")
	command := nms.Ssh(addr, nil, "netconf")
	device.Call(addr)
	command.Exit(patience)
	if _, err := os.Stat(pwned); err == nil {
		t.Error("a command of the user's ran")
	}
}

// What the subsystem is set to reaches the shell as it was written, and the
// value of an option never becomes another option.
func TestSubsystemCommandIsTakenVerbatim(t *testing.T) {
	t.Parallel()
	inBothWays(t, func(t *testing.T, use func(*device)) {
		probe := newProbe(t)
		const word = `it's "two words" $HOME \ and #more`
		device, nms := newSite(t, probe.Command+` 'it'\''s "two words" $HOME \ and #more'`)
		use(device)
		addr := freeAddr("127.0.0.1")
		ssh := nms.Netconf(addr)
		call := start(t, "callhome-trigger", device.Command(splitArgs(t, addr)))
		call.AwaitFamily("cat")
		if got := probe.read("cmdline"); !strings.HasSuffix(got, " "+word+" ") {
			t.Errorf("the subsystem was called as %q", got)
		}
		ssh.in.Close()
		ssh.MustExit(0)
	})
}
