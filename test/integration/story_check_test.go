//go:build integration

package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"callhome/test/sandbox"
)

// Exit statuses are part of the interface (sysexits(3)). Each failure is one
// line that says what, to whom and why, and no call was made before it.
func TestExitStatuses(t *testing.T) {
	t.Parallel()
	nms := listen(t, "127.0.0.1:0")
	host, port := splitAddr(t, nms.Addr())
	here := []string{host, port}
	for _, c := range []struct {
		name    string
		args    []string
		options []string
		code    int
		says    []string
	}{
		{"no host", nil, nil, 64, []string{"HOST"}},
		{"empty host", []string{""}, nil, 64, []string{"HOST"}},
		{"host with a blank", []string{"a b"}, nil, 64, []string{"a b"}},
		{"bad IPv4", []string{"127.0.0.256"}, nil, 64, []string{"127.0.0.256"}},
		{"bad IPv6", []string{"[::1"}, nil, 64, []string{"[::1"}},
		{"bad port", []string{host, "70000"}, nil, 64, []string{"70000"}},
		{"port 0", []string{host, "0"}, nil, 64, []string{`"0"`}},
		{"port twice", []string{nms.Addr(), "4334"}, nil, 64, []string{"4334"}},
		{"an unexpected argument", []string{host, port, "opaque", "more"}, nil, 64, []string{"unexpected argument", "more"}},
		{"unknown option", here, []string{"--no-such-option"}, 64, []string{"no-such-option"}},
		{"option without its value", nil, []string{"--sshd"}, 64, []string{"sshd"}},
		{"bad value", here, []string{"--connect-timeout", "soon"}, 64, []string{"soon"}},
		{"line break in a value", here, []string{"--sshd-option", "Banner=/x\nPermitTTY=yes"}, 64, []string{"Banner"}},
		{"option that reaches further", here, []string{"--sshd-option", "Include=/etc/x"}, 64, []string{"Include"}},
		{"line break in the subsystem", here, []string{"--subsystem", "/bin/true\nPermitTTY yes"}, 64, []string{"subsystem"}},
		{"no sshd", here, []string{"--sshd", "/nonexistent/sshd"}, 66, []string{"/nonexistent/sshd"}},
		{"no sshd_config", here, []string{"--sshd-config", "/nonexistent/config"}, 66, []string{"/nonexistent/config"}},
		// sshd takes a directory for an empty configuration: all its defaults.
		{"sshd_config is a directory", here, []string{"--sshd-config", "/etc"}, 66, []string{"/etc"}},
		{"sshd is a directory", here, []string{"--sshd", "/usr"}, 66, []string{"/usr"}},
		{"no host key", here, []string{"--host-key", "/nonexistent/key"}, 66, []string{"/nonexistent/key"}},
		{"no host certificate", here, []string{"--host-certificate", "/nonexistent/cert"}, 66, []string{"/nonexistent/cert"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			device := newDevice(t, "/bin/true")
			call := start(t, "callhome-trigger", device.Command(c.args, c.options...))
			call.MustExit(c.code)
			oneLine(t, call.Stderr(), c.says...)
			if out := call.Stdout(); out != "" {
				t.Errorf("it wrote %q to stdout", out)
			}
		})
	}
	t.Cleanup(nms.NoCall)
}

// A fault of the defaults file says which line.
func TestFaultsOfTheDefaultsFile(t *testing.T) {
	t.Parallel()
	nms := listen(t, "127.0.0.1:0")
	for name, c := range map[string]struct {
		text string
		says string
	}{
		"unknown key":  {"# fine\n\nCALLHOME_NO_SUCH=1\n", ":3"},
		"twice":        {"CALLHOME_ATTEMPTS=1\nCALLHOME_ATTEMPTS=2\n", ":2"},
		"bad value":    {"CALLHOME_ATTEMPTS=many\n", ":1"},
		"no key":       {"attempts\n", ":1"},
		"open quote":   {"CALLHOME_SUBSYSTEM=\"/bin/true\n", ":1"},
		"no such file": {"", "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			device := newDevice(t, "/bin/true")
			file := filepath.Join(device.dir(), "trigger.conf")
			want := 66
			if c.text != "" {
				writeFile(t, file, c.text, 0o644)
				want = 78
			}
			cmd := device.Command(splitArgs(t, nms.Addr()))
			cmd.Env = append(cmd.Env, "CALLHOME_DEFAULTS="+file)
			call := start(t, "callhome-trigger", cmd)
			call.MustExit(want)
			oneLine(t, call.Stderr(), file, c.says)
		})
	}
	t.Cleanup(nms.NoCall)
}

