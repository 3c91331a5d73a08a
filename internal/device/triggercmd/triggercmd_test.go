package triggercmd

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"callhome/internal/device/settings"
	"callhome/internal/porttest"
	"callhome/internal/sysexits"

	"golang.org/x/sys/unix"
)

// playEnv makes this test binary play callhome-trigger.
const playEnv = "CALLHOME_TEST_PLAY"

func TestMain(m *testing.M) {
	if os.Getenv(playEnv) != "" {
		if os.Getenv(playEnv) == "called" {
			fmt.Println(Called(os.Args))
			return
		}
		os.Exit(Main("unknown", os.Args))
	}
	os.Exit(m.Run())
}

// The name under which a program is started is that of the file, whatever args[0] is.
func TestCalled(t *testing.T) {
	own, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		file, arg string
		want      bool
	}{
		{Name, "/usr/sbin/" + Name, true}, {Name, Name, true}, {Name, "-netconf", true}, {Name, "", true},
		{"callhome-mgr", "/usr/sbin/" + Name, true}, // as a user-mode emulator starts it
		{"callhome-mgr", "callhome-mgr", false}, {"callhome-trig", "callhome-trig", false},
	} {
		link := filepath.Join(t.TempDir(), tt.file)
		if err := os.Symlink(own, link); err != nil {
			t.Fatal(err)
		}
		cmd := &exec.Cmd{Path: link, Args: []string{tt.arg}, Env: []string{playEnv + "=called", "GOCOVERDIR=" + t.TempDir()}}
		out, err := cmd.Output()
		if got := strings.TrimSpace(string(out)); err != nil || got != fmt.Sprint(tt.want) {
			t.Errorf("%s as %q: %s, %v, want %v", tt.file, tt.arg, got, err, tt.want)
		}
	}
}

// called returns the program, ready to run with words. Its environment holds
// nothing of this machine's, and its defaults file is text.
func called(t *testing.T, env []string, text string, words ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0], words...)
	cmd.Env = append([]string{playEnv + "=1", settings.DefaultsEnv + "=" + file(t, "trigger.conf", text, 0o600),
		"PATH=/usr/bin:/bin",
		// go test -cover wants a place to write, and -race waits a second before the end.
		"GOCOVERDIR=" + t.TempDir(), "GORACE=atexit_sleep_ms=0"}, env...)
	return cmd
}

