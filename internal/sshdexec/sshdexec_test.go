package sshdexec

import (
	"errors"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestArgs(t *testing.T) {
	mark, none := 46, 0
	const forced = `ForceCommand=exec /bin/sh -c '[ "$SSH_ORIGINAL_COMMAND" = netconf ] || { echo "only the netconf subsystem is served here" >&2; exit 1; }; unset SSH_ORIGINAL_COMMAND; `
	for _, tt := range []struct {
		name string
		c    Command
		want []string // behind: sshd -i -e -f config
	}{
		{"nothing but the configuration", Command{}, []string{"-o", "LogLevel=VERBOSE"}},
		{"keys and certificates", Command{HostKeys: []string{"/a", "/b"}, HostCertificates: []string{"/c"}},
			[]string{"-h", "/a", "-h", "/b", "-c", "/c", "-o", "LogLevel=VERBOSE"}},
		{"the operator's own options come first, in their order", Command{Options: []string{"LogLevel=DEBUG", "A=1", "A=2"}},
			[]string{"-o", "LogLevel=DEBUG", "-o", "A=1", "-o", "A=2", "-o", "LogLevel=VERBOSE"}},
		{"opaque", Command{Opaque: `a "b" é`}, []string{"-o", "LogLevel=VERBOSE", "-o", `SetEnv="CALLHOME_OPAQUE=a %22b%22 é"`}},
		{"opaque beside the operator's SetEnv, of which sshd takes the first line alone", Command{Opaque: "o", Options: []string{"setenv=A=1", "B=2", `SetEnv="C=3 4"`}},
			[]string{"-o", "B=2", "-o", "LogLevel=VERBOSE", "-o", `SetEnv=A=1 "C=3 4" "CALLHOME_OPAQUE=o"`}},
		{"the operator's SetEnv alone", Command{Options: []string{"SetEnv=A=1"}}, []string{"-o", "SetEnv=A=1", "-o", "LogLevel=VERBOSE"}},
		{"subsystem", Command{Subsystem: "/s -x"}, []string{"-o", "LogLevel=VERBOSE", "-o", "Subsystem=netconf netconf", "-o", forced + `exec /s -x'`}},
		{"subsystem with quotes", Command{Subsystem: "/s 'a b'"}, []string{"-o", "LogLevel=VERBOSE", "-o", "Subsystem=netconf netconf", "-o", forced + `exec /s '\''a b'\'''`}},
		{"subsystem that sees another port", Command{Subsystem: "/s", SSHConnectionPort: 830}, []string{"-o", "LogLevel=VERBOSE", "-o", "Subsystem=netconf netconf", "-o",
			forced + `SSH_CONNECTION="${SSH_CONNECTION% *} 830" SSH_CLIENT="${SSH_CLIENT% *} 830"; export SSH_CONNECTION SSH_CLIENT; exec /s'`}},
		{"keepalive", Command{KeepAlive: &KeepAlive{30, 3}}, []string{"-o", "LogLevel=VERBOSE", "-o", "ClientAliveInterval=30", "-o", "ClientAliveCountMax=3"}},
		{"no keepalive", Command{KeepAlive: &KeepAlive{}}, []string{"-o", "LogLevel=VERBOSE", "-o", "ClientAliveInterval=0", "-o", "ClientAliveCountMax=0"}},
		{"addendum", Command{VersionAddendum: "dev-1"}, []string{"-o", "LogLevel=VERBOSE", "-o", "VersionAddendum=dev-1"}},
		{"DSCP", Command{DSCP: &mark}, []string{"-o", "LogLevel=VERBOSE", "-o", "IPQoS=184"}},
		{"DSCP 0 is a mark too", Command{DSCP: &none}, []string{"-o", "LogLevel=VERBOSE", "-o", "IPQoS=0"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.c.Sshd, tt.c.Config = "/usr/sbin/sshd", "/c"
			rest := append([]string{"-f", "/c"}, tt.want...)
			if got, want := tt.c.Args(), append([]string{"/usr/sbin/sshd", "-i", "-e"}, rest...); !slices.Equal(got, want) {
				t.Errorf("Args gives\n%q, want\n%q", got, want)
			}
			if got := tt.c.TestArgs(); !slices.Equal(got, rest) {
				t.Errorf("TestArgs gives\n%q, want\n%q", got, rest)
			}
			tt.c.Syslog = true
			if got, want := tt.c.Args(), append([]string{"/usr/sbin/sshd", "-i"}, rest...); !slices.Equal(got, want) {
				t.Errorf("with syslog, Args gives\n%q, want\n%q", got, want)
			}
		})
	}
}

func TestCheckOption(t *testing.T) {
	long := "A=" + strings.Repeat("x", maxOption-2)
	for _, tt := range []struct{ option, says string }{
		{"MaxSessions=1", ""},
		{"azAZ09=1", ""},
		{"ciphers=aes256-gcm@openssh.com,aes128-ctr", ""},
		{"AcceptEnv=LANG LC_* X=Y", ""},
		{"Banner=/a b#c", ""},
		{`SetEnv="A=b c"`, ""},
		{long, ""},
		{long + "x", "sshd option A has 8193 bytes; at most 8192 are passed on"},
		{"", `sshd option "" is not KEY=VALUE with a keyword of sshd_config(5)`},
		{"MaxSessions", `sshd option "MaxSessions" is not KEY=VALUE with a keyword of sshd_config(5)`},
		{"MaxSessions 1", `sshd option "MaxSessions 1" is not KEY=VALUE with a keyword of sshd_config(5)`},
		{"MaxSessions =1", `sshd option "MaxSessions =1" is not KEY=VALUE with a keyword of sshd_config(5)`},
		{" MaxSessions=1", `sshd option " MaxSessions=1" is not KEY=VALUE with a keyword of sshd_config(5)`},
		{"=1", `sshd option "=1" is not KEY=VALUE with a keyword of sshd_config(5)`},
		{"-f=/x", `sshd option "-f=/x" is not KEY=VALUE with a keyword of sshd_config(5)`},
		{"Max\nPermitTTY=yes", `sshd option "Max\nPermitTTY=yes" is not KEY=VALUE with a keyword of sshd_config(5)`},
		{"#=1", `sshd option "#=1" is not KEY=VALUE with a keyword of sshd_config(5)`},
		{"Ciphers=", "sshd option Ciphers has no value"},
		{"Ciphers= ", "sshd option Ciphers has no value"},
		{"MaxSessions=1\nPermitTTY=yes", "sshd option MaxSessions: its value holds a control character"},
		{"MaxSessions=1\rPermitTTY=yes", "sshd option MaxSessions: its value holds a control character"},
		{"MaxSessions=1\x00", "sshd option MaxSessions: its value holds a control character"},
		{"Match=user root", "sshd option Match cannot be set here: a Match block belongs in the sshd_config"},
		{"mATCH=all", "sshd option mATCH cannot be set here: a Match block belongs in the sshd_config"},
		{"Include=/x", "sshd option Include cannot be set here: an Include belongs in the sshd_config"},
		{"Subsystem=sftp internal-sftp", "sshd option Subsystem cannot be set here: use --subsystem"},
		{"ForceCommand=/bin/sh", "sshd option ForceCommand cannot be set here: use --subsystem, or the sshd_config"},
		{"HostKey=/x", "sshd option HostKey cannot be set here: use --host-key"},
	} {
		t.Run(tt.option, func(t *testing.T) {
			if got := message(CheckOption(tt.option)); got != tt.says {
				t.Errorf("says %q, want %q", got, tt.says)
			}
		})
	}
}

func message(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestCheck(t *testing.T) {
	for _, tt := range []struct {
		name string
		c    Command
		says string
	}{
		{"nothing", Command{}, ""},
		{"everything", Command{Sshd: "/s", Config: "/c", HostKeys: []string{"/k"}, HostCertificates: []string{"/h"}, Subsystem: "/s 'x'", SSHConnectionPort: 830, VersionAddendum: "d", Opaque: "\n", Options: []string{"A=1"}}, ""},
		{"sshd", Command{Sshd: "/s\n"}, `sshd "/s\n" holds a control character`},
		{"configuration", Command{Config: "/c\x00"}, `sshd-config "/c\x00" holds a control character`},
		{"a later key", Command{HostKeys: []string{"/a", "/b\x7f"}}, `file "/b\x7f" holds a control character`},
		{"a certificate", Command{HostCertificates: []string{"\t"}}, `file "\t" holds a control character`},
		{"subsystem", Command{Subsystem: "a\nb"}, `subsystem "a\nb" holds a control character`},
		{"report", Command{Subsystem: "a", Report: []string{"/t", "a\nb"}}, `report "a\nb" holds a control character`},
		{"addendum", Command{VersionAddendum: "a\r\nb"}, `version addendum "a\r\nb" holds a control character`},
		{"a port without a subsystem", Command{SSHConnectionPort: 830}, "ssh-connection-port 830 needs a subsystem command: set --subsystem or --netconf-server"},
		{"a later option", Command{Options: []string{"A=1", "Include=/x"}}, "sshd option Include cannot be set here: an Include belongs in the sshd_config"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := message(tt.c.Check()); got != tt.says {
				t.Errorf("says %q, want %q", got, tt.says)
			}
		})
	}
}

func TestCheckLeavesTheCommandAsItIs(t *testing.T) {
	keys := append(make([]string, 0, 2), "/k")
	c := Command{HostKeys: keys, HostCertificates: []string{"/c"}}
	if err := c.Check(); err != nil {
		t.Fatal(err)
	}
	if behind := keys[:2][1]; behind != "" {
		t.Errorf("Check wrote %q behind the caller's keys", behind)
	}
}

// FuzzArgs: whatever the session's data are, sshd gets the options that are
// meant, each as one argument of one line.
func FuzzArgs(f *testing.F) {
	f.Add("plain", "MaxSessions=1", "/usr/sbin/netconf-subsystem", "dev-1", uint16(830), true, 46)
	f.Add("a\"b\\c%d\n\x00é\xff", "SetEnv=A=1", "/s 'a b' \"c\"; x", "", uint16(0), false, -1)
	f.Add("", "setenv=\"", "", "a b", uint16(0), true, 0)
	f.Add("-oX=Y", "Match=all", "$(id)`id`", "-o", uint16(1), false, 63)
	f.Fuzz(func(t *testing.T, opaque, option, subsystem, addendum string, port uint16, keepalive bool, dscp int) {
		c := Command{Sshd: "/sshd", Config: "/c", HostKeys: []string{"/k"}, Subsystem: subsystem, SSHConnectionPort: port, VersionAddendum: addendum, Opaque: opaque}
		if option != "" {
			c.Options = []string{option}
		}
		if keepalive {
			c.KeepAlive = &KeepAlive{1, 2}
		}
		if dscp >= 0 && dscp < 64 {
			c.DSCP = &dscp
		}
		if c.Check() != nil {
			return
		}
		args := c.Args()
		if !slices.Equal(args[:7], []string{"/sshd", "-i", "-e", "-f", "/c", "-h", "/k"}) {
			t.Fatalf("begins with %q", args)
		}
		var want []string // keywords, in order
		if option != "" && (opaque == "" || !strings.EqualFold(keyword(option), "SetEnv")) {
			want = append(want, keyword(option))
		}
		want = append(want, "LogLevel")
		if opaque != "" {
			want = append(want, "SetEnv")
		}
		if subsystem != "" {
			want = append(want, "Subsystem", "ForceCommand")
		}
		if keepalive {
			want = append(want, "ClientAliveInterval", "ClientAliveCountMax")
		}
		if addendum != "" {
			want = append(want, "VersionAddendum")
		}
		if c.DSCP != nil {
			want = append(want, "IPQoS")
		}
		var got []string
		for i := 7; i < len(args); i += 2 {
			if args[i] != "-o" || i+1 == len(args) {
				t.Fatalf("argument %d of %q is no -o with its value", i, args)
			}
			if hasControl(args[i+1]) {
				t.Errorf("argument %q holds a control character", args[i+1])
			}
			got = append(got, keyword(args[i+1]))
		}
		if !slices.Equal(got, want) {
			t.Errorf("options %q, want %q", got, want)
		}
	})
}

func keyword(option string) string {
	key, _, _ := strings.Cut(option, "=")
	return key
}

func FuzzEncodeOpaque(f *testing.F) {
	for _, s := range []string{"", "plain", "a b;c'd", `"\%`, "%41", "\x00\t\n\r\x1f\x7f\x80\xff", "é€😀"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := EncodeOpaque(s)
		if back, err := url.PathUnescape(got); err != nil || back != s {
			t.Errorf("%q encoded as %q decodes to %q, %v", s, got, back, err)
		}
		if hasControl(got) || strings.ContainsAny(got, `"\`) {
			t.Errorf("%q encoded as %q holds what sshd cannot take", s, got)
		}
		if !hasControl(s) && !strings.ContainsAny(s, `"\%`) && got != s {
			t.Errorf("%q needs no encoding, and becomes %q", s, got)
		}
	})
}

