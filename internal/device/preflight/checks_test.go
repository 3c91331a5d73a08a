package preflight

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"callhome/internal/device/dial"
	"callhome/internal/device/settings"
	"callhome/internal/sshdexec"
	"callhome/internal/sysexits"

	"golang.org/x/sys/unix"
)

// here is a file that exists on every machine.
const here = "/etc/passwd"

// config reads a configuration as sshd -T prints it.
func config(lines ...string) map[string][]string { return parseDump(strings.Join(lines, "\n") + "\n") }

func sshd(c sshdexec.Command) *settings.Settings {
	return &settings.Settings{Call: settings.Call{Sshd: c}}
}

// Each check with each result that it can have.
func TestChecks(t *testing.T) {
	dir := t.TempDir()
	for _, tt := range []struct {
		name  string
		check func(*machine) []Finding
		m     machine
		want  []Finding
	}{
		{"sshd does not exist", checkSshd, machine{s: sshd(sshdexec.Command{Sshd: "/nonexistent/sshd"})},
			[]Finding{{Missing, "/nonexistent/sshd does not exist", "apt install openssh-server, or set --sshd", sysexits.NoInput}}},
		{"another program", checkSshd, machine{s: sshd(sshdexec.Command{Sshd: here})},
			[]Finding{{Missing, here + " is not OpenSSH's sshd: -V prints no OpenSSH version", "set --sshd to OpenSSH's sshd", sysexits.Config}}},
		{"an sshd before those that were tested", checkSshd, machine{s: sshd(sshdexec.Command{Sshd: here}), version: "OpenSSH_8.3p1", major: 8, minor: 3},
			[]Finding{{Warning, here + " is OpenSSH_8.3p1; callhome is tested with 8.4 to 10.x", "use OpenSSH 8.4 or later", 0}}},
		{"one far before", checkSshd, machine{s: sshd(sshdexec.Command{Sshd: here}), version: "OpenSSH_7.9p1", major: 7, minor: 9},
			[]Finding{{Warning, here + " is OpenSSH_7.9p1; callhome is tested with 8.4 to 10.x", "use OpenSSH 8.4 or later", 0}}},
		{"the first tested one", checkSshd, machine{s: sshd(sshdexec.Command{Sshd: here}), version: "OpenSSH_8.4p1", major: 8, minor: 4},
			[]Finding{{Good, here + ", OpenSSH_8.4p1", "", 0}}},
		{"10.x", checkSshd, machine{s: sshd(sshdexec.Command{Sshd: here}), version: "OpenSSH_10.3p1", major: 10, minor: 3},
			[]Finding{{Good, here + ", OpenSSH_10.3p1", "", 0}}},

		{"no configuration", checkConfig, machine{s: sshd(sshdexec.Command{Config: "/nonexistent/c"})},
			[]Finding{{Missing, "/nonexistent/c does not exist", "install packaging/sshd_config there, or leave --sshd-config out", sysexits.NoInput}}},
		{"no sshd to ask", checkConfig, machine{s: sshd(sshdexec.Command{Config: here})}, nil},
		{"accepted", checkConfig, machine{s: sshd(sshdexec.Command{Config: here}), version: "x", testOK: true},
			[]Finding{{Good, "sshd -t accepts " + here + " and the options given", "", 0}}},
		{"refused", checkConfig, machine{s: sshd(sshdexec.Command{Config: here}), version: "x", testOutput: "/c: line 1: Bad configuration option: X\r\n\r\n/c: terminating, 1 bad configuration options\r\n"},
			[]Finding{{Missing, "sshd -t: /c: line 1: Bad configuration option: X", "correct that line; sshd_config(5)", sysexits.Config},
				{Missing, "sshd -t: /c: terminating, 1 bad configuration options", "correct that line; sshd_config(5)", sysexits.Config}}},
		{"an option refused", checkConfig, machine{s: sshd(sshdexec.Command{Config: here}), version: "x", testOutput: "command-line: line 0: Bad configuration option: X\r\n"},
			[]Finding{{Missing, "sshd -t: command-line: line 0: Bad configuration option: X", "correct --sshd-option; sshd_config(5)", sysexits.Config}}},
		{"refused for what other checks report", checkConfig, machine{s: sshd(sshdexec.Command{Config: here}), version: "x",
			testOutput: "Unable to load host key: /k\r\nsshd: no hostkeys available -- exiting.\r\nMissing privilege separation directory: /run/sshd\r\n"},
			[]Finding{{Good, "sshd -t finds no fault in " + here + " itself", "", 0}}},

		{"keys, no sshd to ask", checkHostKeys, machine{}, nil},
		{"keys", checkHostKeys, machine{s: sshd(sshdexec.Command{}), version: "x", testOK: true, config: config("hostkey "+here, "hostkey /nonexistent/k")},
			[]Finding{{Good, "1 of 2 exist", "", 0}}},
		{"keys of one's own that are not there", checkHostKeys, machine{s: sshd(sshdexec.Command{HostKeys: []string{"/nonexistent/a", here, "/nonexistent/b"}}), version: "x"},
			[]Finding{{Missing, "/nonexistent/a does not exist", "create it with ssh-keygen -t ed25519 -N '' -f /nonexistent/a", sysexits.NoInput},
				{Missing, "/nonexistent/b does not exist", "create it with ssh-keygen -t ed25519 -N '' -f /nonexistent/b", sysexits.NoInput}}},
		{"no keys", checkHostKeys, machine{s: sshd(sshdexec.Command{}), version: "x", testOutput: "Unable to load host key: /k\r\nsshd: no hostkeys available -- exiting.\r\n"},
			[]Finding{{Warning, "Unable to load host key: /k; sshd starts without this key", "ssh-keygen -A makes missing default keys; a key needs mode 0600", 0},
				{Missing, "sshd: no hostkeys available -- exiting.", "ssh-keygen -A, or set --host-key", sysexits.NoInput}}},
		{"keys that are root's", checkHostKeys, machine{uid: 1, user: "op", s: sshd(sshdexec.Command{}), version: "x",
			testOutput: "Unable to load host key: " + here + "\r\nUnable to load host key: /nonexistent/k\r\nUnable to load host key: " + here + "\r\nsshd: no hostkeys available -- exiting.\r\n"},
			[]Finding{{Missing, here + ", " + here + " are not readable for op", "create one that op owns: ssh-keygen -q -t ed25519 -N '' -f ~/host_key, and set --host-key", sysexits.NoInput}}},
		{"default keys that are root's", checkHostKeys, machine{uid: 1, user: "op", s: sshd(sshdexec.Command{}), version: "x", testOutput: "sshd: no hostkeys available -- exiting.\r\n", defaultKeys: here[:len(here)-1] + "[d]"},
			[]Finding{{Missing, here + " are not readable for op", "create one that op owns: ssh-keygen -q -t ed25519 -N '' -f ~/host_key, and set --host-key", sysexits.NoInput}}},
		{"missing default keys", checkHostKeys, machine{uid: 1, user: "op", s: sshd(sshdexec.Command{}), version: "x", testOutput: "sshd: no hostkeys available -- exiting.\r\n", defaultKeys: "/nonexistent/*"},
			[]Finding{{Missing, "sshd: no hostkeys available -- exiting.", "ssh-keygen -A, or set --host-key", sysexits.NoInput}}},
		{"missing keys, without root's rights", checkHostKeys, machine{uid: 1, user: "op", s: sshd(sshdexec.Command{}), version: "x",
			testOutput: "Unable to load host key: /nonexistent/k\r\nsshd: no hostkeys available -- exiting.\r\n"},
			[]Finding{{Warning, "Unable to load host key: /nonexistent/k; sshd starts without this key", "ssh-keygen -A makes missing default keys; a key needs mode 0600", 0},
				{Missing, "sshd: no hostkeys available -- exiting.", "ssh-keygen -A, or set --host-key", sysexits.NoInput}}},
		{"keys, and no dump of the configuration", checkHostKeys, machine{s: sshd(sshdexec.Command{}), version: "x"}, nil},

		{"no certificate", checkHostCertificates, machine{s: sshd(sshdexec.Command{}), config: config("hostcertificate none")}, nil},
		{"a certificate", checkHostCertificates, machine{s: sshd(sshdexec.Command{HostCertificates: []string{here}}), config: config("hostcertificate " + here)},
			[]Finding{{Good, here, "", 0}}},
		{"a certificate of no file", checkHostCertificates, machine{s: sshd(sshdexec.Command{HostCertificates: []string{"/nonexistent/c"}})},
			[]Finding{{Missing, "/nonexistent/c does not exist", "sign the host key: ssh-keygen -s CA -I ID -h -n NAME KEY.pub", sysexits.NoInput}}},
		{"a certificate that sshd passes over", checkHostCertificates, machine{s: sshd(sshdexec.Command{}), testOutput: "No matching private key for certificate: /c\r\n", config: config("hostcertificate /c")},
			[]Finding{{Warning, "No matching private key for certificate: /c; sshd starts without it, and a client that trusts only the CA refuses the device", "sign the host key: ssh-keygen -s CA -I ID -h -n NAME KEY.pub", 0}}},

		{"no CA", checkUserCA, machine{config: config("trustedusercakeys none", "revokedkeys none")}, nil},
		{"a CA", checkUserCA, machine{config: config("trustedusercakeys " + here)}, []Finding{{Good, here, "", 0}}},
		{"a CA that does not exist", checkUserCA, machine{config: config("trustedusercakeys /nonexistent/ca")},
			[]Finding{{Warning, "trustedusercakeys names /nonexistent/ca, which does not exist; sshd reports nothing and refuses the logins that need it", "create the file, or remove the option", 0}}},
		{"a list of revoked keys that does not exist", checkUserCA, machine{config: config("revokedkeys /nonexistent/r")},
			[]Finding{{Warning, "revokedkeys names /nonexistent/r, which does not exist; sshd reports nothing and refuses the logins that need it", "create the file, or remove the option", 0}}},
		{"principals of each user", checkUserCA, machine{config: config("authorizedprincipalsfile /etc/ssh/%u", "authorizedprincipalsfile .ssh/p")}, nil},

		{"no subsystem", checkSubsystem, machine{s: sshd(sshdexec.Command{}), config: config("subsystem sftp /bin/sh")},
			[]Finding{{Missing, "no command for the netconf subsystem is set", settings.SubsystemHint(), sysexits.Config}}},
		{"the configuration's subsystem", checkSubsystem, machine{s: sshd(sshdexec.Command{}), config: config("subsystem sftp /nonexistent/x", "subsystem netconf /bin/sh -c x")},
			[]Finding{{Good, "/bin/sh -c x", "", 0}}},
		{"a subsystem of one's own wins", checkSubsystem, machine{s: sshd(sshdexec.Command{Subsystem: "/bin/sh"}), config: config("subsystem netconf /nonexistent/x")},
			[]Finding{{Good, "/bin/sh", "", 0}}},
		{"a subsystem that sees another port", checkSubsystem, machine{s: sshd(sshdexec.Command{Subsystem: `"/bin/sh" -x`, SSHConnectionPort: 830})},
			[]Finding{{Good, `"/bin/sh" -x, which sees server port 830`, "", 0}}},
		{"a program that does not exist", checkSubsystem, machine{s: sshd(sshdexec.Command{Subsystem: "/nonexistent/x -a"})},
			[]Finding{{Missing, "/nonexistent/x cannot be executed: stat /nonexistent/x: no such file or directory", "install the NETCONF server, or set --subsystem", sysexits.Config}}},
		{"a program without its path", checkSubsystem, machine{s: sshd(sshdexec.Command{Subsystem: "netconf-subsystem"})},
			[]Finding{{Warning, "netconf-subsystem has no absolute path, and the PATH that sshd sets for the user has no sbin", "set --subsystem with the program's absolute path", 0}}},
		{"a file that is no program", checkSubsystem, machine{s: sshd(sshdexec.Command{Subsystem: here})},
			[]Finding{{Missing, here + " cannot be executed: permission denied", "install the NETCONF server, or set --subsystem", sysexits.Config}}},

		{"netconfd does not exist", checkSubsystem, machine{s: sshd(sshdexec.Command{Subsystem: program(t, "netconf-subsystem") + " --ncxserver-sockname=830@/nonexistent/ncx"})},
			[]Finding{{Missing, "no netconfd answers at /nonexistent/ncx: no such file or directory", "start netconfd, or set --subsystem with its --ncxserver-sockname=PORT@PATH", sysexits.Unavailable}}},

		{"from anywhere", checkSource, machine{s: &settings.Settings{}}, nil},
		{"from an address of ours", checkSource, machine{s: &settings.Settings{Call: settings.Call{Dial: dial.Options{LocalAddress: netip.MustParseAddr("127.0.0.1"), Interface: "lo"}}}},
			[]Finding{{Good, "127.0.0.1, interface lo", "", 0}}},
		{"from an address that is not ours", checkSource, machine{s: &settings.Settings{Call: settings.Call{Dial: dial.Options{LocalAddress: netip.MustParseAddr("192.0.2.77")}}}},
			[]Finding{{Missing, "binding to the local address 192.0.2.77:0: cannot assign requested address", "check --local-address, --interface and --netns", sysexits.Config}}},
		{"from no interface", checkSource, machine{s: &settings.Settings{Call: settings.Call{Dial: dial.Options{Interface: "nosuch0"}}}},
			[]Finding{{Missing, "binding to the interface nosuch0: no such device", "check --local-address, --interface and --netns", sysexits.Config}}},
		{"from no namespace", checkSource, machine{s: &settings.Settings{Call: settings.Call{Dial: dial.Options{Netns: "/nonexistent/ns"}}}},
			[]Finding{{Missing, "opening the network namespace: open /nonexistent/ns: no such file or directory", "check --local-address, --interface and --netns", sysexits.Config}}},

		{"shells, no configuration", checkShells, machine{}, nil},

		{"a log file", checkLog, machine{s: &settings.Settings{SshdLog: filepath.Join(dir, "log")}}, []Finding{{Good, filepath.Join(dir, "log"), "", 0}}},
		{"a log in no directory", checkLog, machine{s: &settings.Settings{SshdLog: "/nonexistent/d/log"}},
			[]Finding{{Missing, "/nonexistent/d/log cannot be written: no such file or directory", "create its directory, or set another --sshd-log", sysexits.OSErr}}},
		{"a log below a file", checkLog, machine{s: &settings.Settings{SshdLog: here + "/log"}},
			[]Finding{{Missing, here + "/log cannot be written: not a directory", "set another --sshd-log, which this user can write", sysexits.OSErr}}},
		{"a log that is no file", checkLog, machine{s: &settings.Settings{SshdLog: os.DevNull}},
			[]Finding{{Missing, "/dev/null cannot be written: it is not a regular file, and anything else can block the session", "set another --sshd-log, which this user can write", sysexits.OSErr}}},
		{"a log that may block", checkLog, machine{s: &settings.Settings{SshdLog: "stderr"}},
			[]Finding{{Warning, "standard error: a full pipe that no program reads blocks the session", "set --sshd-log auto, unless the caller reads all of it", 0}}},

		{"no manager", checkManager, machine{s: &settings.Settings{Handover: settings.HandoverAuto, ManagerSocket: "/nonexistent/m"}},
			[]Finding{{Good, "no manager answers at /nonexistent/m; not needed for --handover auto", "", 0}}},
		{"no manager where one is needed", checkManager, machine{s: &settings.Settings{Handover: settings.HandoverManager, ManagerSocket: "/nonexistent/m"}},
			[]Finding{{Missing, "no manager answers at /nonexistent/m", "start callhome-mgr, or use --handover exec", sysexits.Unavailable}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.check(&tt.m); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("finds\n%+v, want\n%+v", got, tt.want)
			}
		})
	}
}

