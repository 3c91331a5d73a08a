package preflight

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"callhome/internal/device/settings"
	"callhome/internal/sshdexec"
)

// The measured output of -V of each version; 8.4 has no such option.
func TestParseVersion(t *testing.T) {
	for _, tt := range []struct {
		output       string
		version      string
		major, minor int
	}{
		{"OpenSSH_9.2p1 Debian-2+deb12u10, OpenSSL 3.0.22 25 Aug 2026\n", "OpenSSH_9.2p1 Debian-2+deb12u10", 9, 2},
		{"OpenSSH_9.2, OpenSSL 3.0.22 25 Aug 2026\n", "OpenSSH_9.2", 9, 2},
		{"OpenSSH_10.5p1, OpenSSL 3.0.22\n", "OpenSSH_10.5p1", 10, 5},
		{"unknown option -- V\nOpenSSH_8.4p1, OpenSSL 1.1.1\nusage: sshd [-46DdeiqTt]\n", "OpenSSH_8.4p1", 8, 4},
		{"OpenSSH_10\n", "OpenSSH_10", 10, 0},
		{"OpenSSH_for_Windows_9.5p1, LibreSSL\n", "OpenSSH_for_Windows_9.5p1", 0, 0},
		{"Dropbear v2022.83\n", "", 0, 0},
		{"", "", 0, 0},
	} {
		t.Run(tt.output, func(t *testing.T) {
			version, major, minor := parseVersion(tt.output)
			if version != tt.version || major != tt.major || minor != tt.minor {
				t.Errorf("%q %d.%d, want %q %d.%d", version, major, minor, tt.version, tt.major, tt.minor)
			}
		})
	}
}

func TestParseDump(t *testing.T) {
	want := map[string][]string{
		"port":      {"22"},
		"hostkey":   {"/a", "/b"},
		"subsystem": {"netconf /usr/bin/x  -a"},
		"banner":    {"none"},
	}
	for name, dump := range map[string]string{
		"up to 9.9": "port 22\nhostkey /a\nhostkey /b\nsubsystem netconf /usr/bin/x  -a\nbanner none\n",
		"10.x":      "Port 22\nHostKey /a\nHostKey /b\nSubsystem netconf /usr/bin/x  -a\nBanner none\n",
		"from -e, with CRLF and a line of its own": "port 22\r\nhostkey /a\r\nhostkey /b\r\nsubsystem netconf /usr/bin/x  -a\r\nbanner none\r\noneword\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			if got := parseDump(dump); !reflect.DeepEqual(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

func FuzzParseDump(f *testing.F) {
	f.Add("port 22\nHostKey /a\nhostkey /b\r\n")
	f.Add(" \n\n x\r\n")
	f.Fuzz(func(t *testing.T, dump string) {
		config := parseDump(dump)
		values := 0
		for key, vs := range config {
			values += len(vs)
			if key != strings.ToLower(key) || strings.ContainsAny(key, " \n") || len(vs) == 0 {
				t.Errorf("%q: keyword %q has %q", dump, key, vs)
			}
			for _, v := range vs {
				if strings.Contains(v, "\n") || strings.HasSuffix(v, "\r") {
					t.Errorf("%q: %s has the value %q", dump, key, v)
				}
			}
		}
		lines := 0
		for line := range strings.SplitSeq(dump, "\n") {
			if strings.Contains(line, " ") {
				lines++
			}
		}
		if values != lines {
			t.Errorf("%q: %d values of %d lines", dump, values, lines)
		}
		// Both spellings of the keywords mean the same.
		if lower := parseDump(strings.ToLower(dump)); len(lower) != len(config) {
			t.Errorf("%q has %d keywords, in lower case %d", dump, len(config), len(lower))
		}
	})
}

func TestTestLinesFindsLinesByText(t *testing.T) {
	m := &machine{testOutput: "Unable to load host key: /a\r\nother\r\nUnable to load host key \"/b\x1b\": bad permissions\r\n"}
	want := []string{"Unable to load host key: /a", "Unable to load host key \"/b\x1b\": bad permissions"}
	if got := m.testLines("bad permissions", "Unable to load"); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := m.testLines("nothing of this"); got != nil {
		t.Errorf("got %q, want nothing", got)
	}
}

// fakeSshd makes a program that prints version for -V and runs script, a shell
// script, for -t and -T.
func fakeSshd(t *testing.T, version, script string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sshd")
	text := "#!/bin/sh\nif [ \"$1\" = -V ]; then echo '" + version + "' >&2; exit; fi\n" + script + "\n"
	if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestInspectRunsSshd(t *testing.T) {
	t.Setenv("LD_LIBRARY_PATH", "/nonexistent") // must not reach it
	s := &settings.Settings{Call: settings.Call{Sshd: sshdexec.Command{Config: "/c", HostKeys: []string{"/k"}}}}

	t.Run("about a configuration that it takes", func(t *testing.T) {
		s.Sshd.Sshd = fakeSshd(t, "OpenSSH_9.2p1, x", `echo "argument $*"; echo "library ${LD_LIBRARY_PATH-none}" >&2`)
		m := inspect(s)
		if m.version != "OpenSSH_9.2p1" || m.major != 9 || m.minor != 2 || !m.testOK {
			t.Errorf("got %+v", m)
		}
		if want := "argument -t -f /c -h /k -o LogLevel=VERBOSE\nlibrary none\n"; m.testOutput != want {
			t.Errorf("sshd -t printed %q, want %q", m.testOutput, want)
		}
		want := map[string][]string{"argument": {"-T -f /c -h /k -o LogLevel=VERBOSE"}, "library": {"none"}}
		if !reflect.DeepEqual(m.config, want) {
			t.Errorf("sshd -T printed %q, want %q", m.config, want)
		}
	})
	t.Run("about one that it refuses", func(t *testing.T) {
		s.Sshd.Sshd = fakeSshd(t, "OpenSSH_9.2p1, x", `echo "/c line 1: no" >&2; exit 255`)
		if m := inspect(s); m.testOK || m.config != nil || m.testOutput != "/c line 1: no\n" {
			t.Errorf("got %+v", m)
		}
	})
	t.Run("nothing more where the program is no sshd", func(t *testing.T) {
		s.Sshd.Sshd = fakeSshd(t, "telnetd", `echo asked`)
		if m := inspect(s); m.version != "" || m.testOutput != "" || m.config != nil {
			t.Errorf("got %+v", m)
		}
	})
	t.Run("nothing where the program does not exist", func(t *testing.T) {
		s.Sshd.Sshd = "/nonexistent/sshd"
		if m := inspect(s); m.version != "" || m.testOutput != "" || m.config != nil {
			t.Errorf("got %+v", m)
		}
	})
}
