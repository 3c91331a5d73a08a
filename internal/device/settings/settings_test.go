package settings

import (
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"callhome/internal/device/dial"
	"callhome/internal/proto"
	"callhome/internal/sshdexec"
	"callhome/internal/sysexits"
)

// given has the values of all sources, for one call of Load.
type given struct {
	flags Given
	args  []string
	env   map[string]string // option name to value
	file  string            // the defaults file's text
}

// In the tests the packages' files are installed.
func init() { installed = func(string) bool { return true } }

func (g given) load(t *testing.T) (*Settings, map[string]Effective, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "trigger.conf")
	if err := os.WriteFile(file, []byte(g.file), 0o600); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{DefaultsEnv: file}
	for name, v := range g.env {
		env[(&Option{Name: name}).Env()] = v
	}
	s, effective, err := Load(g.flags, g.args, func(key string) (string, bool) { v, ok := env[key]; return v, ok })
	rows := make(map[string]Effective)
	for _, e := range effective {
		e.Source = strings.Replace(e.Source, file, "FILE", 1)
		rows[e.Name] = e
	}
	if err != nil {
		return s, rows, &hidden{err, file}
	}
	return s, rows, nil
}

// hidden is an error whose text has FILE in place of the defaults file's path.
type hidden struct {
	error
	file string
}

func (h *hidden) Error() string { return strings.ReplaceAll(h.error.Error(), h.file, "FILE") }
func (h *hidden) Unwrap() error { return h.error }

func (g given) mustLoad(t *testing.T) (*Settings, map[string]Effective) {
	t.Helper()
	s, effective, err := g.load(t)
	if err != nil {
		t.Fatal(err)
	}
	return s, effective
}