// The privilege separation directory, and the command that corrects it.
func TestCheckPrivsep(t *testing.T) {
	for _, tt := range []struct {
		name string
		m    machine
		want []Finding
	}{
		{"no sshd to ask", machine{}, nil},
		{"not root, with PAM", machine{uid: 1, user: "op", s: sshd(sshdexec.Command{})},
			[]Finding{{Warning, "not running as root: only op can log in, and only without PAM", "set --sshd-option UsePAM=no and have clients log in as op, or run as root", 0}}},
		{"not root, without PAM", machine{uid: 1, user: "op", s: sshd(sshdexec.Command{}), config: config("usepam no")},
			[]Finding{{Good, "not needed: not running as root, and logins only as op", "", 0}}},
		{"not root, without PAM, and an sshd whose dump lacks it", machine{uid: 1, user: "op", s: sshd(sshdexec.Command{Options: []string{"usepam=No"}})},
			[]Finding{{Good, "not needed: not running as root, and logins only as op", "", 0}}},
		{"in order", machine{version: "x", testOutput: "other\r\n"}, []Finding{{Good, "the directory exists, with the right owner and mode", "", 0}}},
		{"it cannot be made", machine{version: "x", privsepErr: unix.EROFS}, []Finding{{Missing, "read-only file system", "install -d -m 0755 /run/sshd", sysexits.OSErr}}},
		{"another one is missing", machine{version: "x", testOutput: "Missing privilege separation directory: /opt/empty\r\n"},
			[]Finding{{Missing, "Missing privilege separation directory: /opt/empty", "install -d -o root -g root -m 0755 /opt/empty", sysexits.Config}}},
		{"owned by another user", machine{version: "x", testOutput: "/run/sshd must be owned by root and not group or world-writable.\r\n"},
			[]Finding{{Missing, "/run/sshd must be owned by root and not group or world-writable.", "install -d -o root -g root -m 0755 /run/sshd", sysexits.Config}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := checkPrivsep(&tt.m); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("finds\n%+v, want\n%+v", got, tt.want)
			}
		})
	}
}

