package preflight

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"callhome/internal/printable"
	"callhome/internal/sshdexec"
	"callhome/internal/sysexits"

	"golang.org/x/sys/unix"
)

// Two keys of ssh-keygen, and what ssh-keygen -l says of them.
const (
	aKey       = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIQIotdYnjqoEfsT4aP8VOAmFi3duq/o6waqLlgVTN1U nms"
	aPrint     = "ssh-ed25519 SHA256:weeC81UPnoP1IaxmmnuLNttzFOYsLTZuTT+axPaYOhg (nms)"
	anotherKey = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBOuI/Yd4t04a4UiF4t5OIqgt8IkU7ijyFkqb6ulBmRAuDTZMOol3OA53kNgnBsA/xpz6UUmAO89uswySnmvj74o="
	another    = "ecdsa-sha2-nistp256 SHA256:Hf/KUbQx2PP1IrJRzKrKtCdJn4PO0u6njsSgaHDI8Wo"
)

// What an authorized_keys(5) file can hold.
func TestPublicKeys(t *testing.T) {
	damaged := strings.Replace(aKey, "AAAAC3", "AAAAC4", 1)
	for name, tt := range map[string]struct {
		text string
		want []string
	}{
		"a key":                             {aKey + "\n", []string{aPrint}},
		"without a comment, no line feed":   {anotherKey, []string{another}},
		"several, among comments":           {"# " + aKey + "\n\n" + aKey + "\r\n  " + anotherKey + "\n", []string{aPrint, another}},
		"options":                           {`restrict,command="echo \"a b\"" ` + aKey, []string{aPrint}},
		"an option with a blank and a key":  {`environment="X=ssh-ed25519 AAAA" ` + anotherKey, []string{another}},
		"a comment that would move a line":  {aKey + "\x1b[1A", []string{strings.Replace(aPrint, "(nms)", "(nms?[1A)", 1)}},
		"another kind than it says":         {strings.Replace(aKey, "ssh-ed25519", "ssh-rsa", 1), nil},
		"a damaged key":                     {damaged, nil},
		"a key cut off":                     {aKey[:40], nil},
		"a private key":                     {"-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUA\n", nil},
		"a fingerprint in place of the key": {strings.Fields(aPrint)[1], nil},
		"nothing":                           {"", nil},
		"a kind alone":                      {"ssh-ed25519", nil},
	} {
		if got := publicKeys(tt.text); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

// me returns an account with the rights of this test and an empty home.
func me(t *testing.T) account {
	return account{name: "op", uid: os.Geteuid(), gid: os.Getegid(), home: t.TempDir(), shell: "/bin/sh"}
}

// put writes a file below the home directory.
func put(t *testing.T, a account, file, text string, mode os.FileMode) {
	t.Helper()
	path := filepath.Join(a.home, file)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil { // without the umask
		t.Fatal(err)
	}
}

const keysFile = ".ssh/authorized_keys"

// What one user can log in with, and what is wrong.
func TestWhatAUserLogsInWith(t *testing.T) {
	for _, tt := range []struct {
		name   string
		make   func(t *testing.T, a *account)
		config string // further lines
		with   []string
		fault  string // a part of the first one; "" for none
	}{
		{"a key", func(t *testing.T, a *account) { put(t, *a, keysFile, aKey, 0o600) }, "", []string{aPrint}, ""},
		{"keys in two files", func(t *testing.T, a *account) {
			put(t, *a, keysFile, aKey, 0o600)
			put(t, *a, keysFile+"2", anotherKey, 0o600)
		}, "", []string{aPrint, another}, ""},
		{"no file", func(*testing.T, *account) {}, "", nil, "/.ssh/authorized_keys does not exist"},
		{"the file of the public key has another name", func(t *testing.T, a *account) { put(t, *a, ".ssh/id.pub", aKey, 0o600) }, "", nil, "authorized_keys does not exist"},
		{"mode 666", func(t *testing.T, a *account) { put(t, *a, keysFile, aKey, 0o666) }, "", nil, "authorized_keys has mode 0666: other users can write it"},
		{"mode 666, no StrictModes", func(t *testing.T, a *account) { put(t, *a, keysFile, aKey, 0o666) }, "strictmodes no", []string{aPrint}, ""},
		{"a directory of mode 777", func(t *testing.T, a *account) {
			put(t, *a, keysFile, aKey, 0o600)
			if err := os.Chmod(a.home+"/.ssh", 0o777); err != nil {
				t.Fatal(err)
			}
		}, "", nil, "/.ssh has mode 0777"},
		{"a home of mode 777", func(t *testing.T, a *account) {
			put(t, *a, keysFile, aKey, 0o600)
			if err := os.Chmod(a.home, 0o777); err != nil {
				t.Fatal(err)
			}
		}, "", nil, "has mode 0777"},
		{"no key in it", func(t *testing.T, a *account) { put(t, *a, keysFile, "# none yet\n", 0o600) }, "", nil, "authorized_keys has no public key"},
		{"a directory in its place", func(t *testing.T, a *account) { put(t, *a, keysFile+"/x", "", 0o600) }, "", nil, "not a regular file"},
		{"a FIFO in its place", func(t *testing.T, a *account) {
			put(t, *a, ".ssh/x", "", 0o600)
			if err := unix.Mkfifo(filepath.Join(a.home, keysFile), 0o600); err != nil {
				t.Fatal(err)
			}
		}, "", nil, "not a regular file"},
		{"another file, with tokens", func(t *testing.T, a *account) { put(t, *a, "keys/op-%", aKey, 0o600) }, "authorizedkeysfile %h/keys/%u-%%", []string{aPrint}, ""},
		{"no AuthorizedKeysFile", func(t *testing.T, a *account) { put(t, *a, keysFile, aKey, 0o600) }, "authorizedkeysfile none", nil, ""},
		{"AuthorizedKeysCommand", func(*testing.T, *account) {}, "authorizedkeyscommand /bin/keys", []string{"keys of AuthorizedKeysCommand"}, "does not exist"},
		{"nologin", func(t *testing.T, a *account) {
			put(t, *a, keysFile, aKey, 0o600)
			a.shell = "/usr/sbin/nologin"
		}, "", nil, "the shell /usr/sbin/nologin ends each session at once"},
		{"false", func(_ *testing.T, a *account) { a.shell = "/bin/false" }, "", nil, "the shell /bin/false ends"},
		{"no such shell", func(t *testing.T, a *account) {
			put(t, *a, keysFile, aKey, 0o600)
			a.shell = "/nonexistent/sh"
		}, "", nil, "the shell /nonexistent/sh cannot be executed"},
		{"refused", func(t *testing.T, a *account) { put(t, *a, keysFile, aKey, 0o600) }, "denyusers o*@192.0.2.0/24", nil, "DenyUsers names the user"},
		{"not allowed", func(t *testing.T, a *account) { put(t, *a, keysFile, aKey, 0o600) }, "allowusers other", nil, "AllowUsers does not name the user"},
		{"allowed by a pattern", func(t *testing.T, a *account) { put(t, *a, keysFile, aKey, 0o600) }, "allowusers other ?p@192.0.2.1", []string{aPrint}, ""},
		{"no group of the user", func(t *testing.T, a *account) { put(t, *a, keysFile, aKey, 0o600) }, "allowgroups no-such-group-0", nil, "AllowGroups names no group"},
		{"keys are off", func(t *testing.T, a *account) { put(t, *a, keysFile, aKey, 0o600) }, "pubkeyauthentication no", nil, ""},
		{"a password", func(*testing.T, *account) {}, "passwordauthentication yes", []string{"a password"}, "does not exist"},
		{"a password is not enough", func(*testing.T, *account) {}, "passwordauthentication yes\nauthenticationmethods publickey,password", nil, "does not exist"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := me(t)
			tt.make(t, &a)
			lines := tt.config + "\npermitrootlogin yes\nauthorizedkeysfile .ssh/authorized_keys .ssh/authorized_keys2"
			dump := parseDump(lines)
			if files := dump["authorizedkeysfile"]; len(files) > 1 {
				dump["authorizedkeysfile"] = files[:1]
			}
			l := login{account: a}
			l.examine(dump)
			if !reflect.DeepEqual(l.with, tt.with) {
				t.Errorf("logs in with %q, want %q", l.with, tt.with)
			}
			switch {
			case tt.fault == "" && len(l.faults) > 0:
				t.Errorf("faults %+v", l.faults)
			case tt.fault != "" && (len(l.faults) == 0 || !strings.Contains(l.faults[0].what, tt.fault) || l.faults[0].fix == ""):
				t.Errorf("faults %+v, want one with %q", l.faults, tt.fault)
			}
		})
	}
}

// sshd opens the file with the user's rights, and its owner's decide.
func TestFilesAreReadWithTheUsersRights(t *testing.T) {
	op := login{account: account{name: "op", uid: 1000, gid: 100}}
	for _, tt := range []struct {
		uid, gid uint32
		mode     uint32
		may      bool
	}{
		{0, 0, 0o600, false}, {0, 0, 0o644, true}, {0, 100, 0o640, true}, {0, 7, 0o640, false},
		{1000, 0, 0o400, true}, {1000, 100, 0o044, false}, {1000, 0, 0, false},
	} {
		if got := op.may(&unix.Stat_t{Uid: tt.uid, Gid: tt.gid, Mode: tt.mode}, unix.R_OK); got != tt.may {
			t.Errorf("%+v: %v", tt, got)
		}
	}
	root := login{account: account{name: "root"}}
	if !root.may(&unix.Stat_t{Uid: 7}, unix.R_OK) {
		t.Error("root may not")
	}
	own := login{account: account{name: "op", uid: 1000, gid: 1000}}
	for mode, want := range map[uint32]bool{0o664: true, 0o666: false} {
		if got := own.private(&unix.Stat_t{Gid: 1000, Mode: mode}); got != want {
			t.Errorf("mode %o of a private group: %v", mode, got)
		}
	}
	if op.private(&unix.Stat_t{Gid: 100, Mode: 0o664}) {
		t.Error("a group of several users counts as private")
	}
}

// Which users are examined.
func TestLoginsAreOfTheUsersThatSshdAdmits(t *testing.T) {
	keyed := me(t)
	put(t, keyed, keysFile, aKey, 0o600)
	user := func(name string, uid int, home, shell string) account {
		return account{name: name, uid: uid, gid: os.Getegid(), home: home, shell: shell}
	}
	empty := t.TempDir()
	all := []account{
		user("root", 0, empty, "/bin/sh"), user("daemon", 1, empty, "/bin/sh"), user("sys", 2, empty, "/usr/sbin/nologin"),
		user("op", keyed.uid, keyed.home, "/bin/sh"), user("away", 1001, empty, "/usr/sbin/nologin"), user("nobody", 65534, empty, "/bin/sh"),
	}
	const files = "authorizedkeysfile .ssh/authorized_keys\npermitrootlogin yes\n"
	for _, tt := range []struct {
		name, config string
		uid          int
		want         string
	}{
		{"ordinary ones, and those with a key", files, 0, "root op"},
		{"those that AllowUsers names", files + "allowusers away root", 0, "root away"},
		{"by a pattern", files + "allowusers r* d*", 0, "root"},
		{"no user of this machine", files + "allowusers no-such-user-0", 0, ""},
		{"only ourselves without root's rights", files, 1001, "away"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := machine{uid: tt.uid, config: parseDump(tt.config)}
			var got []string
			for _, l := range m.findLogins(all) {
				got = append(got, l.name)
			}
			if strings.Join(got, " ") != tt.want {
				t.Errorf("examines %q, want %q", got, tt.want)
			}
		})
	}
	if (&machine{}).findLogins(all) != nil || checkLogins(&machine{}) != nil || checkShells(&machine{}) != nil {
		t.Error("users are examined without a configuration")
	}
}

