package settings

import "testing"

func TestPresets(t *testing.T) {
	const yuma = "netconf-server yuma"
	for _, tt := range []struct {
		name            string
		given           given
		subsystem, from string // the command and where it came from
		port            uint16
		portFrom        string
	}{
		{"none", given{}, "", "built-in", 0, "built-in"},
		{"yuma looks at the port", given{flags: Given{"netconf-server": {"yuma"}}},
			"/usr/sbin/netconf-subsystem", yuma, 830, yuma},
		{"confd does not", given{flags: Given{"netconf-server": {"confd"}}},
			"/usr/local/bin/netconf-subsys", "netconf-server confd", 0, "built-in"},
		{"clixon does not", given{flags: Given{"netconf-server": {"clixon"}}},
			"/usr/local/bin/clixon_netconf", "netconf-server clixon", 0, "built-in"},
		{"a command of one's own wins, and the port stays", given{flags: Given{"netconf-server": {"yuma"}, "subsystem": {"/s"}}},
			"/s", "flag", 830, yuma},
		{"a port of one's own wins, and the command stays", given{flags: Given{"netconf-server": {"yuma"}, "ssh-connection-port": {"22"}}},
			"/usr/sbin/netconf-subsystem", yuma, 22, "flag"},
		{"also where the own values stand in a lower source", given{flags: Given{"netconf-server": {"yuma"}}, env: map[string]string{"subsystem": "/s"}, file: "CALLHOME_SSH_CONNECTION_PORT=22"},
			"/s", "environment", 22, "FILE:1"},
		{"none undoes the file's", given{flags: Given{"netconf-server": {"none"}}, file: "CALLHOME_NETCONF_SERVER=yuma"},
			"", "built-in", 0, "built-in"},
		{"a command instead of the file's preset", given{flags: Given{"netconf-server": {"none"}, "subsystem": {"/s"}}, file: "CALLHOME_NETCONF_SERVER=yuma"},
			"/s", "flag", 0, "built-in"},
		{"a preset from the file", given{file: "CALLHOME_NETCONF_SERVER=yuma"},
			"/usr/sbin/netconf-subsystem", yuma, 830, yuma},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, effective := tt.given.mustLoad(t)
			if s.Sshd.Subsystem != tt.subsystem || s.Sshd.SSHConnectionPort != tt.port {
				t.Errorf("command %q and port %d, want %q and %d", s.Sshd.Subsystem, s.Sshd.SSHConnectionPort, tt.subsystem, tt.port)
			}
			if want := (Effective{"subsystem", tt.subsystem, tt.from}); effective["subsystem"] != want {
				t.Errorf("shown as %+v, want %+v", effective["subsystem"], want)
			}
			port := ""
			if tt.port != 0 {
				port = decimal(tt.port)
			}
			if want := (Effective{"ssh-connection-port", port, tt.portFrom}); effective["ssh-connection-port"] != want {
				t.Errorf("shown as %+v, want %+v", effective["ssh-connection-port"], want)
			}
		})
	}
}