// Without --sshd-log the log depends on the user and on a running syslog.
func TestTheDefaultLogDependsOnUserAndSyslog(t *testing.T) {
	_, none := os.Stat("/dev/log")
	for dest, want := range map[string]Finding{
		"auto":   {Good, "/run/callhome/log, one file a session", "", 0},
		"syslog": {Good, "syslog", "", 0},
	} {
		switch {
		case dest == "syslog" && none != nil:
			want = Finding{Missing, "/dev/log does not exist", "start syslog, or set --sshd-log", sysexits.OSErr}
		case dest == "auto" && os.Geteuid() != 0 && none != nil:
			want = Finding{Missing, "/run/callhome/log cannot be written, and no syslog runs", "set --sshd-log to a file that this user can write", sysexits.NoPerm}
		case dest == "auto" && os.Geteuid() != 0:
			want = Finding{Good, "syslog, as /run/callhome/log cannot be written by this user", "", 0}
		}
		if got := checkLog(&machine{s: &settings.Settings{SshdLog: dest}}); !reflect.DeepEqual(got, []Finding{want}) {
			t.Errorf("%s: finds\n%+v, want\n%+v", dest, got, want)
		}
	}
}

// sshd's keepalive and TCP's: which one detects first that the client vanished,
// and when.
func TestCheckKeepalive(t *testing.T) {
	for _, tt := range []struct {
		name            string
		major, minor    int
		interval, count string
		tcp             dial.KeepAlive
		want            Finding
	}{
		{"sshd first", 9, 9, "5", "3", dial.KeepAlive{Idle: 30, Interval: 10, Count: 6}, Finding{Good, "a silent client is dropped after 20 s, by sshd", "", 0}},
		{"sshd alone", 9, 9, "30", "3", dial.KeepAlive{}, Finding{Good, "a silent client is dropped after 120 s, by sshd", "", 0}},
		{"TCP first", 9, 9, "30", "3", dial.KeepAlive{Idle: 30, Interval: 10, Count: 6}, Finding{Good, "a silent client is dropped after 90 s by TCP, after 120 s by sshd", "", 0}},
		{"TCP alone, as sshd does not ask", 9, 9, "0", "3", dial.KeepAlive{Idle: 30, Interval: 10, Count: 6}, Finding{Warning, "TCP alone, after 90 s; RFC 8071 section 4.1 asks for SSH's", "set --ssh-keepalive 30,3", 0}},
		{"TCP alone, as sshd asks for ever", 9, 9, "30", "0", dial.KeepAlive{Idle: 30, Interval: 10, Count: 6}, Finding{Warning, "TCP alone, after 90 s; RFC 8071 section 4.1 asks for SSH's", "set --ssh-keepalive 30,3", 0}},
		{"both at once", 9, 9, "30", "2", dial.KeepAlive{Idle: 30, Interval: 10, Count: 6}, Finding{Good, "a silent client is dropped after 90 s by TCP, after 90 s by sshd", "", 0}},
		{"an sshd whose dump lacks it", 9, 9, "", "", dial.KeepAlive{}, Finding{Warning, "none: the session of a client that vanished never ends", "set --ssh-keepalive 30,3 and --tcp-keepalive 30,10,6", 0}},
		{"neither", 9, 9, "0", "0", dial.KeepAlive{}, Finding{Warning, "none: the session of a client that vanished never ends", "set --ssh-keepalive 30,3 and --tcp-keepalive 30,10,6", 0}},
		{"the last before the slow ones", 9, 1, "5", "3", dial.KeepAlive{}, Finding{Good, "a silent client is dropped after 20 s, by sshd", "", 0}},
		{"the first slow one", 9, 2, "5", "3", dial.KeepAlive{}, Finding{Good, "a silent client is dropped after 40 s, by sshd, as this version takes twice as long (fixed in 9.5)", "", 0}},
		{"the last slow one", 9, 4, "5", "3", dial.KeepAlive{}, Finding{Good, "a silent client is dropped after 40 s, by sshd, as this version takes twice as long (fixed in 9.5)", "", 0}},
		{"the first behind them", 9, 5, "5", "3", dial.KeepAlive{}, Finding{Good, "a silent client is dropped after 20 s, by sshd", "", 0}},
		{"the same minor number of another version", 10, 2, "5", "3", dial.KeepAlive{}, Finding{Good, "a silent client is dropped after 20 s, by sshd", "", 0}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := machine{major: tt.major, minor: tt.minor, s: &settings.Settings{Call: settings.Call{Dial: dial.Options{KeepAlive: tt.tcp}}},
				config: config("clientaliveinterval "+tt.interval, "clientalivecountmax "+tt.count)}
			if tt.interval == "" {
				m.config = config("port 22")
			}
			if got := checkKeepalive(&m); !reflect.DeepEqual(got, []Finding{tt.want}) {
				t.Errorf("finds\n%+v, want\n%+v", got, tt.want)
			}
		})
	}
	if got := checkKeepalive(&machine{}); got != nil {
		t.Errorf("without an sshd to ask: %+v", got)
	}
}

