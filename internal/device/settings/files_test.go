package settings

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"callhome/internal/sshdexec"
	"callhome/internal/sysexits"
)

func write(t *testing.T, name, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestCheckFilesAcceptsTheConfigurationsSubsystem(t *testing.T) {
	c := &Call{Sshd: sshdexec.Command{Sshd: "/bin/sh", Config: write(t, "sshd_config", "Subsystem netconf /s\n", 0o600)}}
	if err := c.CheckFiles(); err != nil {
		t.Error(err)
	}
}

// The built-in configuration has no subsystem: the error names the installed NETCONF
// servers.
func TestWithoutASubsystemTheErrorNamesTheInstalledServers(t *testing.T) {
	server := write(t, "netconf-subsystem", "#!/bin/sh\n", 0o755)
	was := presets
	defer func() { presets = was }()
	c := &Call{Sshd: sshdexec.Command{Sshd: "/bin/sh"}}

	presets = []preset{{"yuma", server, 830}, {"confd", "/nonexistent/netconf-subsys-that-is-nowhere", 0}}
	err := c.CheckFiles()
	if sysexits.Code(err) != sysexits.Config || !strings.Contains(err.Error(), "no command for the netconf subsystem is set, and the built-in sshd configuration has none") {
		t.Errorf("got %v", err)
	}
	if hint := sysexits.Hint(err); !strings.HasPrefix(hint, "found "+server+": --netconf-server yuma") || strings.Contains(hint, "confd") {
		t.Errorf("advises %q", hint)
	}
	presets = presets[1:]
	if hint := sysexits.Hint(c.CheckFiles()); !strings.HasPrefix(hint, "no NETCONF server was found here (confd): set --subsystem") {
		t.Errorf("advises %q", hint)
	}
}

// The preset has the default path only, so for another one the hint names all options
// that the server needs: netconfd drops a session with another server port.
func TestTheHintForAnotherPathHasTheServersPort(t *testing.T) {
	server := write(t, "netconf-subsystem", "#!/bin/sh\n", 0o755)
	wasPresets, wasDirs := presets, programDirs
	defer func() { presets, programDirs = wasPresets, wasDirs }()
	presets, programDirs = []preset{{"yuma", "/nonexistent/netconf-subsystem", 830}}, []string{filepath.Dir(server)}
	if hint := SubsystemHint(); !strings.HasPrefix(hint, "found "+server+": --subsystem "+server+" --ssh-connection-port 830; ") {
		t.Errorf("advises %q", hint)
	}
}

func TestTheBuiltInConfigurationIsUsedWhereNoneIsInstalled(t *testing.T) {
	was := installed
	defer func() { installed = was }()
	installed = func(string) bool { return false }
	s, effective := given{args: []string{"nms"}}.mustLoad(t)
	if s.Sshd.Config != "" || effective["sshd-config"].Value != "" || !strings.HasPrefix(effective["sshd-config"].Source, "built-in configuration, ") {
		t.Errorf("sshd's configuration is %q, shown as %+v", s.Sshd.Config, effective["sshd-config"])
	}
	s, effective = given{args: []string{"nms"}, env: map[string]string{"sshd-config": "/etc/callhome/sshd_config"}}.mustLoad(t)
	if s.Sshd.Config != "/etc/callhome/sshd_config" || effective["sshd-config"].Source != "environment" {
		t.Errorf("named explicitly it is %q, shown as %+v", s.Sshd.Config, effective["sshd-config"])
	}
	s.Sshd.Sshd = "/bin/sh"
	if code := sysexits.Code(s.CheckFiles()); code != sysexits.NoInput {
		t.Errorf("a file that is named and missing: exit status %d", code)
	}
}

func TestServesNetconf(t *testing.T) {
	for _, tt := range []struct {
		name, config string
		want         bool
	}{
		{"nothing", "", false},
		{"the subsystem", "Port 22\nSubsystem netconf /s\n", true},
		{"behind empty lines", "\n \t\r\n\nSubsystem netconf /s", true},
		{"keywords in another case", "\t subsystem\tnetconf /s", true},
		{"with an equals sign", "Subsystem=netconf /s\n", true},
		{"with an equals sign and spaces", "Subsystem = netconf /s\n", true},
		{"with quotes", "Subsystem \"netconf\" /s\n", true},
		{"with CRLF", "Port 22\r\nSubsystem netconf /s\r\n", true},
		{"another file may have it", "Include /etc/ssh/sshd_config.d/*.conf\n", true},
		{"a comment", "#Subsystem netconf /s\n# Include x\n", false},
		{"another subsystem", "Subsystem sftp netconf\nSubsystem netconf2 /s\n", false},
		{"names have case", "Subsystem NETCONF /s\n", false},
		{"no name", "Subsystem\n", false},
		{"as another's value", "Banner Subsystem netconf\n", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := servesNetconf(tt.config); got != tt.want {
				t.Errorf("%v, want %v", got, tt.want)
			}
		})
	}
}