func file(t *testing.T, name, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// result is how a call ended.
type result struct {
	code           int
	stdout, stderr string
}

func end(t *testing.T, cmd *exec.Cmd) result {
	t.Helper()
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}

// listen is a NETCONF client that awaits call homes.
func listen(t *testing.T) (net.Listener, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return l, port
}

func accept(t *testing.T, l net.Listener) net.Conn {
	t.Helper()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

// device returns a defaults file for a call home that lacks nothing; script
// stands for sshd.
func device(t *testing.T, script string) string {
	t.Helper()
	return "CALLHOME_SSHD=" + file(t, "sshd", "#!/bin/sh\n"+script+"\n", 0o700) + "\n" +
		"CALLHOME_SSHD_CONFIG=" + file(t, "sshd_config", "", 0o600) + "\n" +
		"CALLHOME_SSHD_LOG=" + filepath.Join(t.TempDir(), "log") + "\n" +
		"CALLHOME_MANAGER_SOCKET=/nonexistent/mgr.sock\n" +
		"CALLHOME_SUBSYSTEM=/s\n"
}

// A failure is one line on stderr with a documented exit status; nothing is on
// stdout.
func TestFailures(t *testing.T) {
	dead := fmt.Sprint(porttest.Reserve(t, "127.0.0.1").Port())
	usage := "; callhome-trigger --help lists the options"
	for _, tt := range []struct {
		name  string
		words []string
		env   []string
		code  int
		says  string // behind "[ERROR] callhome-trigger: "
	}{
		{"no words", nil, nil, sysexits.Usage, "no HOST given; expected HOST [PORT [OPAQUE]]" + usage},
		{"options alone", []string{"--attempts", "2"}, nil, sysexits.Usage, "no HOST given; expected HOST [PORT [OPAQUE]]" + usage},
		{"a wrong word", []string{"nms", "x"}, nil, sysexits.Usage, `port "x" is not a number from 1 to 65535` + usage},
		{"a wrong word behind an option", []string{"--attempts", "2", "nms", "x"}, nil, sysexits.Usage, `port "x" is not a number from 1 to 65535` + usage},
		{"an option behind the words", []string{"nms", "--attempts", "2"}, nil, sysexits.Usage, `port "--attempts" is not a number from 1 to 65535; options come before HOST` + usage},
		{"an unknown option", []string{"--no-such", "nms"}, nil, sysexits.Usage, `unknown option "--no-such"` + usage},
		{"an option without its value", []string{"--port"}, nil, sysexits.Usage, "--port needs a value" + usage},
		{"a wrong value", []string{"--attempts", "0", "nms"}, nil, sysexits.Usage, `--attempts "0": expected a number from 1 to 1000` + usage},
		{"a wrong switch", []string{"--announce=x", "nms"}, nil, sysexits.Usage, `--announce "x": expected true or false` + usage},
		{"an option of sshd's that is refused", []string{"--sshd-option", "Include=/x", "nms"}, nil, sysexits.Usage, `--sshd-option "Include=/x": sshd option Include cannot be set here: an Include belongs in the sshd_config` + usage},
		{"a wrong variable", []string{"nms"}, []string{"CALLHOME_ATTEMPTS=0"}, sysexits.Config, `environment: CALLHOME_ATTEMPTS="0": expected a number from 1 to 1000`},
		{"a defaults file that is not there", []string{"nms"}, []string{"CALLHOME_DEFAULTS=/nonexistent/d"}, sysexits.NoInput,
			"reading the defaults file: open /nonexistent/d: no such file or directory; create it, or unset CALLHOME_DEFAULTS"},
		{"no sshd", []string{"nms"}, []string{"CALLHOME_SSHD=/nonexistent/sshd"}, sysexits.NoInput, "sshd /nonexistent/sshd: no such file or directory; install OpenSSH's server, or set --sshd"},
		{"no manager", []string{"--handover", "manager", "nms"}, nil, sysexits.Unavailable, "no manager answers at /nonexistent/mgr.sock: no such file or directory; start callhome-mgr, or use --handover exec"},
		{"no listener", []string{"127.0.0.1", dead}, nil, sysexits.Unavailable,
			"connecting to 127.0.0.1 port " + dead + ": 127.0.0.1:" + dead + ": connection refused; check that the NETCONF client listens there and that no firewall is in between"},
		{"no such interface", []string{"--interface", "nosuch0", "127.0.0.1", dead}, nil, sysexits.Config,
			"connecting to 127.0.0.1 port " + dead + ": binding to the interface nosuch0: no such device; check --local-address, --interface and --netns"},
		{"a --check whose settings are wrong", []string{"--check", "--attempts", "0"}, nil, sysexits.Usage, `--attempts "0": expected a number from 1 to 1000` + usage},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := end(t, called(t, tt.env, device(t, "exit 1"), tt.words...))
			if want := "[ERROR] callhome-trigger: " + tt.says + "\n"; r.code != tt.code || r.stderr != want {
				t.Errorf("exit status %d with\n%s, want %d with\n%s", r.code, r.stderr, tt.code, want)
			}
			if r.stdout != "" {
				t.Errorf("stdout has %q", r.stdout)
			}
		})
	}
}