func TestEncodeOpaque(t *testing.T) {
	for in, want := range map[string]string{
		"site 7":       "site 7",
		"100%":         "100%25",
		`say "x\y"`:    "say %22x%5Cy%22",
		"a\nb\x00\x7f": "a%0Ab%00%7F",
		"é'$`;#":       "é'$`;#",
	} {
		if got := EncodeOpaque(in); got != want {
			t.Errorf("EncodeOpaque(%q) = %q, want %q", in, got, want)
		}
	}
}

// asSshd runs a forced command as sshd does: the login shell's -c.
func asSshd(t *testing.T, shell, forced string, env ...string) (stdout, stderr string, pid int, err error) {
	t.Helper()
	cmd := exec.Command(shell, "-c", forced)
	cmd.Env = append([]string{"PATH=/usr/bin:/bin"}, env...)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	if cmd.Process != nil {
		pid = cmd.Process.Pid
	}
	return out.String(), errs.String(), pid, err
}

// loginShells are those of the usual ones that are here.
func loginShells() []string {
	var out []string
	for _, name := range []string{"sh", "bash", "ksh", "zsh", "csh", "tcsh", "fish"} {
		if path, err := exec.LookPath(name); err == nil {
			out = append(out, path)
		}
	}
	return out
}

// printArgs is a subsystem command that prints its arguments one a line, each in
// brackets.
const printArgs = `printf "[%s]\n"`

