package settings

import (
	"fmt"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// preset has a NETCONF server's subsystem command, and the server port that it
// requires in SSH_CONNECTION; 0: any.
type preset struct {
	name, subsystem string
	port            uint16
}

// Only yuma checks the port: netconfd drops a session with another server port than
// its own (measured with Debian's netconfd 2.13). The paths are the servers'
// defaults; --subsystem overrides them.
var presets = []preset{
	{"yuma", "/usr/sbin/netconf-subsystem", 830},
	{"confd", "/usr/local/bin/netconf-subsys", 0},
	{"clixon", "/usr/local/bin/clixon_netconf", 0},
}

// PresetNames returns the NETCONF servers that have a preset.
func PresetNames() []string {
	names := make([]string, len(presets))
	for i, p := range presets {
		names[i] = p.name
	}
	return names
}

func findPreset(name string) *preset {
	for i := range presets {
		if presets[i].name == name {
			return &presets[i]
		}
	}
	return nil
}

// programDirs are searched for the subsystem program of each preset; tests replace
// them.
var programDirs = []string{"/usr/local/bin", "/usr/local/sbin", "/usr/bin", "/usr/sbin"}

// foundAt returns the path of the preset's subsystem program on this machine, "" if
// it is not in programDirs.
func (p *preset) foundAt() string {
	name := filepath.Base(p.subsystem)
	if regular(p.subsystem, unix.X_OK) == nil {
		return p.subsystem
	}
	for _, dir := range programDirs {
		if path := filepath.Join(dir, name); regular(path, unix.X_OK) == nil {
			return path
		}
	}
	return ""
}

// SubsystemHint returns how to set the netconf subsystem, with the option of each
// NETCONF server that is found on this machine.
func SubsystemHint() string {
	var found []string
	for i := range presets {
		p := &presets[i]
		switch path := p.foundAt(); {
		case path == p.subsystem:
			found = append(found, fmt.Sprintf("found %s: --netconf-server %s", path, p.name))
		case path != "":
			option := "--subsystem " + path
			if p.port != 0 {
				option += " --ssh-connection-port " + decimal(p.port)
			}
			found = append(found, "found "+path+": "+option)
		}
	}
	if found == nil {
		found = []string{"no NETCONF server was found here (" + strings.Join(PresetNames(), ", ") + "): set --subsystem to the command that connects its standard input and output to the server"}
	}
	return strings.Join(found, ", ") + "; for every call set it in " + DefaultsFile
}

// noPreset cancels the preset of a lower source.
const noPreset = "none"

// setPreset sets what a preset has; v is one or noPreset.
func setPreset(s *Settings, v string) error {
	if p := findPreset(v); p != nil {
		s.Sshd.Subsystem, s.Sshd.SSHConnectionPort = p.subsystem, p.port
	}
	return nil
}

// applyPreset sets the source of the values that come from a preset. In the table
// netconf-server comes before the two options of a preset, so that an explicit value
// of those is set later and wins.
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
