package settings

import (
	"fmt"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
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

// programDirs are searched for the subsystem program of each preset; tests have
// directories of their own.
var programDirs = []string{"/usr/local/bin", "/usr/local/sbin", "/usr/bin", "/usr/sbin"}

// foundAt returns where the subsystem program of a NETCONF server is on this
// machine, "" where it is in none of the usual places.
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

// SubsystemHint says how to set the netconf subsystem: for each NETCONF server
// that is found on this machine its option.
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
		found = []string{"no NETCONF server was found here (" + presetNames() + "): set --subsystem to the command that joins its standard input and output to the server"}
	}
	return strings.Join(found, ", ") + "; for every call set it in " + DefaultsFile
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