func TestForcedCommandIsTheIntendedWords(t *testing.T) {
	for _, shell := range loginShells() {
		for _, tt := range []struct{ name, command, want string }{
			{"plain arguments", printArgs + " a b", "[a]\n[b]\n"},
			{"single quotes", printArgs + ` 'a b' 'c'`, "[a b]\n[c]\n"},
			{"a single quote within double ones", printArgs + ` "it's"`, "[it's]\n"},
			{"double quotes", printArgs + ` "a  b"`, "[a  b]\n"},
			{"a quoted dollar", printArgs + ` '$HOME'`, "[$HOME]\n"},
			{"shell characters in quotes", printArgs + ` '; rm -rf / #' '|&<>*?~'`, "[; rm -rf / #]\n[|&<>*?~]\n"},
			{"a variable is the shell's", printArgs + ` "$SSH_USER_AUTH"`, "[auth]\n"},
		} {
			t.Run(filepath.Base(shell)+", "+tt.name, func(t *testing.T) {
				c := Command{Subsystem: tt.command}
				out, errs, _, err := asSshd(t, shell, c.forceCommand(), "SSH_ORIGINAL_COMMAND=netconf", "SSH_USER_AUTH=auth")
				if err != nil || out != tt.want {
					t.Errorf("prints %q and %q, %v, want %q", out, errs, err, tt.want)
				}
			})
		}
	}
}