// Without a command for the subsystem no call is made.
func TestNoSubsystem(t *testing.T) {
	t.Parallel()
	nms := listen(t, "127.0.0.1:0")
	device := newDevice(t, "/bin/true")
	device.options = device.options[:len(device.options)-2]
	call := device.Call(nms.Addr())
	call.MustExit(78)
	option := "--subsystem"
	if _, err := os.Stat("/usr/sbin/netconf-subsystem"); err == nil {
		option = "--netconf-server yuma" // the hint names the servers it finds
	}
	oneLine(t, call.Stderr(), "netconf", option)
	nms.NoCall()
}

// Flag, environment, defaults file, built-in: --show-config shows the value in
// force and where it came from, and the value shown is the value used.
func TestPrecedence(t *testing.T) {
	t.Parallel()
	device := newDevice(t, "/bin/true")
	file := writeFile(t, filepath.Join(device.dir(), "trigger.conf"),
		"CALLHOME_ATTEMPTS=2\nCALLHOME_RETRY_WAIT=2s\nCALLHOME_CONNECT_TIMEOUT='2s'\nCALLHOME_NETCONF_SERVER=yuma\n", 0o644)
	cmd := device.Command([]string{"192.0.2.1"}, "--show-config", "--connect-timeout", "4s")
	cmd.Env = append(cmd.Env, "CALLHOME_DEFAULTS="+file, "CALLHOME_RETRY_WAIT=3s", "CALLHOME_CONNECT_TIMEOUT=3s")
	call := start(t, "callhome-trigger", cmd)
	call.MustExit(0)
	rows := make(map[string]string)
	for line := range strings.Lines(call.Stdout()) {
		name, rest, _ := strings.Cut(line, " ")
		rows[name] = rest
	}
	for name, want := range map[string][2]string{
		"connect-timeout":     {"4s", "flag"},
		"retry-wait":          {"3s", "environment"},
		"attempts":            {"2", file + ":1"},
		"handover":            {"auto", "built-in"},
		"host":                {"192.0.2.1", "word"},
		"ssh-connection-port": {"830", "yuma"},
	} {
		contains(t, name, rows[name], want[0], want[1])
	}
}

// /etc/callhome/trigger.conf is the defaults file that a packaged trigger
// reads. This story has it to itself: it is not parallel.
func TestPackagedDefaultsFile(t *testing.T) {
	device := newDevice(t, "/bin/true")
	nms := listen(t, "127.0.0.1:0")
	const file = "/etc/callhome/trigger.conf"
	device.UseDefaultsFile()
	if err := sandbox.CopyFile(device.writeDefaults(append(device.options, "--device-id", "from-the-file")), file, 0o644); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(file)
	cmd := device.Command(splitArgs(t, nms.Addr()))
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin"}
	start(t, "callhome-trigger", cmd)
	if banner := nms.Accept().Banner(); !strings.HasSuffix(banner, " from-the-file\r\n") {
		t.Errorf("the version string is %q", banner)
	}
}

