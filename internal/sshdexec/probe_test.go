package sshdexec

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// installation makes PREFIX/sbin/sshd and PREFIX/bin/ssh of shell scripts and
// returns the former's path. An empty script is a missing program.
func installation(t *testing.T, sshd, ssh string) string {
	t.Helper()
	prefix := t.TempDir()
	for name, script := range map[string]string{"sbin/sshd": sshd, "bin/ssh": ssh} {
		path := filepath.Join(prefix, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if script == "" {
			continue
		}
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(prefix, "sbin/sshd")
}

// sshOf is an ssh of that version that lists its question as its only
// algorithm, in two lines.
func sshOf(version string) string {
	return fmt.Sprintf(`case "$1" in -V) echo "%s, OpenSSL 3" >&2 ;; -Q) printf '%%s\n%%s@x\n' "$2" "$2" ;; esac`, version)
}

func TestProbe(t *testing.T) {
	lists := func(f Features) Features {
		for word, list := range map[string]*[]string{"HostKeyAlgorithms": &f.HostKeyAlgorithms, "KexAlgorithms": &f.KexAlgorithms, "Ciphers": &f.Ciphers, "MACs": &f.MACs} {
			*list = []string{word, word + "@x"}
		}
		return f
	}
	says := func(version string) string { return `echo "` + version + `, OpenSSL 3.0.22" >&2` }
	for _, tt := range []struct {
		name, sshd, ssh string
		want            Features
	}{
		// What 8.4 does with an option that it does not know, as measured.
		{"8.4", `printf 'unknown option -- V\nOpenSSH_8.4p1 Debian-5, OpenSSL 1.1.1n\nusage: sshd ...\n' >&2; exit 1`, sshOf("OpenSSH_8.4p1"), lists(Features{Version: "OpenSSH_8.4p1"})},
		{"9.1", says("OpenSSH_9.1p1"), sshOf("OpenSSH_9.1p1"), lists(Features{Version: "OpenSSH_9.1p1"})},
		{"9.2", says("OpenSSH_9.2p1 Debian-2"), sshOf("OpenSSH_9.2p1 Debian-2"), lists(Features{Version: "OpenSSH_9.2p1", ChannelTimeout: true, SlowClientAlive: true})},
		{"9.4", says("OpenSSH_9.4p1"), sshOf("OpenSSH_9.4p1"), lists(Features{Version: "OpenSSH_9.4p1", ChannelTimeout: true, SlowClientAlive: true})},
		{"9.5", says("OpenSSH_9.5p1"), sshOf("OpenSSH_9.5p1"), lists(Features{Version: "OpenSSH_9.5p1", ChannelTimeout: true})},
		{"10.5", says("OpenSSH_10.5p1"), sshOf("OpenSSH_10.5p1"), lists(Features{Version: "OpenSSH_10.5p1", ChannelTimeout: true})},
		{"no ssh", says("OpenSSH_9.5p1"), "", Features{Version: "OpenSSH_9.5p1", ChannelTimeout: true}},
		{"another release's ssh", says("OpenSSH_9.5p1"), sshOf("OpenSSH_9.6p1"), Features{Version: "OpenSSH_9.5p1", ChannelTimeout: true}},
		{"a broken ssh", says("OpenSSH_9.5p1"), `echo OpenSSH_9.5p1; [ "$1" = -V ]`, Features{Version: "OpenSSH_9.5p1", ChannelTimeout: true}},
		{"much to say", says("OpenSSH_9.5p1") + "; yes | head -c 1000000", "", Features{Version: "OpenSSH_9.5p1", ChannelTimeout: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Probe(installation(t, tt.sshd, tt.ssh))
			if err != nil || !reflect.DeepEqual(got, tt.want) {
				t.Errorf("%+v, %v, want\n%+v", got, err, tt.want)
			}
		})
	}
	for name, tt := range map[string]struct{ sshd, says string }{
		"none":          {"", "no such file"},
		"another sshd":  {"echo Dropbear v2022.83", "its output has no OpenSSH version"},
		"nothing to it": {"exit 3", "exit status 3"},
	} {
		path := installation(t, tt.sshd, "")
		if _, err := Probe(path); err == nil || !strings.Contains(err.Error(), "asking "+path+" for its version: ") || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, want %s", name, err, tt.says)
		}
	}
}