// The report says who can log in, and is red when no user can.
func TestLoginFindings(t *testing.T) {
	able := func(name string) login { return login{account: account{name: name}, with: []string{aPrint}} }
	unable := func(name string, expected bool) login {
		return login{account: account{name: name}, expected: expected, faults: []fault{{"no file", "make it"}}}
	}
	partly := login{account: account{name: "op"}, expected: true, with: []string{aPrint}, faults: []fault{{"f has mode 0666", "chmod"}}}
	red := func(fix, what string) Finding { return Finding{Missing, what, fix, sysexits.NoPerm} }
	for _, tt := range []struct {
		name    string
		logins  []login
		unknown []string
		want    []Finding
	}{
		{"one", []login{able("op")}, nil, []Finding{{Good, "op, with " + aPrint, "", 0}}},
		{"many", []login{able("a"), able("b"), able("c"), able("d"), able("e")}, nil, []Finding{
			{Good, "a, with " + aPrint, "", 0}, {Good, "b, with " + aPrint, "", 0}, {Good, "c, with " + aPrint, "", 0}, {Good, "and 2 more users", "", 0}}},
		{"beside one without a key", []login{able("op"), unable("root", false)}, nil, []Finding{{Good, "op, with " + aPrint, "", 0}}},
		{"beside one that the operator prepared", []login{able("op"), unable("dev", true)}, nil, []Finding{
			{Good, "op, with " + aPrint, "", 0}, {Warning, "dev cannot log in: no file", "make it", 0}}},
		{"a file that sshd skips beside a good one", []login{partly}, nil, []Finding{
			{Good, "op, with " + aPrint, "", 0}, {Warning, "op: f has mode 0666", "chmod", 0}}},
		{"none can", []login{unable("root", false), unable("op", false)}, nil, []Finding{
			red("make it", "root cannot log in: no file"), red("make it", "op cannot log in: no file")}},
		{"AllowUsers names no user of this machine", nil, []string{"netconf"}, []Finding{
			red("useradd -m -s /bin/sh -p '*' netconf, or correct AllowUsers", "AllowUsers names netconf, which is no user of this machine")}},
		{"of two names in AllowUsers one is a user", []login{able("op")}, []string{"netconf"}, []Finding{
			{Good, "op, with " + aPrint, "", 0},
			{Warning, "AllowUsers names netconf, which is no user of this machine", "useradd -m -s /bin/sh -p '*' netconf, or correct AllowUsers", 0}}},
		{"a pattern that fits no user", nil, nil, []Finding{
			red("create a user for NETCONF, with the NETCONF client's public key in ~/.ssh/authorized_keys", "no user can log in: AllowUsers is net*")}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := loginFindings(tt.logins, tt.unknown, "net*"); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("finds\n%+v, want\n%+v", got, tt.want)
			}
		})
	}
}