// --check names what is missing, each with what mends it, and its exit status
// is that of a call home; it makes no call.
func TestCheckReportsWhatIsMissing(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		options []string
		code    int
		says    []string
	}{
		{"nothing", nil, 0, []string{"ok", "OpenSSH_", "A call home can be made"}},
		{"sshd", []string{"--sshd", "/nonexistent/sshd"}, 66, []string{"/nonexistent/sshd", "openssh-server"}},
		{"no sshd at all", []string{"--sshd", "/bin/true"}, 78, []string{"/bin/true"}},
		{"sshd_config", []string{"--sshd-config", "/nonexistent/config"}, 66, []string{"/nonexistent/config"}},
		{"an option of sshd's", []string{"--sshd-option", "NoSuchOption=1"}, 78, []string{"NoSuchOption"}},
		{"the subsystem's command", []string{"--subsystem", "/nonexistent/netconf"}, 78, []string{"/nonexistent/netconf"}},
		{"the manager", []string{"--handover", "manager", "--manager-socket", "/nonexistent/mgr.sock"}, 69, []string{"/nonexistent/mgr.sock"}},
		{"netconfd", []string{"--subsystem", "/usr/sbin/netconf-subsystem --ncxserver-sockname=830@/nonexistent/ncx"}, 69, []string{"/nonexistent/ncx", "start netconfd"}},
		{"the interface", []string{"--interface", "nosuch0"}, 78, []string{"nosuch0", "--interface"}},
		{"the namespace", []string{"--netns", "/etc/passwd"}, 78, []string{"/etc/passwd: not a network namespace"}},
		{"the address", []string{"--local-address", "192.0.2.77"}, 78, []string{"192.0.2.77", "--local-address"}},
		{"the log's directory", []string{"--sshd-log", "/nonexistent/d/log"}, 71, []string{"/nonexistent/d/log", "create its directory"}},
		{"a user CA", []string{"--sshd-option", "TrustedUserCAKeys=/nonexistent/ca.pub"}, 0, []string{"warning", "/nonexistent/ca.pub"}},
		{"a host key beside a good one", []string{"--host-key", "/nonexistent/key"}, 66, []string{"/nonexistent/key"}},
		{"a host certificate", []string{"--host-certificate", "/nonexistent/cert.pub"}, 66, []string{"/nonexistent/cert.pub"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			device, _ := newSite(t, "/bin/true")
			check := start(t, "callhome-trigger", device.Command(nil, append([]string{"--check"}, c.options...)...))
			check.MustExit(c.code)
			contains(t, "--check", check.Stdout(), c.says...)
			if c.code != 0 {
				contains(t, "--check", check.Stdout(), "MISSING", "->")
			}
		})
	}
}

// --check says who can log in and with which key, and is red exactly where sshd lets
// no session begin.
func TestCheckSaysWhoCanLogIn(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		user    string
		text    string // of authorized_keys; KEY is the station's
		mode    os.FileMode
		options []string
		code    int
		says    string // FILE is authorized_keys, PRINT the key's fingerprint
	}{
		{"a key", netop, "KEY\n", 0o644, nil, 0, "netop, with ssh-ed25519 PRINT"},
		{"a key behind options", netop, "restrict,command=\"echo \\\"a b\\\"\" KEY\n", 0o644, nil, 0, "netop, with ssh-ed25519 PRINT"},
		{"AllowUsers names no user", netop, "KEY\n", 0o644, []string{"--sshd-option", "AllowUsers=netconf"}, 77, "AllowUsers names netconf, which is no user of this machine"},
		{"AllowUsers names another user", netop, "KEY\n", 0o600, []string{"--sshd-option", "AllowUsers=" + absent}, 77, "absent cannot log in: the shell /usr/sbin/nologin"},
		{"a pattern of AllowUsers", netop, "KEY\n", 0o644, []string{"--sshd-option", "AllowUsers=net?p@127.*"}, 0, "netop, with"},
		{"no authorized_keys", netop, "", 0, nil, 77, "FILE does not exist"},
		{"mode 666", netop, "KEY\n", 0o666, nil, 77, "FILE has mode 0666"},
		{"mode 666 and no key", netop, "", 0o666, nil, 77, "FILE has mode 0666"},
		{"no key in it", netop, "# KEY\n", 0o644, nil, 77, "FILE has no public key"},
		{"a private key in it", netop, "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n", 0o644, nil, 77, "FILE has no public key"},
		{"the user cannot read it", netop, "KEY\n", 0o600, nil, 77, "cannot read"},
		{"a locked account, without PAM", locked, "KEY\n", 0o644, []string{"--sshd-option", "UsePAM=no", "--sshd-option", "AllowUsers=" + locked}, 77, "locked cannot log in: the account is locked"},
		{"a locked account, with PAM", locked, "KEY\n", 0o644, []string{"--sshd-option", "UsePAM=yes", "--sshd-option", "AllowUsers=" + locked}, 0, "locked, with ssh-ed25519 PRINT"},
		{"no password, without PAM", starred, "KEY\n", 0o644, []string{"--sshd-option", "UsePAM=no", "--sshd-option", "AllowUsers=" + starred}, 0, "starred, with ssh-ed25519 PRINT"},
		{"nologin", absent, "KEY\n", 0o644, []string{"--sshd-option", "AllowUsers=" + absent}, 77, "the shell /usr/sbin/nologin ends each session at once"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			device, nms := newSite(t, "/bin/true")
			nms.user = c.user
			public := publicKey(t, nms.key)
			if c.mode == 0 {
				if err := os.Remove(device.authorizedKeys); err != nil {
					t.Fatal(err)
				}
			} else {
				writeFile(t, device.authorizedKeys, strings.ReplaceAll(c.text, "KEY", public), c.mode)
				if err := os.Chmod(device.authorizedKeys, c.mode); err != nil {
					t.Fatal(err)
				}
			}
			options := c.options
			if options == nil {
				options = []string{"--sshd-option", "AllowUsers=" + netop}
			}
			check := start(t, "callhome-trigger", device.Command(nil, append([]string{"--check"}, options...)...))
			check.MustExit(c.code)
			contains(t, "--check", check.Stdout(), strings.NewReplacer("FILE", device.authorizedKeys, "PRINT", fingerprintOf(t, nms.key)).Replace(c.says))

			addr := freeAddr("127.0.0.1")
			ssh := nms.Netconf(addr)
			device.Call(addr, options...)
			if code := ssh.Exit(patience); (code == 0) != (c.code == 0) {
				t.Errorf("ssh ends with %d, so --check was wrong:\n%s\n%s", code, check.Stdout(), ssh.Stderr())
			}
		})
	}
}

