//go:build integration

package packages

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// workshop is a path of what the first stage built.
func workshop(elem ...string) string {
	return filepath.Join(append([]string{os.Getenv(workshopEnv)}, elem...)...)
}

// theOne is the one file that matches.
func theOne(t *testing.T, pattern string) string {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) != 1 {
		t.Fatalf("%d files match %s (%v), expected one", len(files), pattern, err)
	}
	return files[0]
}

// say runs a command of this machine and returns what it printed.
func say(t *testing.T, name string, args ...string) string {
	t.Helper()
	var stderr bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out, stderr.Bytes())
	}
	return string(out)
}

func TestTwoBuildsAreTheSameBytes(t *testing.T) {
	files, err := filepath.Glob(workshop(dirNow, "*"))
	if err != nil || len(files) < 4 {
		t.Fatalf("%d packages were built (%v), expected callhome and callhome-small twice at least", len(files), err)
	}
	for _, file := range files {
		first, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		second, err := os.ReadFile(workshop(dirAgain, filepath.Base(file)))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(first, second) {
			t.Errorf("%s is another file when it is built elsewhere", filepath.Base(file))
		}
	}
}

// A program in C is compiled with what callhome-dev has, and one in Python imports it.
func TestTheClientsCanBeUsed(t *testing.T) {
	dir := t.TempDir()
	say(t, "dpkg-deb", "-x", theOne(t, workshop(dirNow, "callhome-dev_*_all.deb")), dir)
	say(t, "cc", "-I", dir+"/usr/include", "-o", dir+"/call", "../../examples/call.c", dir+"/usr/share/callhome-dev/callhome.c")
	out, err := exec.Command(dir+"/call", "nms.example.net").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "CALLHOME_ERR_NOMANAGER") {
		t.Errorf("the program in C says %q, %v", out, err)
	}
	cmd := exec.Command("/usr/bin/python3", "-c", "import callhome; print(callhome.__file__)")
	cmd.Env = []string{"PYTHONPATH=" + dir + "/usr/lib/python3/dist-packages", "PYTHONDONTWRITEBYTECODE=1"}
	if out, err := cmd.CombinedOutput(); err != nil || !strings.HasPrefix(string(out), dir) {
		t.Errorf("Python imports %q, %v", out, err)
	}
}

func TestTheProgramsAreStaticAndStripped(t *testing.T) {
	for _, name := range []string{"callhome", "callhome-small"} {
		dir := t.TempDir()
		say(t, "dpkg-deb", "-x", theOne(t, workshop(dirNow, name+"_*.deb")), dir)
		for _, program := range []string{"callhome-trigger", "callhome-mgr"} {
			file := filepath.Join(dir, "usr/sbin", program)
			if version := say(t, file, "--version"); !strings.HasPrefix(version, program+" ") || !strings.Contains(version, now) {
				t.Errorf("%s of %s says version %q, expected %s", program, name, version, now)
			}
			headers := say(t, "readelf", "-lSW", file)
			for _, unwanted := range []string{"INTERP", ".symtab", ".debug_info"} {
				if strings.Contains(headers, unwanted) {
					t.Errorf("%s of %s has %s", program, name, unwanted)
				}
			}
		}
	}
}

func TestSizes(t *testing.T) {
	// What an installed package may have, in KiB; it shall not grow unnoticed.
	for name, most := range map[string]int{"callhome": 9700, "callhome-small": 7250} {
		var size int
		if _, err := fmt.Sscan(say(t, "dpkg-deb", "-f", theOne(t, workshop(dirNow, name+"_*.deb")), "Installed-Size"), &size); err != nil {
			t.Fatal(err)
		}
		if size > most {
			t.Errorf("%s has %d KiB installed, at most %d are expected", name, size, most)
		}
		t.Logf("%s: %d KiB installed", name, size)
	}
}

// The rpms are asked by rpm; there is no tree to install them in.
func TestRPM(t *testing.T) {
	for _, name := range []string{"callhome", "callhome-small"} {
		file := theOne(t, workshop(dirNow, name+"-0*.rpm"))
		for query, want := range map[string][]string{
			"--list":        {"/usr/sbin/callhome-trigger", "/usr/sbin/callhome-mgr", "/etc/callhome/trigger.conf", "/usr/lib/systemd/system/callhome-mgr.service", "/usr/lib/callhome/callhome-dhcp", "/usr/share/man/man8/callhome-trigger.8.gz", "/usr/share/zsh/site-functions/_callhome-mgr", "/usr/share/doc/" + name + "/sbom.cdx.json"},
			"--configfiles": {"/etc/callhome/mgr.conf", "/etc/callhome/dhcp.conf", "/etc/callhome/trigger.conf", "/etc/callhome/sshd_config", "/etc/pam.d/callhome"},
			"--requires":    {"openssh-server"},
			"--scripts":     {"postinstall", "preuninstall", "postuninstall"},
		} {
			out := say(t, "rpm", "-qp", query, file)
			for _, w := range want {
				if !strings.Contains(out, w) {
					t.Errorf("rpm -qp %s of %s lacks %s", query, name, w)
				}
			}
			if obsoletes := say(t, "rpm", "-qp", "--obsoletes", file); obsoletes != "" {
				t.Errorf("an update would replace another package by %s, which obsoletes %s", name, obsoletes)
			}
			if strings.Contains(out, "apparmor") && query == "--list" {
				t.Errorf("%s has AppArmor profiles, which Red Hat systems have no use for", name)
			}
		}
	}
}