// Where a document names the users of its connections, a machine without another one
// is no fault.
func TestADocumentsUsersAreEnough(t *testing.T) {
	m := machine{config: config("allowusers no-such-user-0"), ownUsers: true}
	got := checkLogins(&m)
	if len(got) != 1 || got[0].Level != Warning || got[0].Code != 0 || !strings.Contains(got[0].What, "names no-such-user-0") {
		t.Errorf("got %+v", got)
	}
	m.ownUsers = false
	if got := checkLogins(&m); len(got) != 1 || got[0].Level != Missing {
		t.Errorf("without a document: %+v", got)
	}
}

func TestUserFault(t *testing.T) {
	if got := UserFault("no-such-user-0", true); got != "it is no user of this machine" {
		t.Errorf("got %q", got)
	}
	for _, a := range accounts() {
		if got := UserFault(a.name, true); (got != "") != (a.locked() || a.shell != "" && !executable(a.shell)) {
			t.Errorf("%s with the shell %s: %q", a.name, a.shell, got)
		}
	}
}

// A user chooses the target of a symbolic link. In a command for root it is one word.
func TestAUsersTextIsOneWord(t *testing.T) {
	a := me(t)
	const dir = "it's $(id)\n"
	put(t, a, dir+"/keys", aKey, 0o600)
	put(t, a, ".ssh/x", "", 0o600)
	target := filepath.Join(a.home, dir)
	if err := errors.Join(os.Chmod(target, 0o777), os.Symlink(target+"/keys", filepath.Join(a.home, keysFile))); err != nil {
		t.Fatal(err)
	}
	l := login{account: a}
	l.examine(parseDump("permitrootlogin yes\nauthorizedkeysfile .ssh/authorized_keys"))
	if len(l.faults) != 1 || !strings.HasPrefix(l.faults[0].fix, "chmod go-w ") {
		t.Fatalf("got %+v", l.faults)
	}
	printed := printable.Quoted(strings.TrimPrefix(l.faults[0].fix, "chmod go-w "))
	out, err := exec.Command("/bin/sh", "-c", "printf %s "+printed).Output()
	if want := printable.Quoted(target); err != nil || string(out) != want {
		t.Errorf("a shell reads %s as %q, want %q, %v", printed, out, want, err)
	}
	for s, want := range map[string]string{"op": "op", "/home/op-1/.ssh": "/home/op-1/.ssh", "": "''", "a b": "'a b'", "~": "'~'"} {
		if got := word(s); got != want {
			t.Errorf("%q: %s", s, got)
		}
	}
}