func TestBuiltInValues(t *testing.T) {
	got, effective := given{args: []string{"nms"}}.mustLoad(t)
	want := &Settings{
		Call: Call{
			Target:         Target{Host: "nms", Port: 4334},
			ConnectTimeout: 5 * time.Second,
			Attempts:       1,
			RetryWait:      time.Second,
			Dial:           dial.Options{KeepAlive: dial.KeepAlive{Idle: 30, Interval: 10, Count: 6}, UserTimeout: 90 * time.Second},
			Sshd:           sshdexec.Command{Sshd: "/usr/sbin/sshd", Config: "/etc/callhome/sshd_config"},
		},
		Handover:      HandoverAuto,
		ManagerSocket: "/run/callhome/mgr.sock",
		SshdLog:       "auto",
		LogFormat:     "text",
		LogLevel:      "warn",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	for _, o := range Options() {
		want := Effective{o.Name, o.Default, "built-in"}
		switch o.Name {
		case "host":
			want = Effective{"host", "nms", "word"}
		case "port": // shown with its effective value
			want.Value = "4334"
		}
		if effective[o.Name] != want {
			t.Errorf("--show-config has %+v, want %+v", effective[o.Name], want)
		}
	}
}

// For all subsets of the sources: the highest that has a value wins.
func TestTheHighestSourceWins(t *testing.T) {
	const flag, env, file = 1, 2, 4
	for set := range 8 {
		g, want := given{args: []string{"nms"}}, Effective{"retry-wait", "1s", "built-in"}
		name := "of built-in"
		if set&file != 0 {
			g.file = "\nCALLHOME_RETRY_WAIT=4s\n"
			name, want = name+", file", Effective{"retry-wait", "4s", "FILE:2"}
		}
		if set&env != 0 {
			g.env = map[string]string{"retry-wait": "3s"}
			name, want = name+", environment", Effective{"retry-wait", "3s", "environment"}
		}
		if set&flag != 0 {
			g.flags = Given{"retry-wait": {"2s"}}
			name, want = name+", flag", Effective{"retry-wait", "2s", "flag"}
		}
		t.Run(name+" the last one counts", func(t *testing.T) {
			s, effective := g.mustLoad(t)
			if effective["retry-wait"] != want || s.RetryWait.String() != want.Value {
				t.Errorf("got %v and %+v, want %+v", s.RetryWait, effective["retry-wait"], want)
			}
		})
	}
}

// The host of a source comes with the port of its HOST:PORT, and only a higher source
// overrides that port.
func TestHostAndPortStayTogether(t *testing.T) {
	for _, tt := range []struct {
		name  string
		given given
		want  string
		from  string // of the port
	}{
		{"argument", given{args: []string{"w:1"}}, "w:1", "word"},
		{"arguments", given{args: []string{"w", "1"}}, "w:1", "word"},
		{"flag", given{flags: Given{"host": {"f:1"}}}, "f:1", "flag"},
		{"flag with an IPv6 address", given{flags: Given{"host": {"[::1]:1"}}}, "::1:1", "flag"},
		{"flag without a port", given{flags: Given{"host": {"f"}}}, "f:4334", "built-in"},
		{"two flags", given{flags: Given{"host": {"f"}, "port": {"1"}}}, "f:1", "flag"},
		{"environment", given{env: map[string]string{"host": "e:1"}}, "e:1", "environment"},
		{"two variables", given{env: map[string]string{"host": "e", "port": "1"}}, "e:1", "environment"},
		{"file", given{file: "CALLHOME_HOST=f:1"}, "f:1", "FILE:1"},
		{"two keys", given{file: "CALLHOME_PORT=1\nCALLHOME_HOST=f"}, "f:1", "FILE:1"},

		{"an argument's port outranks the environment's", given{args: []string{"w:1"}, env: map[string]string{"port": "2"}}, "w:1", "word"},
		{"a flag's port outranks the environment's", given{flags: Given{"host": {"f:1"}}, env: map[string]string{"port": "2"}}, "f:1", "flag"},
		{"the environment's port outranks the file's", given{env: map[string]string{"host": "e:1"}, file: "CALLHOME_PORT=2"}, "e:1", "environment"},
		{"an argument without a port takes the environment's", given{args: []string{"w"}, env: map[string]string{"port": "2"}}, "w:2", "environment"},
		{"an argument without a port takes none of another host's", given{args: []string{"w"}, env: map[string]string{"host": "e:2"}}, "w:4334", "built-in"},
		{"a flag changes the port of the environment's host", given{flags: Given{"port": {"1"}}, env: map[string]string{"host": "e:2"}}, "e:1", "flag"},
		{"the environment changes the port of the file's host", given{env: map[string]string{"port": "1"}, file: "CALLHOME_HOST=f:2"}, "f:1", "environment"},
		{"an argument and a port by flag", given{args: []string{"w"}, flags: Given{"port": {"1"}}}, "w:1", "flag"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, effective := tt.given.mustLoad(t)
			if got := s.Host + ":" + decimal(s.Port); got != tt.want {
				t.Errorf("calls %s, want %s", got, tt.want)
			}
			shown := effective["port"]
			if shown.Value != decimal(s.Port) || shown.Source != tt.from {
				t.Errorf("--show-config has port %q from %s, want %d from %s", shown.Value, shown.Source, s.Port, tt.from)
			}
			// The output can be given as options again: the port is in one row only.
			if shown := effective["host"].Value; shown != s.Host {
				t.Errorf("--show-config has host %q, want %q", shown, s.Host)
			}
		})
	}
}

