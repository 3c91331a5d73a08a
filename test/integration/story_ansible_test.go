//go:build integration

package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"callhome/internal/nms/nmsproto"
	"callhome/test/sandbox"
)

// playbook has a task of each module of ansible.netcommon that speaks NETCONF. The
// candidate is locked, changed, committed and unlocked by netconf_config.
const playbook = `
- hosts: routers
  gather_facts: false
  tasks:
    - name: get
      ansible.netcommon.netconf_get: {source: running}
    - name: config
      ansible.netcommon.netconf_config:
        target: candidate
        lock: always
        content: '<config xmlns="urn:ietf:params:xml:ns:netconf:base:1.0">LOCATION</config>'
    - name: rpc
      ansible.netcommon.netconf_rpc:
        rpc: get-config
        content: '<source><running/></source>'
      register: answer
    - name: changed
      ansible.builtin.assert: {that: "'ansible was here' in answer.stdout"}
`

// Ansible with the documented inventory: a device that the station holds, and one that
// is absent, which fails alone and with a reason.
func TestAnsibleReachesADeviceThroughTheStation(t *testing.T) {
	t.Parallel()
	sandbox.Need(t, "/usr/bin/ansible-playbook")
	server := startNetconfdOn(t, "candidate")
	d, n := newSite(t, server.Subsystem())
	d.options = append(d.options, "--ssh-connection-port", yumaPort)
	s := startStation(n)
	s.Know("edge7", d.hostKey, "")
	s.Know("edge8", newKey(t, tempDir(t), "other"), "")
	d.Call(s.addr)
	s.AwaitState("edge7", nmsproto.Connected)
	server830 := s.StartSSH()

	home := tempDir(t)
	host, port := splitAddr(t, server830.addr)
	inventory := between(readFile(t, "../../docs/nms-serve.md"), "```ini\n", "```")
	for from, to := range map[string]string{"ansible_host=nms": "ansible_host=" + host, "ansible_port=830": "ansible_port=" + port, "~/.ssh/id_ed25519": n.key} {
		if !strings.Contains(inventory, from) {
			t.Fatalf("the documented inventory has no %s:\n%s", from, inventory)
		}
		inventory = strings.ReplaceAll(inventory, from, to)
	}
	if err := os.Mkdir(filepath.Join(home, ".ssh"), 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(home, ".ssh", "known_hosts"), "["+host+"]:"+port+" "+publicKey(t, server830.hostKey)+"\n", 0o600)
	writeFile(t, filepath.Join(home, "inventory"), inventory, 0o600)
	writeFile(t, filepath.Join(home, "play.yml"), strings.Replace(playbook, "LOCATION", editLocation("ansible was here"), 1), 0o600)

	play := func() []byte {
		cmd := exec.Command("/usr/bin/ansible-playbook", "-i", "inventory", "play.yml")
		cmd.Dir = home
		cmd.Env = []string{"HOME=" + home, "PATH=/usr/bin:/bin:/usr/sbin", "LC_ALL=C.UTF-8"}
		out, err := cmd.CombinedOutput()
		const failed = 2 // ansible-playbook's status where tasks failed
		if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != failed {
			t.Fatalf("%v\n%s", err, out)
		}
		return out
	}
	begun := time.Now()
	out := play()
	// Ansible waits 30 s for an answer to a request that netconfd forgot (docs/yuma.md).
	if time.Since(begun) > 30*time.Second && strings.Contains(string(out), "fatal: [edge7]") {
		out = play()
	}
	contains(t, "ansible-playbook", string(out), `fatal: [edge8]: FAILED! => {"changed": false, "module_stderr": "Unexpected session close"`)
	for _, line := range []string{`edge7 +: ok=4 +changed=1 +unreachable=0 +failed=0 `, `edge8 +: ok=0 +changed=0 +unreachable=0 +failed=1 `} {
		if !regexp.MustCompile(line).Match(out) {
			t.Errorf("ansible-playbook does not say %q:\n%s", line, out)
		}
	}
	s.AwaitStderr("device edge8 is not connected: it has not called home since the station started")
}