// Where a Match block can change what holds for a user, sshd is asked for each.
func TestMatchBlocksAreAskedFor(t *testing.T) {
	a := me(t)
	put(t, a, "own/keys", aKey, 0o600)
	file := filepath.Join(t.TempDir(), "sshd_config")
	if err := os.WriteFile(file, []byte("UsePAM no\n match user op\n  AuthorizedKeysFile own/keys\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := sshd(sshdexec.Command{Config: file, Sshd: fakeSshd(t, "OpenSSH_9.9p2, x", `echo "permitrootlogin yes"; case "$*" in *user=op,*) echo "authorizedkeysfile own/keys";; *) echo "authorizedkeysfile none";; esac`)})
	m := machine{s: s, config: parseDump("authorizedkeysfile none\npermitrootlogin yes\n"), perUser: hasMatch(file)}
	if got := m.findLogins([]account{a}); len(got) != 1 || fmt.Sprint(got[0].with) != "["+aPrint+"]" {
		t.Errorf("got %+v", got)
	}
	if hasMatch("/dev/null") || hasMatch("") {
		t.Error("a configuration without Match counts as one with it")
	}
}

// Without PAM an account whose password begins with "!" is locked, as useradd leaves it.
func TestALockedAccount(t *testing.T) {
	data, err := os.ReadFile("/etc/shadow")
	if err != nil {
		t.Skip(err) // not root
	}
	tried := 0
	for line := range strings.Lines(string(data)) {
		name, rest, _ := strings.Cut(line, ":")
		locked := strings.HasPrefix(rest, "!")
		if lockedFault(name, true) != (fault{}) || (lockedFault(name, false) != (fault{})) != locked {
			t.Errorf("%s: locked %v", name, locked)
		}
		tried++
	}
	if tried == 0 || lockedFault("no-such-user-0", false) != (fault{}) {
		t.Errorf("%d accounts", tried)
	}
	for dump, want := range map[string]bool{"usepam yes": true, "usepam no": false, "permitrootlogin yes": false} {
		if usesPAM(parseDump(dump+"\n")) != want {
			t.Errorf("%q", dump)
		}
	}
}

func TestHostsAccessFindings(t *testing.T) {
	for _, tt := range []struct {
		deny  string
		level Level
		says  string
	}{
		{"", Good, "no line of hosts.deny is for sshd"},
		{"sshd: 192.0.2.1\n", Warning, "hosts.deny line 1: sshd: 192.0.2.1"},
		{"sshd: ALL\n", Missing, "libwrap refuses every client of sshd, "},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "hosts.deny"), []byte(tt.deny), 0o644); err != nil {
			t.Fatal(err)
		}
		got := hostsAccessFindings(dir)
		if len(got) != 1 || got[0].Level != tt.level || !strings.Contains(got[0].What, tt.says) || (got[0].Code != 0) != (tt.level == Missing) {
			t.Errorf("%q: %+v", tt.deny, got)
		}
	}
	program := filepath.Join(t.TempDir(), "sshd")
	for text, want := range map[string]bool{"\x7fELF libwrap.so.0\x00": true, "\x7fELF libc.so.6\x00": false} {
		if err := os.WriteFile(program, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
		if linked(program) != want {
			t.Errorf("%q: linked %v", text, !want)
		}
	}
}
