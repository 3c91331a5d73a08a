//go:build integration

package integration

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"callhome/internal/proto"
)

// An sshd with libwrap refuses clients by hosts.deny and logs nothing: --check finds the
// line, and the trigger and the manager name it as the cause. Not parallel: the stories
// share /etc.
func TestHostsDenyIsNamed(t *testing.T) {
	if out, err := exec.Command("ldd", "/usr/sbin/sshd").Output(); err != nil || !strings.Contains(string(out), "libwrap") {
		t.Skip("this sshd has no libwrap")
	}
	const file = "/etc/hosts.deny"
	before, err := os.ReadFile(file)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	t.Cleanup(func() { writeFile(t, file, string(before), 0o644) })
	s := newStandingSite(t, "/bin/cat")
	nms := s.nms.Station(freeAddr("127.0.0.1"))
	check := func(status int, says string) {
		t.Helper()
		p := start(t, "callhome-trigger", s.Command(nil, "--check"))
		p.MustExit(status)
		contains(t, "--check", p.Stdout(), says)
	}
	check(0, "no line of hosts.deny is for sshd")
	writeFile(t, file, "# a test\nsshd: 192.0.2.0/24\n", 0o644)
	check(0, "libwrap refuses clients of sshd, "+file+" line 2: sshd: 192.0.2.0/24")
	writeFile(t, file, "sshd: ALL\n", 0o644)
	check(77, "libwrap refuses every client of sshd, "+file+" line 1: sshd: ALL")

	const cause = "libwrap refuses clients of sshd, " + file + " line 1: sshd: ALL"
	call := s.Call(nms.Addr, "--handover", "detach")
	call.MustExit(77)
	contains(t, "the trigger", call.Stderr(), "sshd took the connection to "+nms.Addr+" and ended it: "+cause)
	k := s.Keep(document(persistent("nms", s.At(nms.Addr))))
	failed := k.AwaitPublished(patience, "nms", proto.EventAttemptFailed, 1)
	if e := failed.Session; e.Cause != "administratively prohibited: "+cause || e.End != proto.EndRefused {
		t.Errorf("the session ended as %+v", e)
	}
}