func TestLoadRefuses(t *testing.T) {
	for _, tt := range []struct {
		name  string
		given given
		code  int
		says  string
	}{
		{"a host by flag and as argument", given{flags: Given{"host": {"f"}}, args: []string{"w"}}, sysexits.Usage, `host given twice, as --host "f" and as the argument "w"`},
		{"a port by flag and as argument", given{flags: Given{"port": {"1"}}, args: []string{"w", "2"}}, sysexits.Usage, `port given twice, as --port "1" and as the argument "2"`},
		{"a port by flag and in the argument", given{flags: Given{"port": {"1"}}, args: []string{"w:2"}}, sysexits.Usage, `port given twice, as --port "1" and as the argument "2"`},
		{"a port in --host and by flag", given{flags: Given{"host": {"f:1"}, "port": {"1"}}}, sysexits.Usage, `port given twice, in host "f:1" and as port "1"`},
		{"a port in HOST:PORT and beside it", given{env: map[string]string{"host": "e:1", "port": "2"}}, sysexits.Config, `environment: port given twice, in host "e:1" and as port "2"`},
		{"opaque data by flag and as argument", given{flags: Given{"opaque": {"a"}}, args: []string{"w", "1", "b"}}, sysexits.Usage, `opaque given twice, as --opaque "a" and as the argument "b"`},
		{"a wrong argument", given{args: []string{"w", "x"}}, sysexits.Usage, `port "x" is not a number from 1 to 65535`},
		{"a wrong host by flag", given{flags: Given{"host": {"-x"}}}, sysexits.Usage, `--host "-x": host "-x" is neither a name nor an IP address`},
		{"a wrong variable", given{env: map[string]string{"attempts": "0"}}, sysexits.Config, `environment: CALLHOME_ATTEMPTS="0": expected a number from 1 to 1000`},
		{"a wrong line", given{file: "# x\nCALLHOME_ATTEMPTS=0"}, sysexits.Config, `FILE:2: CALLHOME_ATTEMPTS="0": expected a number from 1 to 1000`},
		{"an unknown key", given{file: "CALLHOME_X=0"}, sysexits.Config, `FILE:1: unknown key "CALLHOME_X"; a key is an option of callhome-trigger --help, as CALLHOME_LOCAL_ADDRESS is --local-address`},
		{"a wrong value in a repeated variable", given{env: map[string]string{"host-key": "/a;-b"}}, sysexits.Config, `environment: CALLHOME_HOST_KEY="-b": not a usable file name`},
		{"a presented port without a command to see it", given{env: map[string]string{"ssh-connection-port": "830"}}, sysexits.Config, `ssh-connection-port 830 needs a subsystem command: set --subsystem or --netconf-server`},
		{"credentials without a proxy", given{env: map[string]string{"proxy-credentials": "/x"}}, sysexits.Config, `--proxy-credentials without --proxy`},
		{"opaque data that does not fit the announced line", given{args: []string{"w", "1", strings.Repeat("%", 81)}, env: map[string]string{"announce": "true", "device-id": "d"}}, sysexits.Config,
			`announcing OPAQUE: it has 243 bytes when encoded; at most 240 fit the line that every SSH client accepts`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := tt.given.load(t)
			if sysexits.Code(err) != tt.code || err.Error() != tt.says {
				t.Errorf("exit status %d with\n%v, want %d with\n%s", sysexits.Code(err), err, tt.code, tt.says)
			}
		})
	}
}

// An overridden value is not checked: a file for a whole network may have values that
// this device cannot use.
func TestOverriddenValuesAreNotChecked(t *testing.T) {
	g := given{args: []string{"w"}, flags: Given{"attempts": {"2"}}, env: map[string]string{"attempts": "x"}, file: "CALLHOME_ATTEMPTS=y"}
	if s, _ := g.mustLoad(t); s.Attempts != 2 {
		t.Errorf("attempts %d, want 2", s.Attempts)
	}
}

func TestRepeatedOptionsReplaceThoseOfALowerSource(t *testing.T) {
	for _, tt := range []struct {
		name  string
		given given
		want  []string
		shown string
	}{
		{"file", given{file: "CALLHOME_HOST_KEY=/a;/b"}, []string{"/a", "/b"}, "/a;/b"},
		{"environment", given{env: map[string]string{"host-key": " /c ;; /d;"}, file: "CALLHOME_HOST_KEY=/a"}, []string{"/c", "/d"}, "/c;/d"},
		{"flags", given{flags: Given{"host-key": {"/e", "/f;g"}}, env: map[string]string{"host-key": "/c"}}, []string{"/e", "/f;g"}, "/e;/f;g"},
		{"an empty variable is not set", given{env: map[string]string{"host-key": ""}, file: "CALLHOME_HOST_KEY=/a"}, []string{"/a"}, "/a"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, effective := tt.given.mustLoad(t)
			if !reflect.DeepEqual(s.Sshd.HostKeys, tt.want) || effective["host-key"].Value != tt.shown {
				t.Errorf("got %q shown as %q, want %q shown as %q", s.Sshd.HostKeys, effective["host-key"].Value, tt.want, tt.shown)
			}
		})
	}
}

// An empty value counts as not set, as in a shell's ${X:-}: the next source is used.
func TestEmptyIsNotSet(t *testing.T) {
	for _, o := range Options() {
		s, effective := given{env: map[string]string{o.Name: ""}, file: o.Env() + "="}.mustLoad(t)
		if source := effective[o.Name].Source; source != "built-in" {
			t.Errorf("%s comes from %s", o.Name, source)
		}
		if want, _ := (given{}).mustLoad(t); !reflect.DeepEqual(s, want) {
			t.Errorf("an empty %s changes the settings to %+v", o.Name, s)
		}
	}
}