// Root may connect to any socket, so the test makes the error.
func TestAManagerThatRefusesThisUserIsReported(t *testing.T) {
	const reach = "give /run/callhome mode 0755 and this user the group callhome"
	for how, want := range map[settings.Handover]Finding{
		settings.HandoverManager: {Missing, "this user may not connect to the manager at /run/callhome/mgr.sock", reach + ", or use --handover exec", sysexits.NoPerm},
		settings.HandoverAuto:    {Warning, "this user may not connect to the manager at /run/callhome/mgr.sock; --handover auto continues without it", reach, 0},
		settings.HandoverExec:    {Good, "no manager answers at /run/callhome/mgr.sock; not needed for --handover exec", "", 0},
	} {
		s := &settings.Settings{Handover: how, ManagerSocket: "/run/callhome/mgr.sock"}
		if got := managerFindings(s, &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", unix.EACCES)}); !reflect.DeepEqual(got, []Finding{want}) {
			t.Errorf("%s: finds\n%+v, want\n%+v", how, got, want)
		}
	}
}

func TestANetconfdThatAnswersIsReported(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ncx")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	command := program(t, "netconf-subsystem") + " --ncxserver-sockname=830@" + path
	m := machine{s: sshd(sshdexec.Command{Subsystem: command})}
	if got, want := checkSubsystem(&m), []Finding{{Good, command, "", 0}}; !reflect.DeepEqual(got, want) {
		t.Errorf("finds %+v, want %+v", got, want)
	}
}

