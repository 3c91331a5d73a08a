package session

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"callhome/internal/device/sshdlog"
	"callhome/internal/proto"
)

// titled starts a process with that title, and a child of it with the other.
func titled(t *testing.T, title, child string) Identity {
	t.Helper()
	cmd := exec.Command("/bin/bash", "-c", `exec -a "$1" /bin/bash -c 'if [ -n "$1" ]; then (exec -a "$1" sleep 60) & fi; echo; read x' "$1" "$2"`, "bash", title, child)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	id, err := identify(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		endTree(id)
		in.Close()
		_ = cmd.Wait()
	})
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return id
}

// The titles are those of stock sshd, 8.4 to 10.0.
func TestALoginIsProvenByTheProcesses(t *testing.T) {
	for _, tt := range []struct {
		sshd, child string
		want        bool
	}{
		{"sshd: [accepted]", "sshd: [net]", false},
		{"sshd: netop [priv]", "sshd: netop [net]", false},
		{"sshd: unknown [priv]", "sshd: unknown [net]", false},
		{"sshd: root@notty", "", true},
		{"sshd: netop [priv]", "sshd: netop@notty", true},
		{"sshd: netop [priv]", "sshd: netop", true},
		{"sshd-session: netop [priv]", "sshd-session: netop@notty", true},
		{"sshd-session: netop [priv]", "sshd-auth: netop [net]", false},
		// A user's name may hold what follows another's.
		{"sshd: netop@example.net [priv]", "sshd: netop@example.net [net]", false},
		{"sshd: other@notty", "", false},
		{"sh: netop@notty", "", false},
	} {
		user := "netop"
		if strings.Contains(tt.sshd, "root") {
			user = "root"
		}
		id := titled(t, tt.sshd, tt.child)
		// The child has its title when it has executed.
		got := proven(id, user)
		for end := time.Now().Add(5 * time.Second); got != tt.want && time.Now().Before(end); time.Sleep(time.Millisecond) {
			got = proven(id, user)
		}
		if got != tt.want {
			t.Errorf("%q with the child %q: %v", tt.sshd, tt.child, got)
		}
	}
}

// A client can write any line into sshd's log. What nothing proves is told as
// what it is, and changes nothing.
func TestALoginInTheLogAloneIsNotBelieved(t *testing.T) {
	env, all := newEnv(t)
	env.proven = func(Identity, string) bool { return false }
	s := New(env, 1, proto.CallParams{Host: "nms", Port: 1}, "manager", Owner{})
	conn, station := connection(t)
	gate := t.TempDir() + "/gate"
	if err := s.Start(stub(t, `printf '`+lineConnected+`\r\nInvalid user x\r\n`+lineAccepted+`\r\n`+lineSubsystem+`\r\n`+lineGaveUp+`\r\n' >&2
while ! [ -e `+gate+` ]; do sleep 0.01; done
exit 255`), conn); err != nil {
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
		t.Errorf("it was believed: %+v", info)
	}
	for _, name := range all.names() {
		if name == proto.EventAuthenticated || name == proto.EventSubsystem {
			t.Errorf("the events are %v", all.names())
		}
	}
	if !strings.Contains(strings.Join(all.names(), " "), proto.EventTrouble) {
		t.Errorf("nobody was told: %v", all.names())
	}
}

// A session that logged in and ended before anybody looked.
func TestAShortLoginIsBelieved(t *testing.T) {
	for _, tt := range []struct {
		exit int
		last string
		want bool
	}{
		{0, lineGone, true}, {255, lineDisconnect, true}, {-1, lineDisconnect, true},
		{255, lineGaveUp, false}, {1, lineGone, false}, {3, lineGone, false},
	} {
		after := []logLine{{Line: sshdlog.Parse(lineSubsystem)}, {Line: sshdlog.Parse(tt.last)}}
		if got := endedLikeALogin(after, tt.exit); got != tt.want {
			t.Errorf("status %d after %q: %v", tt.exit, tt.last, got)
		}
	}
}

func TestChatterIsBounded(t *testing.T) {
	var c chatter
	now := time.Now()
	told := 0
	for range 10 * maxChatter {
		if ok, _ := c.tell(now); ok {
			told++
		}
	}
	if told != maxChatter {
		t.Errorf("%d lines were told, expected %d", told, maxChatter)
	}
	if ok, left := c.tell(now.Add(time.Minute)); !ok || left != 9*maxChatter {
		t.Errorf("a minute later: %v, %d left out", ok, left)
	}
}
