package evidence

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"callhome/internal/device/process"
)

// uids returns four equal UIDs.
func uids(uid int) [4]int { return [4]int{uid, uid, uid, uid} }

const socketInode = 4711

// The processes that sshd has before and after a login, by version, as measured
// with OpenSSH 8.4, 9.2, 9.9 and 10.5.
func TestLoggedIn(t *testing.T) {
	const netop, sshdUser = 1000, 104
	user := Process{UIDs: uids(netop), Root: RootUsual, Socket: Yes, Title: "sshd: netop@notty"}
	root := Process{UIDs: uids(0), Root: RootUsual, Socket: Yes, Title: "sshd: root@notty"}
	with := func(p Process, change func(*Process)) Process { change(&p); return p }
	for _, tt := range []struct {
		name string
		p    Process
		user string
		uid  int
		want bool
	}{
		{"a user's sshd", user, "netop", netop, true},
		{"a user's sshd before its channel", with(user, func(p *Process) { p.Title = "sshd: netop" }), "netop", netop, true},
		{"up to 9.7 with a PAM service of callhome", with(user, func(p *Process) { p.Title = "callhome: netop@notty" }), "netop", netop, true},
		{"the same, before the login", with(root, func(p *Process) { p.Title = "callhome: root [priv]" }), "root", 0, false},
		{"9.8 and later", with(user, func(p *Process) { p.Title = "sshd-session: netop@notty" }), "netop", netop, true},
		{"root up to 9.7", root, "root", 0, true},
		{"root later", with(root, func(p *Process) { p.Title = "sshd-session: root@notty" }), "root", 0, true},
		{"a user of another name service", with(user, func(p *Process) { p.Title = "sshd: ann@example.net@notty" }), "ann@example.net", anyUID, true},
		{"in a container that sees no descriptors", with(user, func(p *Process) { p.Socket, p.Root = Unseen, RootUnseen }), "netop", netop, true},

		{"the monitor of a valid user", with(root, func(p *Process) { p.Title = "sshd: root [priv]" }), "root", 0, false},
		{"the monitor of an unknown user", with(root, func(p *Process) { p.Title = "sshd: unknown [priv]" }), "unknown [priv]", anyUID, false},
		{"the monitor, with its title as the user's name", with(root, func(p *Process) { p.Title = "sshd: root [priv]" }), "root [priv]", 0, false},
		{"the start", with(root, func(p *Process) { p.Title = "sshd: [accepted]" }), "[accepted]", anyUID, false},
		{"the unprivileged process", with(user, func(p *Process) {
			p.UIDs, p.Sandboxed, p.Root, p.Title = uids(sshdUser), true, RootEmpty, "sshd: root [net]"
		}), "sshd", sshdUser, false},
		{"the unprivileged process, with its title as the user's name", with(user, func(p *Process) {
			p.UIDs, p.Sandboxed, p.Root, p.Title = uids(sshdUser), true, RootEmpty, "sshd: root [net]"
		}), "root [net]", anyUID, false},
		{"the unprivileged process before its sandbox", with(user, func(p *Process) {
			p.UIDs, p.Root, p.Title = uids(sshdUser), RootEmpty, "sshd: sshd"
		}), "sshd", sshdUser, false},
		{"10.x's sshd-auth", with(user, func(p *Process) {
			p.UIDs, p.Sandboxed, p.Root, p.Title = uids(sshdUser), true, RootEmpty, "sshd-auth: root [session-auth]"
		}), "root", 0, false},
		{"an AuthorizedKeysCommand before its exec", with(user, func(p *Process) {
			p.Title, p.Socket = "sshd: netop [priv]", No
		}), "netop", netop, false},
		{"an AuthorizedKeysCommand", with(user, func(p *Process) { p.Title, p.Socket = "/usr/bin/keys", No }), "netop", netop, false},
		{"a process with sshd's title and without the socket", with(user, func(p *Process) { p.Socket = No }), "netop", netop, false},
		{"another user's login", user, "root", 0, false},
		{"a name that begins like the user's", with(user, func(p *Process) { p.Title = "sshd: netop2@notty" }), "netop", netop, false},
		{"during setuid", with(user, func(p *Process) { p.UIDs = [4]int{0, netop, 0, netop} }), "netop", netop, false},
		{"an unknown name with root's UID", with(root, func(p *Process) { p.Title = "sshd: x@notty" }), "x", anyUID, false},
		{"a user's program with sshd's title", with(user, func(p *Process) { p.ByUser, p.Socket = true, Unseen }), "netop", netop, false},
		{"no user", with(user, func(p *Process) { p.Title = "sshd: @notty" }), "", anyUID, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			name, got := tt.p.LoggedIn(only(tt.user, tt.uid), func(name string) bool { return name == tt.user })
			if got != tt.want || got && name != tt.user {
				t.Errorf("got %q, %v, want %v", name, got, tt.want)
			}
		})
	}
}