// The report is executed with its arguments and the subsystem's command; where its
// program is missing, the subsystem serves without it.
func TestForcedCommandReportsFirst(t *testing.T) {
	subsystem := printArgs + ` "it's" "$REPORTED"`
	for _, tt := range []struct{ name, program, want string }{
		{"reports", "/usr/bin/env", "[it's]\n[a 'b' $c]\n"},
		{"without its program", "/nonesuch/env", "[it's]\n[]\n"},
	} {
		c := Command{Subsystem: subsystem, Report: []string{tt.program, "REPORTED=a 'b' $c"}}
		for _, shell := range loginShells() {
			out, errs, _, err := asSshd(t, shell, c.forceCommand(), "SSH_ORIGINAL_COMMAND=netconf")
			if err != nil || out != tt.want {
				t.Errorf("%s, %s: prints %q and %q, %v, want %q", tt.name, shell, out, errs, err, tt.want)
			}
		}
	}
}

func TestForcedCommandServesTheSubsystemAlone(t *testing.T) {
	marker := filepath.Join(t.TempDir(), "ran")
	c := Command{Subsystem: "touch " + marker}
	for _, asked := range [][]string{
		nil, // a shell
		{"SSH_ORIGINAL_COMMAND="},
		{"SSH_ORIGINAL_COMMAND=id"},
		{"SSH_ORIGINAL_COMMAND=netconf "},
		{"SSH_ORIGINAL_COMMAND=netconf; id"},
		{"SSH_ORIGINAL_COMMAND=x = x -o netconf"},
		{"SSH_ORIGINAL_COMMAND=internal-sftp"},
	} {
		for _, shell := range loginShells() {
			out, errs, _, err := asSshd(t, shell, c.forceCommand(), asked...)
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != 1 || out != "" || errs != "only the netconf subsystem is served here\n" {
				t.Errorf("%s, asked for %q: prints %q and %q, ends with %v", shell, asked, out, errs, err)
			}
			if _, err := os.Stat(marker); err == nil {
				t.Fatalf("%s, asked for %q: the subsystem's command ran", shell, asked)
			}
		}
	}
}

