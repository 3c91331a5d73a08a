package packaging

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The init scripts read mgr.conf as systemd does: each hands callhome-mgr the same
// options. The function is the script's own, with the file's path replaced.
func TestInitScriptsReadTheOptions(t *testing.T) {
	conf := filepath.Join(t.TempDir(), "mgr.conf")
	function := regexp.MustCompile(`(?s)\noptions\(\) \{.*?\n\}\n`)
	for _, script := range []string{"openrc/callhome-mgr", "procd/callhome-mgr", "buildroot/S95callhome-mgr"} {
		text, err := os.ReadFile(script)
		if err != nil {
			t.Fatal(err)
		}
		found := function.FindString(string(text))
		if strings.Count(string(text), "$(options)") != 1 || !strings.Contains(found, "/etc/callhome/mgr.conf") {
			t.Fatalf("%s does not use the options of mgr.conf", script)
		}
		code := strings.ReplaceAll(found, "/etc/callhome/mgr.conf", conf) + `for word in $(options); do echo "<$word>"; done`
		for _, tt := range []struct{ text, want string }{
			{"#CALLHOME_MGR_OPTIONS=--metrics x\n", ""},
			{"CALLHOME_MGR_OPTIONS=--metrics 127.0.0.1:9434 --follow-config\n", "<--metrics>\n<127.0.0.1:9434>\n<--follow-config>\n"},
			{"CALLHOME_MGR_OPTIONS=\"--read-group adm\"\n", "<--read-group>\n<adm>\n"},
			{"CALLHOME_MGR_OPTIONS='--hook /h'\n", "<--hook>\n</h>\n"},
			{"CALLHOME_MGR_OPTIONS=--hook /a\nCALLHOME_MGR_OPTIONS=--hook /b\n", "<--hook>\n</b>\n"},
			{"CALLHOME_MGR_OPTIONS=\n", ""},
			{"CALLHOME_MGR_OPTIONS=--hook /$(reboot)`reboot`\n", "<--hook>\n</$(reboot)`reboot`>\n"},
			{"", ""},
		} {
			if err := os.WriteFile(conf, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := exec.Command("sh", "-c", code).CombinedOutput()
			if err != nil || string(out) != tt.want {
				t.Errorf("%s with %q: %q, %v, want %q", script, tt.text, out, err, tt.want)
			}
		}
		if err := os.Remove(conf); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("sh", "-c", code).CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s without the file: %q, %v", script, out, err)
		}
	}
	unit, err := os.ReadFile("systemd/callhome-mgr.service")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"EnvironmentFile=-/etc/callhome/mgr.conf", "ExecStart=/usr/sbin/callhome-mgr run $CALLHOME_MGR_OPTIONS"} {
		if !strings.Contains(string(unit), "\n"+line+"\n") {
			t.Errorf("the unit lacks %s", line)
		}
	}
}

// The options that mgr.conf shows are options of callhome-mgr run.
func TestShownOptionsExist(t *testing.T) {
	conf, err := os.ReadFile("mgr.conf")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("../cmd/callhome-mgr/run.go")
	if err != nil {
		t.Fatal(err)
	}
	more, err := os.ReadFile("../internal/cmdline/daemon.go")
	if err != nil {
		t.Fatal(err)
	}
	metrics, err := os.ReadFile("../cmd/callhome-mgr/metrics.go")
	if err != nil {
		t.Fatal(err)
	}
	all := string(source) + string(more) + string(metrics)
	shown := regexp.MustCompile(`--([a-z-]+)`).FindAllStringSubmatch(string(conf[strings.Index(string(conf), "\n#CALLHOME_MGR_OPTIONS="):]), -1)
	if len(shown) < 4 {
		t.Fatalf("mgr.conf shows %q", shown)
	}
	for _, o := range shown {
		if !strings.Contains(all, `Name: "`+o[1]+`"`) {
			t.Errorf("mgr.conf shows --%s, which callhome-mgr run has not", o[1])
		}
	}
}
