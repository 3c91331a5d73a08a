//go:build integration

package integration

import (
	"errors"
	"strings"
	"testing"

	"callhome/internal/proto"
)

// A machine with nothing but OpenSSH and host keys, and no /etc/callhome: the
// built-in configuration makes a call home, and lets nothing but the netconf
// subsystem run.
func TestWithNothingInstalledButOpenSSH(t *testing.T) {
	t.Parallel()
	onOpenSSHs(t, trees, func(t *testing.T, _, root string) {
		bare := func(t *testing.T, subsystem string) (*device, *nms) {
			t.Helper()
			d, n := newSite(t, subsystem)
			d.root, d.bare = root, true
			return d, n
		}
		t.Run("trigger", func(t *testing.T) {
			t.Parallel()
			probe := newProbe(t)
			d, n := bare(t, probe.Command)
			addr := freeAddr("127.0.0.1")
			ssh := n.Netconf(addr)
			call := d.Call(addr)
			call.AwaitStderr("Starting session: forced-command")
			ssh.in.Close()
			ssh.MustExit(0)
			shell := n.Ssh(addr, nil, "echo pwned-$((6*7))")
			d.Call(addr)
			shell.MustExit(1)
			contains(t, "ssh", shell.Stderr(), "only the netconf subsystem")
		})
		t.Run("what is used is shown", func(t *testing.T) {
			t.Parallel()
			d, _ := bare(t, "/bin/cat")
			check := start(t, "callhome-trigger", d.Command(nil, "--check"))
			check.MustExit(0)
			contains(t, "--check", check.Stdout(), "sshd -t accepts the built-in configuration")
			shown := start(t, "callhome-trigger", d.Command(nil, "--show-config"))
			shown.MustExit(0)
			contains(t, "--show-config", shown.Stdout(), "built-in configuration, /etc/callhome/sshd_config does not exist")
		})
		t.Run("manager", func(t *testing.T) {
			t.Parallel()
			d, n := bare(t, "/bin/cat")
			m := startManager(t, d)
			addr := freeAddr("127.0.0.1")
			ssh := n.Netconf(addr)
			if s := m.MustCallHome(addr, proto.WaitNetconf); s.User != netop {
				t.Errorf("the session is %+v", s)
			}
			ssh.in.Close()
			ssh.MustExit(0)
		})
	})
}

// What sshd would miss is found before the NETCONF client is called, by the
// manager as by the trigger.
func TestTheManagerRefusesBeforeItCalls(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		options func(d *device)
		says    []string
	}{
		{"no configuration", func(d *device) { d.options = append(d.options, "--sshd-config", "/nonexistent/sshd_config") },
			[]string{"/nonexistent/sshd_config: no such file or directory", "leave --sshd-config out"}},
		{"no subsystem", func(d *device) { d.options = d.options[:len(d.options)-2] },
			[]string{"no command for the netconf subsystem is set", "--netconf-server yuma"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := newDevice(t, "/bin/cat")
			tt.options(d)
			m := startManager(t, d)
			nms := listen(t, "127.0.0.1:0")
			_, err := m.CallHome(nms.Addr(), proto.WaitTCP)
			var e *proto.Error
			if !errors.As(err, &e) || e.Code != proto.CodeHandover || e.Data.Stage != proto.StageHandover {
				t.Fatalf("it ended with %v", err)
			}
			for _, part := range tt.says {
				if !strings.Contains(e.Message, part) {
					t.Errorf("it says %q, want %q in it", e.Message, part)
				}
			}
			nms.NoCall()
		})
	}
}

// An sshd that ends before its first byte is a failed call, for a request that waits
// for the connection alone and for a handover, and the error has sshd's own lines.
func TestAnSshdThatRefusesItsConfigurationIsAFailedCall(t *testing.T) {
	t.Parallel()
	d := newDevice(t, "/bin/cat")
	d.options = append(d.options, "--sshd-option", "NoSuchOption=1")
	m := startManager(t, d)
	nms := listen(t, "127.0.0.1:0")
	_, err := m.CallHome(nms.Addr(), proto.WaitTCP)
	var e *proto.Error
	if !errors.As(err, &e) || e.Code != proto.CodeHandover || !strings.Contains(e.Message, "Bad configuration option: NoSuchOption") {
		t.Errorf("the call ended with %v", err)
	}
}

// An sshd that ends before a login is named by its last line.
func TestTheCauseIsSshdsLastWords(t *testing.T) {
	t.Parallel()
	d := newDevice(t, "/bin/cat")
	d.options = append(d.options, "--sshd-option", "NoSuchOption=1")
	m := startManager(t, d)
	_, _ = m.CallHome(listen(t, "127.0.0.1:0").Addr(), proto.WaitSSH) // it fails
	if last := m.AwaitNone(); !strings.Contains(last.Cause, "Bad configuration option: NoSuchOption") {
		t.Errorf("it ended at %s because %q", last.Stage, last.Cause)
	}
}
