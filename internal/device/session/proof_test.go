package session

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"callhome/internal/device/process"
	"callhome/internal/device/sshdlog"
	"callhome/internal/device/subsystem"
	"callhome/internal/proto"

	"golang.org/x/crypto/ssh"
)

// A client can write any line into sshd's log. An unproven login changes no state
// and is reported.
func TestALoginInTheLogAloneIsNoLogin(t *testing.T) {
	env, all := newEnv(t)
	env.proven = func(process.Identity, string) bool { return false }
	s := New(env, 1, proto.CallParams{Host: "nms", Port: 1}, "manager", Owner{})
	conn, station := connection(t)
	gate := t.TempDir() + "/gate"
	cmd := stub(t, at(conn, `printf '`+lineConnected+`\r\nInvalid user x\r\n`+lineAccepted+`\r\n`+lineSubsystem+`\r\n`+lineGaveUp+`\r\n' >&2
while ! [ -e `+gate+` ]; do sleep 0.01; done
exit 255`))
	if err := s.Start(cmd, conn); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Await(t.Context(), proto.StateKeyExchange); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	info := awaitDone(t, s)
	station.Close()
	if info.User != "" || info.Stage == proto.StageSession || info.Stage == proto.StageSubsystem {
		t.Errorf("the log alone proved a login: %+v", info)
	}
	for _, name := range all.names() {
		if name == proto.EventAuthenticated || name == proto.EventSubsystem {
			t.Errorf("the events are %v", all.names())
		}
	}
	if !strings.Contains(strings.Join(all.names(), " "), proto.EventTrouble) {
		t.Errorf("no trouble is reported: %v", all.names())
	}
}

// Where sshd's lines are lost, as on a full disk, the helper's report is what the
// search for the login begins with.
func TestALoginIsFoundWithoutTheLog(t *testing.T) {
	env, _ := newEnv(t)
	s := New(env, 1, proto.CallParams{Host: "nms", Port: 1}, "manager", Owner{})
	conn, station := connection(t)
	if err := s.Start(stub(t, "cat > /dev/null"), conn); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	s.rec.Subsystem, s.rec.Started = s.rec.Process, true
	s.mu.Unlock()
	s.supervisor.stir()
	if info, err := s.Await(t.Context(), proto.StateServing); err != nil || info.User != "netconf" || info.Method != "" || info.Key != "" {
		t.Errorf("got %+v, %v", info, err)
	}
	station.Close()
	awaitDone(t, s)
}

// Only claims of the session's own peer count. All distinct ones are kept: which
// one is the login's is for the evidence to say.
func TestOnlyClaimsOfTheOwnPeerCount(t *testing.T) {
	r := started()
	r.Remote = "192.0.2.1:4334"
	for _, l := range []string{
		"Accepted publickey for netconf from 192.0.2.1 port 4334 ssh2: ED25519 SHA256:first",
		lineAccepted,
		"Accepted publickey for netconf from 192.0.2.1 port 4335 ssh2: ED25519 SHA256:elsewhere",
		"Accepted publickey for netconf from 198.51.100.1 port 4334 ssh2: ED25519 SHA256:elsewhere",
	} {
		if events := r.apply(sshdlog.Parse(l)); slices.Contains(events, proto.EventAuthenticated) || r.State == proto.StateAuthenticated {
			t.Errorf("a line alone proved a login: %s", l)
		}
	}
	if len(r.Claims) != 2 || r.Claims[0].Key != "SHA256:first" || r.Claims[1].Key != "SHA256:abc" {
		t.Errorf("the claims are %+v", r.Claims)
	}
	for i := range 3 * maxClaims {
		r.apply(sshdlog.Parse(fmt.Sprintf("Accepted publickey for u%d from 192.0.2.1 port 4334 ssh2: ED25519 SHA256:abc", i)))
	}
	if len(r.Claims) != maxClaims || !r.ClaimsDropped {
		t.Errorf("%d claims are kept, others dropped: %v", len(r.Claims), r.ClaimsDropped)
	}
	// The one of the user that is left may be one that the user added.
	r.apply(sshdlog.Parse(lineAccepted))
	r.loggedIn("netconf", 1000)
	if r.User != "netconf" || r.Method != "" || r.Key != "" {
		t.Errorf("of claims that were dropped, one is believed: %+v", r.SessionInfo)
	}
}

