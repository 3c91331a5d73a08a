package settings

import (
	"slices"
	"strings"
	"testing"
	"time"

	"callhome/internal/device/dial"
)

func option(t *testing.T, name string) *Option {
	t.Helper()
	for i := range options {
		if options[i].Name == name {
			return &options[i]
		}
	}
	t.Fatalf("no option %s", name)
	return nil
}

// Each row is one value of one option; says is the error, "" if the value is
// accepted.
func TestOptionValues(t *testing.T) {
	const (
		times   = "expected a time from 10ms to 1h0m0s, as 5s or 500ms"
		zone    = "not an interface name"
		file    = "not a usable file name"
		abs     = "expected an absolute path"
		proxy   = "expected socks5://HOST:PORT or http://HOST:PORT"
		probes  = "idle and interval are 1 to 32767 s, count 1 to 127 (tcp(7))"
		id      = "a device id has only letters, digits and -_.:/+=@,"
		idLen   = "a device id has 1 to 64 characters"
		logDest = "expected auto, syslog, stderr or the absolute path of a file"
	)
	for _, tt := range []struct{ option, value, says string }{
		{"handover", "exec", ""},
		{"handover", "detach", ""},
		{"handover", "manager", ""},
		{"handover", "auto", ""},
		{"handover", "", "expected exec, detach, manager or auto"},
		{"handover", "EXEC", "expected exec, detach, manager or auto"},
		{"connect-timeout", "10ms", ""},
		{"connect-timeout", "1h", ""},
		{"connect-timeout", "60", ""},
		{"connect-timeout", "9ms", times},
		{"connect-timeout", "1h1ns", times},
		{"connect-timeout", "3601", times},
		{"connect-timeout", "99999999999999999999", times},
		{"connect-timeout", "", times},
		{"connect-timeout", "-5s", times},
		{"connect-timeout", "5 s", times},
		{"retry-wait", "24h", ""},
		{"retry-wait", "24h1s", "expected a time from 0s to 24h0m0s, as 5s or 500ms"},
		{"tcp-user-timeout", "24h", ""},
		{"tcp-user-timeout", "24h1s", "expected a time from 0s to 24h0m0s, as 5s or 500ms"},
		{"attempts", "1", ""},
		{"attempts", "1000", ""},
		{"attempts", "1001", "expected a number from 1 to 1000"},
		{"attempts", "1.5", "expected a number from 1 to 1000"},
		{"local-address", "fe80::1%eth0", ""},
		{"local-address", "[::1]", "not an IP address"},
		{"interface", "eth0", ""},
		{"interface", "eth0.100", ""},
		{"interface", strings.Repeat("e", 15), ""},
		{"interface", strings.Repeat("e", 16), zone},
		{"interface", "", zone},
		{"interface", "a b", zone},
		{"interface", "a\tb", zone},
		{"netns", "mgmt", abs},
		{"netns", "/a\nb", file},
		{"tcp-keepalive", "off", ""},
		{"tcp-keepalive", "32767,32767,127", ""},
		{"tcp-keepalive", "0,1,1", probes},
		{"tcp-keepalive", "1,0,1", probes},
		{"tcp-keepalive", "1,1,0", probes},
		{"tcp-keepalive", "1,1,128", probes},
		{"tcp-keepalive", "1,1,x", `"x": expected a number from 0 to 32767`},
		{"tcp-keepalive", "32768,1,1", `"32768": expected a number from 0 to 32767`},
		{"tcp-keepalive", "1,2,3,4", "expected 3 numbers, separated by commas"},
		{"ssh-keepalive", "0,0", ""},
		{"ssh-keepalive", "86401,1", `"86401": expected a number from 0 to 86400`},
		{"ssh-keepalive", "", "expected 2 numbers, separated by commas"},
		{"dscp", "63", ""},
		{"dscp", "-1", "expected a number from 0 to 63"},
		{"proxy", "socks5://[::1]:1080", ""},
		{"proxy", "http://proxy.example:3128/", ""},
		{"proxy", "socks5://[fe80::1%25eth0]:1080", ""},
		{"proxy", "socks5://[fe80::1%eth0]:1080", ""},
		{"proxy", "proxy:3128", proxy},
		{"proxy", "socks4://proxy:1080", proxy},
		{"proxy", "http://proxy", "no port; expected http://HOST:PORT"},
		{"proxy", "http://user:word@proxy:1", "every user of this machine can read a command line; use --proxy-credentials FILE"},
		{"proxy", "http://proxy:1/path", `port "1/path" is not a number from 1 to 65535`},
		{"proxy", "http://", "HOST is empty; expected a name or an IP address"},
		{"sshd", "/usr/sbin/sshd", ""},
		{"sshd", "./sshd", abs},
		{"sshd-config", "relative", ""},
		{"sshd-config", "", file},
		{"sshd-config", "-f", file},
		{"sshd-config", "a\x7fb", file},
		{"host-key", "a\x00b", file},
		{"sshd-log", "/var/log/x", ""},
		{"sshd-log", "journal", logDest},
		{"sshd-log", "/a\nb", logDest},
		{"device-id", "urn:dev/1,a=b+c@d_e.f-g", ""},
		{"device-id", strings.Repeat("d", 64), ""},
		{"device-id", strings.Repeat("d", 65), idLen},
		{"device-id", "", idLen},
		{"device-id", "a b", id},
		{"device-id", "a\r\nSSH-2.0-x", id},
		{"device-id", `a"b`, id},
		{"device-id", "é", id},
		{"announce", "true", ""},
		{"announce", "0", ""},
		{"announce", "yes", "expected true or false"},
		{"log-level", "warning", "expected debug, info, warn or error"},
		{"log-format", "logfmt", "expected text or json"},
		{"netconf-server", "yuma123", "expected yuma, confd, clixon or none; for another server set --subsystem"},
	} {
		t.Run(tt.option+" "+tt.value, func(t *testing.T) {
			err := option(t, tt.option).take(&Settings{}, tt.value)
			if got := message(err); got != tt.says {
				t.Errorf("says %q, want %q", got, tt.says)
			}
		})
	}
}