func TestFailuresAsJSON(t *testing.T) {
	dead := fmt.Sprint(porttest.Reserve(t, "127.0.0.1").Port())
	for _, tt := range []struct {
		name  string
		words []string
		want  map[string]any // some of the fields
	}{
		{"from the settings on", []string{"127.0.0.1", dead}, map[string]any{"@level": "error", "host": "127.0.0.1", "exit": 69.0, "hint": "check that the NETCONF client listens there and that no firewall is in between"}},
		{"before there are settings", []string{"-x"}, map[string]any{"@level": "error", "@message": "unknown option \"-x\"", "exit": 64.0}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := end(t, called(t, []string{"CALLHOME_LOG_FORMAT=json"}, device(t, "exit 1"), tt.words...))
			if strings.Count(r.stderr, "\n") != 1 {
				t.Errorf("not one line: %q", r.stderr)
			}
			var got map[string]any
			if err := json.Unmarshal([]byte(r.stderr), &got); err != nil {
				t.Fatalf("%v in %s", err, r.stderr)
			}
			for key, want := range tt.want {
				if got[key] != want {
					t.Errorf("%s is %v, want %v", key, got[key], want)
				}
			}
		})
	}
}

// The trigger becomes sshd: the caller that waits gets sshd's exit status, and
// what it reads from our stderr ends with us.
func TestCallHome(t *testing.T) {
	for _, tt := range []struct {
		name  string
		words []string // with PORT for the client's
	}{
		{"as a NETCONF server calls it", []string{"127.0.0.1", "PORT"}},
		{"in one word", []string{"127.0.0.1:PORT"}},
		{"with opaque data that looks like an option", []string{"127.0.0.1", "PORT", "--check"}},
		{"with options", []string{"--handover", "exec", "--host-key", "/etc/passwd", "127.0.0.1", "PORT"}},
		{"with nothing but options", []string{"--host", "127.0.0.1", "--port=PORT", "--opaque", "x"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, port := listen(t)
			words := slices.Clone(tt.words)
			for i := range words {
				words[i] = strings.ReplaceAll(words[i], "PORT", port)
			}
			cmd := called(t, nil, device(t, `echo "SSH-2.0-standin $$"; read line; exit 42`), words...)
			var stderr strings.Builder
			cmd.Stderr = &stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			peer := accept(t, l)
			banner, err := bufio.NewReader(peer).ReadString('\n')
			if want := "SSH-2.0-standin " + strconv.Itoa(cmd.Process.Pid) + "\n"; err != nil || banner != want {
				t.Errorf("the client reads %q, %v, want %q", banner, err, want)
			}
			peer.Close()
			if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 42 || stderr.Len() > 0 {
				t.Errorf("ends with %v and %q, want sshd's 42", err, &stderr)
			}
		})
	}
}

// On a terminal one line names sshd's log: sshd itself writes nothing there.
func TestOnATerminalTheLogIsNamed(t *testing.T) {
	for _, tt := range []struct {
		name  string
		env   []string
		words []string
		shows string // a pattern, with LOG for the log's path
	}{
		{"exec", nil, nil, `callhome-trigger: connected to 127\.0\.0\.1:\d+; sshd logs to LOG\r\n`},
		{"detach", nil, []string{"--handover", "detach"}, `callhome-trigger: connected to 127\.0\.0\.1:\d+; sshd logs to LOG\r\n`},
		{"a log that is the terminal has one line of the trigger", nil, []string{"--sshd-log", "stderr"}, `\S+ callhome-trigger\[\d+\]: connected to .*\r\n`},
		{"JSON", []string{"CALLHOME_LOG_FORMAT=json"}, nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, port := listen(t)
			text := device(t, "echo SSH-2.0-standin")
			log := regexp.MustCompile(`CALLHOME_SSHD_LOG=(.*)`).FindStringSubmatch(text)[1]
			master, slave := terminal(t)
			cmd := called(t, tt.env, text, append(tt.words, "127.0.0.1", port)...)
			cmd.Stderr = slave
			if err := cmd.Run(); err != nil {
				t.Fatal(err)
			}
			accept(t, l)
			if _, err := slave.WriteString("END\n"); err != nil {
				t.Fatal(err)
			}
			got, err := bufio.NewReader(master).ReadString('D')
			want := regexp.MustCompile("^" + strings.ReplaceAll(tt.shows, "LOG", regexp.QuoteMeta(log)) + "END$")
			if err != nil || !want.MatchString(got) {
				t.Errorf("the terminal shows %q, %v, want %s", got, err, want)
			}
		})
	}
}

// terminal returns both ends of a pseudo terminal.
func terminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	master = os.NewFile(uintptr(fd), "terminal")
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	return master, slave
}