// A user can add lines with other users, methods and keys to the log, before and
// after the true one. What sshd exposed chooses among the lines, and adds none;
// where nothing chooses, the key is not known.
func TestTheKeyIsOneThatLogAndSshdAgreeOn(t *testing.T) {
	signer := newSigner(t)
	cert := &ssh.Certificate{Key: signer.PublicKey(), KeyId: "nms-1\x1b", CertType: ssh.UserCert}
	if err := cert.SignCert(rand.Reader, signer); err != nil {
		t.Fatal(err)
	}
	fingerprint := ssh.FingerprintSHA256(signer.PublicKey())
	key := "publickey " + string(ssh.MarshalAuthorizedKey(signer.PublicKey()))
	true1 := claim{"netconf", "publickey", fingerprint, "nms-1"}
	admin := claim{"netconf", "publickey", "SHA256:admin", ""}
	password := claim{User: "netconf", Method: "password"}
	for _, tt := range []struct {
		name, auth string
		uid        int // of the helper
		claims     []claim
		want       claim
		agreed     bool
	}{
		{"one line", "", 1000, []claim{true1}, true1, true},
		{"a key", key, 1000, []claim{true1}, true1, true},
		{"a certificate", "publickey " + string(ssh.MarshalAuthorizedKey(cert)), 1000, []claim{true1}, true1, true},
		{"two steps", "password\n" + key, 1000, []claim{true1}, true1, true},
		{"a password", "password\n", 1000, []claim{password, admin}, password, true},
		{"a line added before", key, 1000, []claim{admin, true1}, true1, true},
		{"lines added after", key, 1000, []claim{true1, admin, password, {User: "ghost", Method: "publickey"}}, true1, true},
		{"a line added, no report", "", 1000, []claim{true1, admin}, claim{User: "netconf"}, true},
		{"no key", "publickey ssh-ed25519 AAAA\npublickey x\n\x00", 1000, []claim{true1, admin}, claim{User: "netconf"}, true},
		{"another key is exposed", key, 1000, []claim{admin}, claim{User: "netconf"}, false},
		{"another key and lines", key, 1000, []claim{admin, password}, claim{User: "netconf"}, false},
		{"another user's report", key, 1001, []claim{admin, true1}, claim{User: "netconf"}, true},
		{"no line of the user", key, 1000, []claim{{User: "ghost"}}, claim{User: "netconf"}, false},
	} {
		for _, reported := range []string{"before", "after"} {
			r := started()
			r.Claims = slices.Clone(tt.claims)
			report := subsystem.Report{UID: tt.uid, Auth: tt.auth}
			if reported == "before" {
				r.firstReport(report)
			}
			agreed := r.loggedIn("netconf", 1000)
			if reported == "after" {
				agreed = r.firstReport(report)
			}
			got := claim{r.User, r.Method, r.Key, r.Cert}
			if got != tt.want || agreed != tt.agreed || r.State != proto.StateAuthenticated || r.UID != 1000 {
				t.Errorf("%s, reported %s: %+v, agreed %v", tt.name, reported, got, agreed)
			}
		}
	}
}

// The file that a report names is removed later: only one that sshd can have made.
func TestOnlySshdsNamesOfItsFileAreKept(t *testing.T) {
	for name, want := range map[string]bool{
		"/tmp/sshauth.bVcKtMtDJR2ugcJ": true, "/tmp/sshauth.": false, "/tmp/sshauth.x/../../etc/passwd": false, "/etc/passwd": false,
		"/tmp/sshauth." + strings.Repeat("a", 33): false, "/tmp/sshauth.a\x01": false,
	} {
		r := started()
		r.firstReport(subsystem.Report{AuthFile: name})
		if (r.AuthFile == name) != want {
			t.Errorf("%q: kept %q", name, r.AuthFile)
		}
	}
}