func TestNetconfdSocket(t *testing.T) {
	for command, want := range map[string]string{
		"/usr/sbin/netconf-subsystem":                                     "/tmp/ncxserver.sock",
		`"/usr/sbin/netconf-subsystem" --ncxserver-sockname=830@/run/ncx`: "/run/ncx",
		"/usr/sbin/netconf-subsystem '--ncxserver-sockname=830@/run/ncx'": "/run/ncx",
		"/usr/local/bin/netconf-subsys":                                   "",
		"/bin/sh -c netconf-subsystem":                                    "",
	} {
		if got := netconfdSocket(strings.Fields(command)); got != want {
			t.Errorf("%s: %q, want %q", command, got, want)
		}
	}
}

// The first call home creates the directory of the session logs.
func TestLogDirFindings(t *testing.T) {
	dir := t.TempDir()
	for path, want := range map[string]Finding{
		dir:              {Good, dir + ", one file a session", "", 0},
		dir + "/a/b/log": {Good, dir + "/a/b/log, one file a session", "", 0},
		here:             {Missing, here + " cannot be written: not a directory", "remove the file in its place, or set --sshd-log", sysexits.OSErr},
		here + "/log":    {Missing, here + "/log cannot be written: not a directory", "remove the file in its place, or set --sshd-log", sysexits.OSErr},
	} {
		if got := logDirFindings(path); !reflect.DeepEqual(got, []Finding{want}) {
			t.Errorf("%s: finds\n%+v, want\n%+v", path, got, want)
		}
	}
}