// Local and remote addresses of different families, and link-local addresses without
// an interface, are refused.
func TestAddressesMustFitTogether(t *testing.T) {
	for _, tt := range []struct {
		name  string
		host  string
		flags Given
		says  string
	}{
		{"both IPv4", "192.0.2.1", Given{"local-address": {"192.0.2.2"}}, ""},
		{"both IPv6", "2001:db8::1", Given{"local-address": {"2001:db8::2"}}, ""},
		{"IPv4 mapped to IPv6", "::ffff:192.0.2.1", Given{"local-address": {"192.0.2.2"}}, ""},
		{"a name may have either", "nms", Given{"local-address": {"2001:db8::2"}}, ""},
		{"IPv6 to IPv4", "192.0.2.1", Given{"local-address": {"2001:db8::2"}}, "local address 2001:db8::2 and 192.0.2.1 are not of one family"},
		{"IPv4 to IPv6", "2001:db8::1", Given{"local-address": {"192.0.2.2"}}, "local address 192.0.2.2 and 2001:db8::1 are not of one family"},
		{"it is the proxy's address that counts", "192.0.2.1", Given{"local-address": {"2001:db8::2"}, "proxy": {"http://[2001:db8::3]:1"}}, ""},
		{"to a proxy of the other family", "2001:db8::1", Given{"local-address": {"2001:db8::2"}, "proxy": {"http://192.0.2.3:1"}}, "local address 2001:db8::2 and 192.0.2.3 are not of one family"},
		{"link-local with its zone", "fe80::1%eth0", nil, ""},
		{"link-local with its interface", "fe80::1", Given{"interface": {"eth0"}}, ""},
		{"link-local from the local address's zone", "fe80::1", Given{"local-address": {"fe80::2%eth0"}}, ""},
		{"link-local without a zone", "fe80::1", nil, "fe80::1 is a link-local address; expected its zone too, as in fe80::1%eth0, or --interface, or a --local-address with a zone"},
		{"link-local without a zone, from an address without one", "fe80::1", Given{"local-address": {"fe80::2"}}, "fe80::1 is a link-local address; expected its zone too, as in fe80::1%eth0, or --interface, or a --local-address with a zone"},
		{"IPv4 link-local needs no zone", "169.254.0.1", nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := given{args: []string{tt.host}, flags: tt.flags}.load(t)
			if message(err) != tt.says || err != nil && sysexits.Code(err) != sysexits.Usage {
				t.Errorf("exit status %d with %v, want %q", sysexits.Code(err), err, tt.says)
			}
		})
	}
}

func TestDeviceIDGoesToOnePlace(t *testing.T) {
	for _, tt := range []struct {
		name     string
		flags    Given
		addendum string
		announce bool
	}{
		{"neither", Given{}, "", false},
		{"an id alone is in the version string", Given{"device-id": {"dev-1"}}, "dev-1", false},
		{"an announced id does not", Given{"device-id": {"dev-1"}, "announce": {"true"}}, "", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, _ := given{flags: tt.flags}.mustLoad(t)
			if s.Sshd.VersionAddendum != tt.addendum || s.Announce != tt.announce {
				t.Errorf("addendum %q, announce %v", s.Sshd.VersionAddendum, s.Announce)
			}
		})
	}
	t.Run("without an id the host name is announced", func(t *testing.T) {
		name, err := os.Hostname()
		if err != nil || CheckDeviceID(name) != nil {
			t.Skipf("this machine's host name %q cannot be announced (%v)", name, err)
		}
		s, _ := given{flags: Given{"announce": {"true"}}}.mustLoad(t)
		if s.DeviceID != name {
			t.Errorf("announces %q, want %q", s.DeviceID, name)
		}
	})
}

func TestOpaqueAndDSCPReachSshd(t *testing.T) {
	s, _ := given{args: []string{"nms", "1", "a b"}, flags: Given{"dscp": {"46"}}}.mustLoad(t)
	if s.Sshd.Opaque != "a b" || s.Sshd.DSCP == nil || *s.Sshd.DSCP != 46 || *s.Dial.DSCP != 46 {
		t.Errorf("sshd gets opaque %q and DSCP %v", s.Sshd.Opaque, s.Sshd.DSCP)
	}
}