// Without root's rights --check has advice that can be followed without them,
// and where that was followed it does not give it again.
func TestCheckWithoutRoot(t *testing.T) {
	t.Parallel()
	device := newDevice(t, "/bin/true")
	device.options = []string{"--subsystem", "/bin/true"}
	own := writeFile(t, filepath.Join(runDir, "home", netop, "check_keys"), publicKey(t, newKey(t, device.dir(), "netop"))+"\n", 0o644)
	check := func(code int, options ...string) string {
		t.Helper()
		cmd := device.Command(nil, append([]string{"--check"}, options...)...)
		cmd.SysProcAttr.Credential = credential(netopID)
		p := start(t, "callhome-trigger", cmd)
		p.MustExit(code)
		return p.Stdout()
	}
	key := newKey(t, device.dir(), "root-key")
	out := check(77, "--host-key", key, "--sshd-log", "/etc/callhome/log")
	contains(t, "--check", out, "only netop can log in", "--sshd-option UsePAM=no", key+" is not readable for netop", "/etc/callhome/log cannot be written: permission denied")
	if strings.Contains(out, "usermod") || strings.Contains(out, "ssh-keygen -A") {
		t.Errorf("advice for root alone:\n%s", out)
	}
	if err := os.Chown(key, netopID, netopID); err != nil {
		t.Fatal(err)
	}
	out = check(0, "--host-key", key, "--sshd-option", "UsePAM=no", "--sshd-option", "AuthorizedKeysFile="+own)
	contains(t, "--check", out, "A call home can be made.", "logins only as netop")
	if strings.Contains(out, "->") {
		t.Errorf("advice that was followed:\n%s", out)
	}
}

// --check finds the certificate that belongs to another key, which sshd skips
// in silence, and the key that others can read.
func TestCheckFindsWhatSshdSkips(t *testing.T) {
	t.Parallel()
	device, _ := newSite(t, "/bin/true")
	ca, other := newKey(t, device.dir(), "ca"), newKey(t, device.dir(), "other")
	unknown := certify(t, ca, other, "other", alias, true)
	check := start(t, "callhome-trigger", device.Command(nil, "--check", "--host-certificate", unknown))
	check.MustExit(0)
	contains(t, "--check", check.Stdout(), "warning", unknown)

	if err := os.Chmod(other, 0o644); err != nil {
		t.Fatal(err)
	}
	check = start(t, "callhome-trigger", device.Command(nil, "--check", "--host-key", other))
	check.MustExit(0)
	contains(t, "--check", check.Stdout(), "warning", other)
}