func TestForcedCommandLeavesOneProcess(t *testing.T) {
	c := Command{Subsystem: `/bin/sh -c 'echo $$'`}
	for _, shell := range loginShells() {
		out, errs, pid, err := asSshd(t, shell, c.forceCommand(), "SSH_ORIGINAL_COMMAND=netconf")
		if err != nil || out != strconv.Itoa(pid)+"\n" {
			t.Errorf("%s: process %d started the subsystem as process %q, %q, %v", shell, pid, out, errs, err)
		}
	}
}

func TestForcedCommandSetsTheEnvironment(t *testing.T) {
	session := []string{"SSH_ORIGINAL_COMMAND=netconf", "SSH_CONNECTION=2001:db8::1 4334 2001:db8::2 51112", "SSH_CLIENT=2001:db8::1 4334 51112"}
	show := printArgs + ` "$SSH_CONNECTION" "$SSH_CLIENT" "${SSH_ORIGINAL_COMMAND-gone}"; env | grep -c "^SSH_"`
	for _, tt := range []struct {
		name string
		port uint16
		want string
	}{
		{"the ports as they are", 0, "[2001:db8::1 4334 2001:db8::2 51112]\n[2001:db8::1 4334 51112]\n[gone]\n2\n"},
		{"the port that the server expects", 830, "[2001:db8::1 4334 2001:db8::2 830]\n[2001:db8::1 4334 830]\n[gone]\n2\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := Command{Subsystem: "/bin/sh -c " + shellQuote(show), SSHConnectionPort: tt.port}
			for _, shell := range loginShells() {
				out, errs, _, err := asSshd(t, shell, c.forceCommand(), session...)
				if err != nil || out != tt.want {
					t.Errorf("%s: the subsystem sees %q, %q, %v, want %q", shell, out, errs, err, tt.want)
				}
			}
		})
	}
}