func TestTheLongestAnnouncedOpaque(t *testing.T) {
	opaque := strings.Repeat("%", maxAnnounced/3)
	s, _ := given{args: []string{"nms", "1", opaque}, flags: Given{"announce": {"true"}, "device-id": {"d"}}}.mustLoad(t)
	if s.Opaque != opaque {
		t.Errorf("carries %q", s.Opaque)
	}
}

func TestNeedTarget(t *testing.T) {
	s, _ := given{}.mustLoad(t)
	if err := s.NeedTarget(); sysexits.Code(err) != sysexits.Usage || err.Error() != "no HOST given; expected HOST [PORT [OPAQUE]]" {
		t.Errorf("without a host: %v", err)
	}
	s, _ = given{env: map[string]string{"host": "nms"}}.mustLoad(t)
	if err := s.NeedTarget(); err != nil {
		t.Errorf("with a host from the environment: %v", err)
	}
}

// examples has a valid and an invalid value of each option; arrives checks that the
// valid one is set.
var examples = map[string]struct {
	good, bad string
	arrives   func(*Settings) bool
}{
	"host":             {"nms", "-x", func(s *Settings) bool { return s.Host == "nms" }},
	"port":             {"830", "0", func(s *Settings) bool { return s.Port == 830 }},
	"opaque":           {"a;b", strings.Repeat("x", proto.MaxOpaque+1), func(s *Settings) bool { return s.Opaque == "a;b" }},
	"handover":         {"detach", "fork", func(s *Settings) bool { return s.Handover == HandoverDetach }},
	"manager-socket":   {"/m", "m", func(s *Settings) bool { return s.ManagerSocket == "/m" }},
	"connect-timeout":  {"2s", "0", func(s *Settings) bool { return s.ConnectTimeout == 2*time.Second }},
	"attempts":         {"7", "1001", func(s *Settings) bool { return s.Attempts == 7 }},
	"retry-wait":       {"0", "-1s", func(s *Settings) bool { return s.RetryWait == 0 }},
	"local-address":    {"192.0.2.1", "nms", func(s *Settings) bool { return s.Dial.LocalAddress == netip.MustParseAddr("192.0.2.1") }},
	"local-port":       {"830", "x", func(s *Settings) bool { return s.Dial.LocalPort == 830 }},
	"interface":        {"mgmt0", "a/b", func(s *Settings) bool { return s.Dial.Interface == "mgmt0" }},
	"netns":            {"/run/netns/m", "m", func(s *Settings) bool { return s.Dial.Netns == "/run/netns/m" }},
	"tcp-keepalive":    {"1,2,3", "1,2", func(s *Settings) bool { return s.Dial.KeepAlive == dial.KeepAlive{Idle: 1, Interval: 2, Count: 3} }},
	"tcp-user-timeout": {"0", "x", func(s *Settings) bool { return s.Dial.UserTimeout == 0 }},
	"dscp":             {"0", "64", func(s *Settings) bool { return s.Dial.DSCP != nil && *s.Dial.DSCP == 0 }},
	"proxy": {"http://p:1", "https://p:1", func(s *Settings) bool {
		return s.Proxy.Scheme == "http" && s.Proxy.Target == Target{Host: "p", Port: 1}
	}},
	"proxy-credentials":   {"c", "-c", func(s *Settings) bool { return s.Proxy.Credentials == "c" }},
	"sshd":                {"/opt/sshd", "sshd", func(s *Settings) bool { return s.Sshd.Sshd == "/opt/sshd" }},
	"sshd-config":         {"/c", "-c", func(s *Settings) bool { return s.Sshd.Config == "/c" }},
	"host-key":            {"/k", "-k", func(s *Settings) bool { return reflect.DeepEqual(s.Sshd.HostKeys, []string{"/k"}) }},
	"host-certificate":    {"/k", "-k", func(s *Settings) bool { return reflect.DeepEqual(s.Sshd.HostCertificates, []string{"/k"}) }},
	"netconf-server":      {"confd", "other", func(s *Settings) bool { return s.Sshd.Subsystem == "/usr/local/bin/netconf-subsys" }},
	"subsystem":           {"/s 'a b'", "a\nb", func(s *Settings) bool { return s.Sshd.Subsystem == "/s 'a b'" }},
	"ssh-connection-port": {"830", "0", func(s *Settings) bool { return s.Sshd.SSHConnectionPort == 830 }},
	"ssh-keepalive":       {"10,3", "10", func(s *Settings) bool { return *s.Sshd.KeepAlive == sshdexec.KeepAlive{Interval: 10, CountMax: 3} }},
	"sshd-option":         {"A=b", "Match=all", func(s *Settings) bool { return reflect.DeepEqual(s.Sshd.Options, []string{"A=b"}) }},
	"sshd-log":            {"syslog", "x", func(s *Settings) bool { return s.SshdLog == "syslog" }},
	"announce":            {"true", "perhaps", func(s *Settings) bool { return s.Announce }},
	"device-id":           {"d", "a b", func(s *Settings) bool { return s.DeviceID == "d" }},
	"log-format":          {"json", "xml", func(s *Settings) bool { return s.LogFormat == "json" }},
	"log-level":           {"debug", "trace", func(s *Settings) bool { return s.LogLevel == "debug" }},
	"syslog":              {"true", "x", func(s *Settings) bool { return s.Syslog }},
}