// only knows the UID of one user.
func only(user string, uid int) func(string) int {
	return func(name string) int {
		if name == user {
			return uid
		}
		return anyUID
	}
}

// The log can name any user; the process says whose login it is.
func TestTheProcessSaysWhoseLoginItIs(t *testing.T) {
	p := Process{UIDs: uids(1000), Root: RootUsual, Socket: Yes, Title: "sshd: ann@example.net@notty"}
	for _, tt := range []struct {
		name    string
		known   string // a local user of UID 1000
		claimed []string
		want    string
	}{
		{"a local user, whatever the log claims", "ann@example.net", []string{"ghost", "ann"}, "ann@example.net"},
		{"another name service's", "", []string{"ann", "ghost", "ann@example.net"}, "ann@example.net"},
		{"the title as a name", "", []string{"ann@example.net@notty"}, ""},
		{"a part of the name", "", []string{"ann"}, ""},
		{"a local user, and the title as a name", "ann@example.net", []string{"ann@example.net@notty"}, "ann@example.net"},
		{"a user whom the log does not name", "", []string{"ghost"}, ""},
	} {
		got, _ := p.LoggedIn(only(tt.known, 1000), func(name string) bool { return slices.Contains(tt.claimed, name) })
		if got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

// sshd appends terminals to the name, and nothing else.
func TestTheUserOfATitle(t *testing.T) {
	for title, want := range map[string]string{
		"sshd: netconf": "netconf", "sshd: netconf@notty": "netconf", "sshd-session: netconf@pts/0": "netconf", "sshd: netconf@pts/0,pts/12": "netconf", "sshd: netconf@tty1": "netconf", "sshd: netconf@ttyS0,pts/1": "netconf", "sshd: ann@corp1": "ann@corp1",
		"sshd: ann@corp": "ann@corp", "sshd: ann@corp.example@notty": "ann@corp.example", "sshd: @notty": "", "sshd: netconf [priv]": "", "sshd: x@y@z": "x@y@z", "bash": "",
	} {
		p := Process{Title: title}
		if got, ok := p.user(); got != want || ok != (want != "") {
			t.Errorf("%q is of %q, %v; want %q", title, got, ok, want)
		}
	}
}

// sshd's titles before a login end in a bracket, and never prove one, whatever name
// the peer chose.
func FuzzTitlesBeforeALoginProveNothing(f *testing.F) {
	for _, name := range []string{"root", "unknown [priv]", "x\nAccepted none for unknown [priv] from 1.1.1.1 port 1 ssh2\ny", "[net]", "", "a@b"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		for _, title := range []string{"sshd: " + name + " [priv]", "sshd: " + name + " [net]", "callhome: " + name + " [net]", "sshd-session: " + name + " [postauth]", "sshd: [accepted]", "sshd-auth: " + name, "callhome-trigger: " + name, name} {
			p := Process{UIDs: uids(0), Root: RootUsual, Socket: Yes, Title: title}
			if strings.HasPrefix(title, "sshd: ") && !strings.HasSuffix(title, "]") || strings.HasPrefix(title, "callhome: ") && !strings.HasSuffix(title, "]") || strings.HasPrefix(title, "sshd-session: ") && !strings.HasSuffix(title, "]") {
				continue // a complete title, which only sshd can set
			}
			for _, uid := range []int{0, anyUID} {
				if _, ok := p.LoggedIn(only(name, uid), func(string) bool { return true }); ok {
					t.Errorf("%q proves a login of %q", title, name)
				}
			}
		}
	})
}

// tree is a proc(5) file system made of regular files.
type tree struct {
	t   *testing.T
	dir Proc
}

func newTree(t *testing.T) *tree { return &tree{t, Proc{process.Proc(t.TempDir())}} }

// process adds a process with status and stat in the kernel's format.
func (tr *tree) process(pid, parent, uid int, seccomp, title string, children ...int) {
	tr.t.Helper()
	n := strconv.Itoa(uid)
	var kids []string
	for _, c := range children {
		kids = append(kids, strconv.Itoa(c))
	}
	files := map[string]string{
		"stat":    strconv.Itoa(pid) + " (sshd) (x) S " + strconv.Itoa(parent) + strings.Repeat(" 1", 17) + " 900 " + strings.Repeat(" 0", 20) + "\n",
		"status":  "Name:\tsshd\nUid:\t" + strings.Join([]string{n, n, n, n}, "\t") + "\nSeccomp:\t" + seccomp + "\n",
		"cmdline": title + "\x00\x00",
		"task/" + strconv.Itoa(pid) + "/children": strings.Join(kids, " "),
	}
	for name, text := range files {
		path := tr.dir.Path(pid, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			tr.t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			tr.t.Fatal(err)
		}
	}
	for name, to := range map[string]string{"root": "/", "fd/3": "socket:[" + strconv.Itoa(socketInode) + "]"} {
		path := tr.dir.Path(pid, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			tr.t.Fatal(err)
		}
		if err := os.Symlink(to, path); err != nil {
			tr.t.Fatal(err)
		}
	}
}

func TestLoginExaminesTheSessionsProcesses(t *testing.T) {
	tr := newTree(t)
	tr.process(10, 1, 0, "0", "sshd: root [priv]", 11, 12)
	tr.process(11, 10, 0, "0", "sshd: root@notty", 13)
	tr.process(12, 10, 0, "0", "/usr/sbin/sshd")
	tr.process(13, 11, 0, "0", "sh")
	if name, uid, ok := tr.dir.Login(10, socketInode, no); !ok || name != "root" || uid != 0 {
		t.Errorf("got %q, %d, %v; want root", name, uid, ok)
	}
	if p, _, ok := tr.dir.Login(10, socketInode+1, no); ok {
		t.Errorf("a login of %q on another socket", p)
	}
	if p, _, ok := tr.dir.Login(12, socketInode, no); ok {
		t.Errorf("a login of %q of another sshd", p)
	}
}

// no is a log that names no user.
func no(string) bool { return false }

// What a user runs can have sshd's title. Without CAP_SYS_PTRACE its socket cannot
// be seen, so its place decides: only sshd itself is a child of the first sshd.
func TestAUsersOwnProcessProvesNothing(t *testing.T) {
	tr := newTree(t)
	tr.process(10, 1, 0, "0", "sshd: netop [priv]", 11)
	tr.process(11, 10, 1000, "0", "sh", 12)
	tr.process(12, 11, 1000, "0", "sshd: ghost")
	if name, _, ok := tr.dir.Login(10, socketInode, func(string) bool { return true }); ok {
		t.Errorf("a process of the user's proves a login of %q", name)
	}
}

// sshd's sandbox is one seccomp filter more than the session's first sshd has:
// containers and systemd units set filters on all processes.
func TestASandboxedProcessProvesNothing(t *testing.T) {
	for _, tt := range []struct {
		name, first, child string
		want               bool
	}{
		{"none", "0", "0", true},
		{"sandboxed", "0", "2\nSeccomp_filters:\t1", false},
		{"sandboxed, kernel before 5.9", "0", "2", false},
		{"in a container", "2\nSeccomp_filters:\t3", "2\nSeccomp_filters:\t3", true},
		{"in a container, sandboxed", "2\nSeccomp_filters:\t3", "2\nSeccomp_filters:\t4", false},
		{"in a container, kernel before 5.9", "2", "2", true}, // the other rules decide
	} {
		tr := newTree(t)
		tr.process(10, 1, 0, tt.first, "sshd: root [priv]", 11)
		tr.process(11, 10, 0, tt.child, "sshd: root@notty")
		if _, _, ok := tr.dir.Login(10, socketInode, no); ok != tt.want {
			t.Errorf("%s: login proven: %v, want %v", tt.name, ok, tt.want)
		}
		tr = newTree(t)
		tr.process(10, 1, 0, tt.first, "sshd: root [priv]", 11)
		tr.process(11, 10, 0, tt.child, "/bin/cat")
		if _, ok := tr.dir.Program(10, 0); ok != tt.want {
			t.Errorf("%s: program found: %v, want %v", tt.name, ok, tt.want)
		}
	}
}

func TestAnEmptyRootIsDetected(t *testing.T) {
	tr := newTree(t)
	tr.process(10, 1, 0, "0", "sshd: root@notty")
	for _, tt := range []struct {
		name, inside string
		want         Root
	}{{"the privilege separation directory", "", RootEmpty}, {"a ChrootDirectory", "bin", RootUsual}} {
		root := filepath.Join(t.TempDir(), "root")
		if err := os.MkdirAll(filepath.Join(root, tt.inside), 0o755); err != nil {
			t.Fatal(err)
		}
		link := tr.dir.Path(10, "root")
		if err := os.Remove(link); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(root, link); err != nil {
			t.Fatal(err)
		}
		if p, err := tr.dir.Look(10, socketInode); err != nil || p.Root != tt.want {
			t.Errorf("%s: got %v, %v; want %v", tt.name, p.Root, err, tt.want)
		}
	}
}

// The test's own process, seen through the kernel.
func TestLookAtThisProcess(t *testing.T) {
	p, err := System.Look(os.Getpid(), 1)
	if err != nil || p.Parent != os.Getppid() || p.UIDs != uids(os.Getuid()) || p.Root != RootUsual || p.Socket != No || !strings.HasPrefix(p.Title, os.Args[0]) {
		t.Errorf("got %+v, %v", p, err)
	}
	if _, err := System.Look(1<<22+1, 0); err == nil {
		t.Error("a PID above the kernel's maximum has a state")
	}
}

// Whatever name a process sets, its UIDs and filters are the kernel's fields.
func FuzzStatus(f *testing.F) {
	f.Add("sshd", 1000)
	f.Add(") R 1\nUid:\t0\t0\t0\t0", 0)
	f.Fuzz(func(t *testing.T, comm string, uid int) {
		// The kernel escapes a line end in the name (proc_pid_status(5)).
		status := fmt.Sprintf("Name:\t%s\nUid:\t%d\t%d\t%d\t%d\nSeccomp:\t2\n", strings.ReplaceAll(comm, "\n", `\n`), uid, uid, uid, uid)
		if got, filters, err := parseStatus([]byte(status)); err != nil || got != uids(uid) || filters != 1 {
			t.Errorf("%q: got %v, %v, %v", status, got, filters, err)
		}
	})
}

func TestAMalformedStatusIsAnError(t *testing.T) {
	for _, text := range []string{"", "Uid:\t0\n", "Uid:\ta\tb\tc\td\n", "Name:\tx\n"} {
		if _, _, err := parseStatus([]byte(text)); err == nil {
			t.Errorf("status %q is accepted", text)
		}
	}
}