func newSigner(t *testing.T) ssh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

// No log makes a record without evidence authenticated, and it ends at the stage of
// a failed login.
func FuzzNoLogIsALogin(f *testing.F) {
	for _, l := range []string{lineConnected, lineAccepted, lineSubsystem, lineFinished, lineDisconnect, lineGone, lineGaveUp, lineUnknown} {
		f.Add(l + "\n" + lineAccepted + "\n" + l)
	}
	f.Add("Accepted none for unknown [priv] from 192.0.2.1 port 4334 ssh2\nStarting session: subsystem 'netconf' for root [priv] from 192.0.2.1 port 4334 id 0")
	f.Fuzz(func(t *testing.T, log string) {
		r := started()
		r.Remote = "192.0.2.1:4334"
		for line := range strings.Lines(log) {
			for _, e := range r.apply(sshdlog.Parse(line)) {
				if e == proto.EventAuthenticated || e == proto.EventSubsystem {
					t.Fatalf("event %s for %q", e, line)
				}
			}
		}
		for _, exit := range []int{0, 255, -1} {
			closed := *r
			if event := closed.end(exit, order{}); event != proto.EventFailed || closed.User != "" || closed.Graceful {
				t.Errorf("exit %d: %s, %+v", exit, event, closed.SessionInfo)
			}
		}
	})
}

// A peer, with or without a login, can cause any number of lines of each kind: each
// kind of event has its own rate limit, so that the others are still published.
func TestEventsOfASessionAreBounded(t *testing.T) {
	env, all := newEnv(t)
	s := New(env, 1, proto.CallParams{Host: "nms", Port: 1}, proto.ViaManager, Owner{})
	e := &logReader{s: s}
	for range 3 * eventLimit.Burst {
		e.publish(proto.EventLog, "x")
		e.publish(proto.EventNoSubsystem, "y")
	}
	e.publish(proto.EventRefused, "z")
	counts := make(map[string]int)
	for _, name := range all.names() {
		counts[name]++
	}
	if counts[proto.EventLog] != eventLimit.Burst || counts[proto.EventNoSubsystem] != eventLimit.Burst || counts[proto.EventRefused] != 1 {
		t.Errorf("published %v", counts)
	}
	s.Kill("the test")
}

// Where no helper reports, the process that proves the subsystem is known, so that it
// can be ended after a SIGKILL of sshd.
func TestTheProgramOfASessionIsFound(t *testing.T) {
	sshd := exec.Command("/bin/sh", "-c", "sleep 600 & echo $!; wait")
	out, err := sshd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := sshd.Start(); err != nil {
		t.Fatal(err)
	}
	var child int
	if _, err := fmt.Fscan(out, &child); err != nil {
		t.Fatal(err)
	}
	id, err := process.Identify(sshd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	var title []byte
	for end := time.Now().Add(10 * time.Second); !bytes.HasPrefix(title, []byte("sleep")) && time.Now().Before(end); {
		title, _ = process.System.Read(child, "cmdline") // a look during its exec proves nothing
	}
	program, ok := (&Env{}).serves(id, os.Getuid())
	if !ok || program.PID != child || !program.Runs() {
		t.Errorf("found %+v, %v; the program is %d", program, ok, child)
	}
	if program, ok := (&Env{}).serves(id, os.Getuid()+1); ok {
		t.Errorf("another user's is %+v", program)
	}
	process.End(id.Tree())
	_ = sshd.Wait()
	if program, ok := (&Env{}).serves(id, os.Getuid()); ok {
		t.Errorf("after the end: %+v", program)
	}
}
