package hostsaccess

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDenying(t *testing.T) {
	for _, tt := range []struct {
		name, allow, deny string
		want              string // file and line of the rule; "": none
		all               bool
	}{
		{"no files", "", "", "", false},
		{"comments alone", "# sshd: ALL: DENY\n", "# ALL: ALL\n\n", "", false},
		{"every client", "", "# x\nsshd: ALL\n", "hosts.deny line 2: sshd: ALL", true},
		{"every daemon", "", "ALL : ALL", "hosts.deny line 1: ALL : ALL", true},
		{"several daemons", "", "in.ftpd, sshd : ALL", "hosts.deny line 1: in.ftpd, sshd : ALL", true},
		{"some clients", "", "sshd: 192.0.2. [2001:db8::]/32\n", "hosts.deny line 1: sshd: 192.0.2. [2001:db8::]/32", false},
		{"another daemon", "", "in.ftpd: ALL", "", false},
		{"every daemon but sshd", "", "ALL EXCEPT sshd: ALL", "", false},
		{"every daemon but another", "", "ALL EXCEPT in.ftpd: ALL", "hosts.deny line 1: ALL EXCEPT in.ftpd: ALL", true},
		{"every client but some", "", "sshd: ALL EXCEPT 192.0.2.1", "hosts.deny line 1: sshd: ALL EXCEPT 192.0.2.1", false},
		{"some are admitted before", "sshd: 192.0.2.1\n", "ALL: ALL\n", "hosts.deny line 1: ALL: ALL", false},
		{"all are admitted before", "sshd: ALL\n", "ALL: ALL\n", "", false},
		{"an option of hosts.allow", "sshd: ALL: DENY\n", "", "hosts.allow line 1: sshd: ALL: DENY", true},
		{"an option of hosts.deny", "", "sshd: ALL: allow\nALL: ALL", "", false},
		{"a line over two", "", "# x\nsshd: \\\n ALL\n", "hosts.deny line 2: sshd:  ALL", true},
		{"an address of the device", "", "sshd@192.0.2.7: ALL", "hosts.deny line 1: sshd@192.0.2.7: ALL", true},
		{"no clients", "", "sshd\n:\n", "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, text := range map[string]string{"hosts.allow": tt.allow, "hosts.deny": tt.deny} {
				if text == "" {
					continue
				}
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			r, found := Denying(dir)
			got := ""
			if found {
				got = strings.TrimPrefix(r.String(), dir+"/")
			}
			if got != tt.want || r.All != tt.all {
				t.Errorf("got %q, %v, want %q, %v", got, r.All, tt.want, tt.all)
			}
		})
	}
}