// Detach returns at once, though the session goes on. Its sshd has nothing of
// the caller's, also where that blocks and ignores signals.
func TestDetach(t *testing.T) {
	l, port := listen(t)
	cmd := called(t, nil, device(t, `echo "SSH-2.0-standin $$"; read line; echo "heard $line"`), "--handover", "detach", "127.0.0.1", port)
	cmd.Path, cmd.Args = "/bin/sh", append([]string{"sh", "-c", `trap "" HUP TERM; exec "$0" "$@"`}, cmd.Args...)
	r := end(t, cmd) // it waits until no process has our stdout and stderr any more
	if r != (result{}) {
		t.Fatalf("ends with %+v", r)
	}
	peer := accept(t, l)
	lines := bufio.NewReader(peer)
	banner, err := lines.ReadString('\n')
	pid, ok := strings.CutPrefix(banner, "SSH-2.0-standin ")
	if err != nil || !ok {
		t.Fatalf("the client reads %q, %v", banner, err)
	}
	status, err := os.ReadFile(filepath.Join("/proc", strings.TrimSpace(pid), "status"))
	if err != nil || !regexp.MustCompile(`(?m)^SigBlk:\s+0+\nSigIgn:\s+0+$`).Match(status) {
		t.Errorf("sshd starts with signals blocked or ignored: %v\n%s", err, status)
	}
	if _, err := io.WriteString(peer, "x\n"); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(lines); err != nil || string(rest) != "heard x\n" {
		t.Errorf("the client reads %q, %v", rest, err)
	}
}

// shown takes a line of --show-config apart.
var shown = regexp.MustCompile(`^(\S+) +(CALLHOME_[A-Z_]+) +("(?:[^"\\]|\\.)*") +(.+)$`)

func showConfigOf(t *testing.T, cmd *exec.Cmd) (values, sources map[string]string, order []string) {
	t.Helper()
	r := end(t, cmd)
	if r.code != 0 || r.stderr != "" {
		t.Fatalf("exit status %d with %s", r.code, r.stderr)
	}
	values, sources = make(map[string]string), make(map[string]string)
	for line := range strings.Lines(r.stdout) {
		m := shown.FindStringSubmatch(strings.TrimSuffix(line, "\n"))
		if m == nil {
			t.Fatalf("--show-config has the line %q", line)
		}
		value, err := strconv.Unquote(m[3])
		if err != nil {
			t.Fatal(err)
		}
		values[m[1]], sources[m[1]] = value, m[4]
		if o := (settings.Option{Name: m[1]}); m[2] != o.Env() {
			t.Errorf("%s is shown with the key %s, want %s", m[1], m[2], o.Env())
		}
		order = append(order, m[1])
	}
	return values, sources, order
}

func TestShowConfig(t *testing.T) {
	text := "CALLHOME_ATTEMPTS=3\n\nCALLHOME_HOST_KEY='/a;/b'\nCALLHOME_SUBSYSTEM=/bin/sh -c 'x \"y\"'\n"
	values, sources, order := showConfigOf(t, called(t, []string{"CALLHOME_OPAQUE=a\n\"b\"\x1b é"}, text,
		"--show-config", "--announce", "--device-id", "dev-1", "--sshd-option", "A=1,2", "--sshd-option=B=3", "nms:830"))
	var table []string
	for _, o := range settings.Options() {
		table = append(table, o.Name)
	}
	if !slices.Equal(order, table) {
		t.Errorf("shows %q, want each option: %q", order, table)
	}
	for name, want := range map[string][2]string{
		"host":        {"nms", "word"},
		"port":        {"830", "word"},
		"opaque":      {"a\n\"b\"\x1b é", "environment"},
		"announce":    {"true", "flag"},
		"sshd-option": {"A=1,2;B=3", "flag"},
		"retry-wait":  {"1s", "built-in"},
	} {
		if got := [2]string{values[name], sources[name]}; got != want {
			t.Errorf("%s is shown as %q, want %q", name, got, want)
		}
	}
	if !strings.HasSuffix(sources["host-key"], "/trigger.conf:3") {
		t.Errorf("host-key comes from %s, want line 3 of the file", sources["host-key"])
	}

	// What is shown can be said again, and means the same.
	var again []string
	for _, o := range settings.Options() {
		if v := values[o.Name]; v != "" {
			again = append(again, o.Env()+"="+v)
		}
	}
	second, _, _ := showConfigOf(t, called(t, again, "", "--show-config"))
	for name, want := range values {
		if second[name] != want {
			t.Errorf("said again, %s is %q, want %q", name, second[name], want)
		}
	}
}