func message(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestDurationsAreSecondsWithoutAUnit(t *testing.T) {
	for value, want := range map[string]time.Duration{"5": 5 * time.Second, "5s": 5 * time.Second, "1m30s": 90 * time.Second, "500ms": 500 * time.Millisecond} {
		var got time.Duration
		if err := duration(value, &got, 0, time.Hour); err != nil || got != want {
			t.Errorf("%q is %v, %v, want %v", value, got, err, want)
		}
	}
}

func TestKeepaliveOffUndoesTheBuiltInOne(t *testing.T) {
	o := dial.Options{KeepAlive: dial.KeepAlive{Idle: 30, Interval: 10, Count: 6}}
	if err := setKeepalive(&o, "off"); err != nil || o.KeepAlive != (dial.KeepAlive{}) {
		t.Errorf("off leaves %+v, %v", o.KeepAlive, err)
	}
}

// Every name maps to one environment variable, and the values of a repeatable option
// fit one string: all sources rely on both.
func TestOptionsTable(t *testing.T) {
	seen := make(map[string]bool)
	for _, o := range Options() {
		if seen[o.Env()] {
			t.Errorf("%s stands twice", o.Env())
		}
		seen[o.Env()] = true
		if o.Name != strings.ToLower(o.Name) || strings.ContainsAny(o.Name, "_ =") {
			t.Errorf("option %q is no long option's name", o.Name)
		}
		if o.Usage == "" || o.set == nil {
			t.Errorf("option %s has no help or no effect", o.Name)
		}
		if o.Env() == DefaultsEnv || o.Env() == "CALLHOME_CHECK" || o.Env() == "CALLHOME_SHOW_CONFIG" {
			t.Errorf("%s means something else already", o.Env())
		}
		if o.Default != "" && o.take(&Settings{}, o.Default) != nil {
			t.Errorf("option %s refuses its own default %q", o.Name, o.Default)
		}
	}
	if got := (&Option{Name: "ssh-connection-port"}).Env(); got != "CALLHOME_SSH_CONNECTION_PORT" {
		t.Errorf("the variable of ssh-connection-port is %s", got)
	}
	// applyPreset relies on it.
	names := make([]string, 0, len(options))
	for _, o := range options {
		names = append(names, o.Name)
	}
	if i := slices.Index(names, "netconf-server"); i > slices.Index(names, "subsystem") || i > slices.Index(names, "ssh-connection-port") {
		t.Error("netconf-server stands behind an option that it presets")
	}
}

func TestOptionsIsACopy(t *testing.T) {
	Options()[0].Name = "changed"
	if options[0].Name == "changed" {
		t.Error("a caller can change the table")
	}
}
