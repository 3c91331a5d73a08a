package settings

import (
	"fmt"
	"strings"
)

// preset is what a known NETCONF server needs of SSH: the program that joins
// a session to it, and the server port that it expects in SSH_CONNECTION (0:
// it does not look).
type preset struct {
	name, subsystem string
	port            uint16
}

// Only yuma looks at the port: netconfd drops a session whose server port is
// none of its own (measured with Debian's netconfd 2.13). The paths are those
// that each server installs itself to; --subsystem overrides them.
var presets = []preset{
	{"yuma", "/usr/sbin/netconf-subsystem", 830},
	{"confd", "/usr/local/bin/netconf-subsys", 0},
	{"clixon", "/usr/local/bin/clixon_netconf", 0},
}

func presetNames() string {
	names := make([]string, len(presets))
	for i, p := range presets {
		names[i] = p.name
	}
	return strings.Join(names, ", ")
}

func findPreset(name string) *preset {
	for i := range presets {
		if presets[i].name == name {
			return &presets[i]
		}
	}
	return nil
}

// noPreset undoes the preset of a lower source.
const noPreset = "none"

func checkPreset(s *Settings, v string) error {
	if v == noPreset {
		return nil
	}
	p := findPreset(v)
	if p == nil {
		return fmt.Errorf("expected one of %s, %s; for another server set --subsystem", presetNames(), noPreset)
	}
	s.Sshd.Subsystem, s.Sshd.SSHConnectionPort = p.subsystem, p.port
	return nil
}

// applyPreset names the preset as the source of what it decided. The table
// has netconf-server before the two options it presets, so that whatever sets
// those comes later and wins.
func applyPreset(s *Settings, effective []Effective) {
	var from string
	for i := range effective {
		e := &effective[i]
		switch {
		case e.Name == "netconf-server" && e.Value != noPreset:
			from = e.Value
		case from == "" || e.Value != "":
		case e.Name == "subsystem":
			e.Value, e.Source = s.Sshd.Subsystem, "netconf-server "+from
		case e.Name == "ssh-connection-port" && s.Sshd.SSHConnectionPort != 0:
			e.Value, e.Source = decimal(s.Sshd.SSHConnectionPort), "netconf-server "+from
		}
	}
}