func TestHelpAndVersion(t *testing.T) {
	help := end(t, called(t, nil, "", "--help"))
	if help.code != 0 || help.stderr != "" {
		t.Errorf("--help ends with %d and %q", help.code, help.stderr)
	}
	_, options, _ := strings.Cut(help.stdout, "\nOPTIONS:\n")
	options = regexp.MustCompile(`\n    +`).ReplaceAllString(options, " ") // one line an option
	options = regexp.MustCompile(`([^\n ]) {2,}`).ReplaceAllString(options, "$1 ")
	for _, o := range settings.Options() {
		line := regexp.MustCompile(`(?m)^   --` + o.Name + ` .*`).FindString(options)
		if !strings.Contains(line, " "+o.Usage) {
			t.Errorf("--help has the line %q for --%s", line, o.Name)
		}
		if o.Arg != "" && !strings.HasPrefix(line, "   --"+o.Name+" "+o.Arg+" ") || strings.Contains(line, o.Arg+": ") && o.Arg != "" {
			t.Errorf("--help has the line %q, which does not name %s once", line, o.Arg)
		}
	}
	for _, word := range []string{"global", "GLOBAL", "(default: false)", "`"} {
		if strings.Contains(help.stdout, word) {
			t.Errorf("--help says %q", word)
		}
	}
	for _, word := range []string{"--check", "--show-config", "HOST [PORT [OPAQUE]]", "CALLHOME_LOCAL_ADDRESS", settings.DefaultsFile} {
		if !strings.Contains(help.stdout, word) {
			t.Errorf("--help does not name %s", word)
		}
	}
	if v := end(t, called(t, nil, "", "--version")); v.code != 0 || v.stdout != "callhome-trigger version unknown\n" {
		t.Errorf("--version ends with %d and %q", v.code, v.stdout)
	}
}

// --check makes no call; its exit status is that of what is missing first.
func TestCheck(t *testing.T) {
	l, port := listen(t)
	keys := file(t, "keys", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIQIotdYnjqoEfsT4aP8VOAmFi3duq/o6waqLlgVTN1U nms\n", 0o644)
	for _, tt := range []struct {
		name, subsystem string
		code            int
	}{
		{"nothing missing", "/bin/sh", sysexits.OK},
		{"something missing", "/nonexistent/s", sysexits.Config},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text := device(t, `case "$1" in -V) echo OpenSSH_9.9p2,;; -T) echo hostkey /etc/passwd; echo permitrootlogin yes; echo strictmodes no; echo authorizedkeysfile `+keys+`;; esac`)
			r := end(t, called(t, nil, text, "--check", "--subsystem", tt.subsystem, "127.0.0.1", port))
			if r.code != tt.code || r.stderr != "" || !strings.Contains(r.stdout, "subsystem             "+tt.subsystem) {
				t.Errorf("exit status %d with %q and\n%s", r.code, r.stderr, r.stdout)
			}
		})
	}
	if err := l.(*net.TCPListener).SetDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if c, err := l.Accept(); err == nil {
		t.Errorf("%v was called", c.LocalAddr())
	}
}

func TestFlagsMirrorTheTable(t *testing.T) {
	names := []string{"check", "show-config"}
	for _, o := range settings.Options() {
		names = append(names, o.Name)
	}
	var got []string
	for _, f := range flags() {
		got = append(got, f.Names()...)
	}
	if !slices.Equal(got, names) {
		t.Errorf("flags are %q, want %q", got, names)
	}
}