// needs has the options that another option requires.
var needs = map[string]Given{
	"ssh-connection-port": {"subsystem": {"/s"}},
	"proxy-credentials":   {"proxy": {"http://p:1"}},
	"announce":            {"device-id": {"d"}},
}

// For every option and every source: a valid value is set and shown with its source,
// and an invalid one is refused with the option's name and the source's status.
func TestEveryOptionFromEverySource(t *testing.T) {
	for _, o := range Options() {
		e, ok := examples[o.Name]
		if !ok {
			t.Errorf("option %s has no example", o.Name)
			continue
		}
		for _, source := range []string{"flag", "environment", "FILE:1"} {
			from := func(value string) given {
				g := given{flags: Given{}}
				for name, values := range needs[o.Name] {
					g.flags[name] = values
				}
				switch source {
				case "flag":
					g.flags[o.Name] = []string{value}
				case "environment":
					g.env = map[string]string{o.Name: value}
				default:
					g.file = o.Env() + "='" + strings.ReplaceAll(value, "'", `'"'"'`) + "'"
				}
				return g
			}
			t.Run(o.Name+" from "+source, func(t *testing.T) {
				s, effective := from(e.good).mustLoad(t)
				if want := (Effective{o.Name, e.good, source}); !e.arrives(s) || effective[o.Name] != want {
					t.Errorf("%q does not arrive, or is shown as %+v", e.good, effective[o.Name])
				}
			})
			t.Run(o.Name+" refused from "+source, func(t *testing.T) {
				_, _, err := from(e.bad).load(t)
				code, says := sysexits.Config, source+": "+o.Env()+"="+strconv.Quote(e.bad)+": "
				if source == "flag" {
					code, says = sysexits.Usage, "--"+o.Name+" "+strconv.Quote(e.bad)+": "
				}
				if sysexits.Code(err) != code || !strings.HasPrefix(err.Error(), says) {
					t.Errorf("exit status %d with %v, want %d with %q", sysexits.Code(err), err, code, says)
				}
			})
		}
	}
}

// A program option is not part of a Call: a reload that changes one does not restart
// a client's schedule (reconnect.Clients.Apply).
func TestOptionsOfTheProgramChangeNoCall(t *testing.T) {
	was, _ := given{args: []string{"nms"}}.mustLoad(t)
	for name, value := range map[string]string{
		"log-level": "debug", "log-format": "json", "syslog": "true", "sshd-log": "syslog", "handover": "detach", "manager-socket": "/run/other.sock",
		"attempts": "7", "sshd": "/opt/sshd",
	} {
		now, _ := given{args: []string{"nms"}, env: map[string]string{name: value}}.mustLoad(t)
		ofCall := name == "attempts" || name == "sshd"
		if changed := !reflect.DeepEqual(was.Call, now.Call); changed != ofCall {
			t.Errorf("%s %s: the call changed: %v, want %v", name, value, changed, ofCall)
		}
		if reflect.DeepEqual(was, now) {
			t.Errorf("%s %s changed nothing", name, value)
		}
	}
}