// program makes an executable file of that name.
func program(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAManagerThatAnswersIsReported(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	m := machine{s: &settings.Settings{Handover: settings.HandoverManager, ManagerSocket: path}}
	if got, want := checkManager(&m), []Finding{{Good, "answers at " + path, "", 0}}; !reflect.DeepEqual(got, want) {
		t.Errorf("finds %+v, want %+v", got, want)
	}
}

func TestReadAccounts(t *testing.T) {
	passwd := "root:x:0:0:root:/root:/bin/bash\n" +
		"# a comment\n" +
		"\n" +
		"+::::::\n" +
		"netconf:x:1001:1001:a:b:/home/netconf:/bin/sh\n" + // a colon too many
		"short:x:1002\n" +
		"odd:x:uid:0::/:/bin/sh\n" +
		"op:x:1003:100:Operator,,,:/home/op:\n"
	want := []account{
		{name: "root", uid: 0, home: "/root", shell: "/bin/bash"},
		{name: "netconf", uid: 1001, gid: 1001, home: "b", shell: "/home/netconf"},
		{name: "op", uid: 1003, gid: 100, home: "/home/op", shell: ""},
	}
	if got := readAccounts(strings.NewReader(passwd)); !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestAllowedUsers(t *testing.T) {
	got := allowedNames(config("allowusers root", "allowusers op@192.0.2.* adm*", "allowusers !x a?b net"))
	if want := []string{"root", "op", "net"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestIsOrdinary(t *testing.T) {
	for a, want := range map[account]bool{
		{name: "root", uid: 0}:       true,
		{name: "daemon", uid: 1}:     false,
		{name: "sshd", uid: 999}:     false,
		{name: "op", uid: 1000}:      true,
		{name: "nobody", uid: 65534}: false,
	} {
		if got := isOrdinary(a); got != want {
			t.Errorf("%+v: %v, want %v", a, got, want)
		}
	}
}

func TestShellFindings(t *testing.T) {
	home := t.TempDir()
	for _, file := range []string{".bashrc", ".cshrc", ".config/fish/config.fish"} {
		path := filepath.Join(home, file)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	user := func(shell, home string) account { return account{name: "op", uid: 1000, shell: shell, home: home} }
	root := account{name: "root", shell: "/bin/bash", home: home}
	const (
		costs  = " before each session: the user's own code, which delays it"
		others = "have clients log in as a user with the shell /bin/sh, and name that in AllowUsers"
		change = others + "; usermod -s /bin/sh op, where that account is for NETCONF alone"
	)
	runs := func(fix, files string) []Finding {
		return []Finding{{Warning, "login shells run " + files + costs, fix, 0}}
	}
	for _, tt := range []struct {
		name  string
		uid   int
		users []account
		want  []Finding
	}{
		{"sh", 0, []account{user("/bin/sh", home)}, nil},
		{"dash", 0, []account{user("/bin/dash", home)}, nil},
		{"none", 0, []account{user("", home)}, nil},
		{"bash without its file", 0, []account{user("/bin/bash", "/nonexistent")}, nil},
		{"zsh without its file", 0, []account{user("/bin/zsh", home)}, nil},
		{"bash", 0, []account{user("/bin/bash", home)}, runs(change, home+"/.bashrc")},
		{"tcsh", 0, []account{user("/bin/tcsh", home)}, runs(change, home+"/.cshrc")},
		{"fish", 0, []account{user("/usr/bin/fish", home)}, runs(change, home+"/.config/fish/config.fish")},
		// The check never advises to change root's shell.
		{"root", 0, []account{root}, runs(others, home+"/.bashrc")},
		{"root and another", 0, []account{root, user("/bin/bash", home)}, runs(change, home+"/.bashrc, "+home+"/.bashrc")},
		{"ourselves", 1000, []account{user("/bin/bash", home)}, runs("chsh -s /bin/sh, where the account is for NETCONF alone", home+"/.bashrc")},
		{"many", 0, slices.Repeat([]account{user("/bin/bash", home)}, 5), runs(change, home+"/.bashrc, "+home+"/.bashrc, "+home+"/.bashrc and 2 more")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := shellFindings(&machine{uid: tt.uid}, tt.users); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("%+v, want %+v", got, tt.want)
			}
		})
	}
}

// The columns, the order, the last line and the exit status of a report.
func TestRunReportsAllChecks(t *testing.T) {
	good := &settings.Settings{
		Call:          settings.Call{Sshd: sshdexec.Command{Config: here, Subsystem: "/bin/sh", HostCertificates: nil}},
		SshdLog:       filepath.Join(t.TempDir(), "log"),
		Handover:      settings.HandoverExec,
		ManagerSocket: "/nonexistent/m",
	}
	keys := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(keys, []byte(aKey+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	accepts := `case "$1" in -T) echo "hostkey ` + here + `"; echo "allowusers root *"; echo "permitrootlogin yes"; echo "strictmodes no"; echo "authorizedkeysfile ` + keys + `"; echo "clientaliveinterval 30"; echo "clientalivecountmax 3";; esac`
	for _, tt := range []struct {
		name   string
		change func(*settings.Settings)
		code   int
		lines  []string // some of them
		last   string
	}{
		{"all is well, or all but root's rights", func(*settings.Settings) {}, sysexits.OK,
			[]string{"ok       subsystem             /bin/sh", "ok       host keys             1 of 1 exist"},
			"A call home can be made."},
		{"a warning", func(s *settings.Settings) { s.SshdLog = "stderr" }, sysexits.OK,
			[]string{"warning  log                   standard error: a full pipe that no program reads blocks the session",
				"                               -> set --sshd-log auto, unless the caller reads all of it"},
			"A call home can be made; read the warnings."},
		{"something is missing", func(s *settings.Settings) { s.Sshd.Subsystem = "/nonexistent/x" }, sysexits.Config,
			[]string{"MISSING  subsystem             /nonexistent/x cannot be executed: stat /nonexistent/x: no such file or directory"},
			"A call home would fail: correct what is MISSING."},
		{"text that steers a terminal", func(s *settings.Settings) { s.Sshd.Subsystem = "/nonexistent/\x1b[2J" }, sysexits.Config,
			[]string{`MISSING  subsystem             /nonexistent/\x1b[2J cannot be executed: stat /nonexistent/\x1b[2J: no such file or directory`},
			"A call home would fail: correct what is MISSING."},
		{"of several missing things the first gives the exit status", func(s *settings.Settings) {
			s.Sshd.Config, s.Sshd.Subsystem, s.SshdLog = "/nonexistent/c", "/nonexistent/x", "stderr"
		}, sysexits.NoInput,
			[]string{"MISSING  configuration         /nonexistent/c does not exist", "warning  log                   standard error: a full pipe that no program reads blocks the session"},
			"A call home would fail: correct what is MISSING."},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := *good
			s.Sshd.Sshd = fakeSshd(t, "OpenSSH_9.9p2, x", accepts)
			tt.change(&s)
			var out strings.Builder
			if code := Run(&out, &s, false); code != tt.code {
				t.Errorf("exit status %d, want %d", code, tt.code)
			}
			lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
			last := lines[len(lines)-1]
			// The shells and the rights of this machine's user can be warned of.
			if warned := strings.Contains(out.String(), "warning "); warned && tt.code == sysexits.OK {
				tt.last = "A call home can be made; read the warnings."
			}
			if !strings.Contains(out.String(), "\nok       logins                ") {
				t.Errorf("no user can log in:\n%s", &out)
			}
			if last != tt.last {
				t.Errorf("ends with %q, want %q", last, tt.last)
			}
			for _, want := range tt.lines {
				if !slices.Contains(lines, want) {
					t.Errorf("no line %q in\n%s", want, &out)
				}
			}
		})
	}
}

// The machine's sshd, if there is one, accepts the arguments.
func TestInspectRunsTheInstalledSshd(t *testing.T) {
	path, err := exec.LookPath("/usr/sbin/sshd")
	if err != nil {
		t.Skip("no /usr/sbin/sshd here")
	}
	key := filepath.Join(t.TempDir(), "key")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s := sshd(sshdexec.Command{Sshd: path, Config: os.DevNull, HostKeys: []string{key}, Opaque: "a \"b\" 'c' \\ %d # é", Subsystem: `/bin/sh -c 'echo "x"'`, SSHConnectionPort: 830, VersionAddendum: "dev-1"})
	if err := os.MkdirAll(sshdexec.PrivsepDir, 0o755); err != nil && os.Geteuid() == 0 {
		t.Fatal(err)
	}
	m := inspect(s)
	if m.version == "" || m.major < 8 || !m.testOK {
		t.Fatalf("version %q, %d.%d, sshd -t printed %q", m.version, m.major, m.minor, m.testOutput)
	}
	for key, want := range map[string][]string{
		"hostkey":         {key},
		"subsystem":       {"netconf netconf"},
		"versionaddendum": {"dev-1"},
		"loglevel":        {"VERBOSE"},
		"setenv":          {"CALLHOME_OPAQUE=a %22b%22 'c' %5C %25d # é"},
	} {
		if got := m.config[key]; !slices.Equal(got, want) {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
	if got := m.config["forcecommand"]; len(got) != 1 || !strings.HasSuffix(got[0], `exec /bin/sh -c '\''echo "x"'\'''`) {
		t.Errorf("forcecommand is %q", got)
	}
}
