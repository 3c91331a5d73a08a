//go:build integration

package packages

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"callhome/test/skips"
)

// The same with systemd as process 1, which restarts the daemon with what is in
// the unit, and gives the station its user and its walls. systemd/story runs
// it; this knows what has to come of each step.
func TestSystemd(t *testing.T) {
	d := openTree(t, "trixie")
	d.bare(t)
	if _, err := os.Stat(d.root + "/usr/lib/systemd/systemd"); err != nil {
		skips.Story(t, "the trixie tree has no systemd")
	}
	dir := t.TempDir()
	say(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", dir+"/key")
	for name, from := range map[string]string{
		"formerly.deb": theOne(t, workshop(dirFormerly, "callhome_*.deb")), "now.deb": theOne(t, workshop(dirNow, "callhome_*.deb")),
		"nms-formerly.deb": theOne(t, workshop(dirFormerly, "callhome-nms_*.deb")), "nms-now.deb": theOne(t, workshop(dirNow, "callhome-nms_*.deb")),
		"key": dir + "/key", "key.pub": dir + "/key.pub", "story": "systemd/story", "fdpass-listen": workshop("fdpass-listen"),
	} {
		d.file(t, "/story/"+name, from)
	}
	if err := os.Chmod(d.root+"/story/fdpass-listen", 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "unshare", "--mount", "--pid", "--ipc", "--uts", "--cgroup", "--fork", "--kill-child", "--mount-proc", "systemd/boot", d.root, "/story/story")
	// That it ends by a signal is how a machine in a namespace is switched off.
	var ended *exec.ExitError
	if out, err := cmd.CombinedOutput(); err != nil && !errors.As(err, &ended) {
		t.Fatalf("booting: %v\n%s", err, out)
	}
	out, err := os.ReadFile(d.root + "/story/out")
	if err != nil {
		console, _ := os.ReadFile(d.root + "/story/console")
		t.Fatalf("the machine ran no story: %v\n%s", err, console)
	}
	steps := make(map[string]string)
	for _, step := range strings.Split("\n"+string(out), "\n== ")[1:] {
		name, said, _ := strings.Cut(step, "\n")
		steps[name] = said
	}
	if _, whole := steps["end"]; !whole {
		t.Errorf("the story broke off:\n%s", out)
	}
	for step, parts := range map[string][]string{
		"installed":        {"there is no /etc/callhome/callhome.json", "active\nactive\nenabled\nenabled\n", "has started the netconf subsystem"},
		"before":           {"before"},
		"upgraded":         {"callhome-mgr " + now, "another daemon", "the same session", "upgraded"},
		"removed":          {"These sessions still run", "inactive\ninactive\n", "removed"},
		"again":            {"active\nactive\n", "the same session"},
		"purged":           {"purged"},
		"station":          {"the daemon is not started", "inactive\n", "callhome-nms " + formerly, "listening on [::]:4334", "no devices"},
		"station upgraded": {"callhome-nms " + now},
	} {
		expect(t, "the step "+step, steps[step], parts...)
	}
	for _, step := range []string{"purged", "station purged"} {
		for line := range strings.Lines(steps[step]) {
			if strings.HasPrefix(line, "/") {
				t.Errorf("%s, and left: %s", step, line)
			}
		}
	}
}
