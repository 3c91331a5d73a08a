//go:build integration

package integration

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// With the package's PAM service a login runs none of the scripts of motd, as root and
// while the client waits; with sshd's own service it does.
func TestALoginRunsNoMotdScript(t *testing.T) {
	t.Parallel()
	onOpenSSHs(t, trees, func(t *testing.T, _, root string) {
		dir, err := os.MkdirTemp(runDir, "motd-")
		if err != nil {
			t.Fatal(err)
		}
		ran := dir + "/ran"
		if err := os.MkdirAll(root+"/etc/update-motd.d", 0o755); err != nil {
			t.Fatal(err)
		}
		// Each line is a process that the script descends from.
		writeFile(t, root+"/etc/update-motd.d/00-callhome-test", "#!/bin/sh\np=$$\nwhile [ \"$p\" -gt 1 ]; do echo \"$p\"; read -r _ _ _ p _ < /proc/$p/stat; done >> "+ran+"\n", 0o755)
		for _, tt := range []struct {
			name string
			bare bool
		}{{"callhome's service", false}, {"sshd's own", true}} {
			t.Run(tt.name, func(t *testing.T) {
				probe := newProbe(t)
				device, nms := newSite(t, probe.Command)
				device.root, device.bare = root, tt.bare
				addr := freeAddr("127.0.0.1")
				ssh := nms.Netconf(addr)
				call := device.Call(addr)
				probe.Environ() // the session is there
				text, err := os.ReadFile(ran)
				if err != nil && !os.IsNotExist(err) {
					t.Fatal(err)
				}
				if got := slices.Contains(strings.Fields(string(text)), strconv.Itoa(call.pid)); got != tt.bare {
					t.Errorf("the script ran: %v, expected %v", got, tt.bare)
				}
				ssh.in.Close()
				ssh.MustExit(0)
			})
		}
	})
}
