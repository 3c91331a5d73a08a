package config

import (
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"callhome/internal/device/dial"
	"callhome/internal/device/settings"
	"callhome/internal/sshdexec"

	"golang.org/x/crypto/ssh"
)

// base returns the daemon's own settings; an endpoint keeps or replaces each of
// them.
func base() settings.Call {
	dscp := 46
	return settings.Call{
		ConnectTimeout: time.Minute, Attempts: 9, RetryWait: time.Second,
		Dial: dial.Options{LocalAddress: netip.MustParseAddr("192.0.2.77"), LocalPort: 830, Interface: "eth9", Netns: "/run/netns/x",
			KeepAlive: dial.KeepAlive{Idle: 1, Interval: 1, Count: 1}, UserTimeout: 5 * time.Second, DSCP: &dscp},
		Sshd: sshdexec.Command{Sshd: "/usr/sbin/sshd", Config: "/etc/callhome/sshd_config", HostKeys: []string{"/old"}, HostCertificates: []string{"/old-cert"},
			Subsystem: "/old-subsystem", SSHConnectionPort: 830, KeepAlive: &sshdexec.KeepAlive{Interval: 99, CountMax: 9},
			VersionAddendum: "old-id", DSCP: &dscp, Options: []string{"AllowUsers=root", "Banner=none"}},
		DeviceID: "old-id",
	}
}

const dir = "/run/callhome/ssh"

// The document's values become settings of the call home and options of sshd, which
// come before the daemon's own.
func TestCallHasTheDocumentsValues(t *testing.T) {
	ed := wire(edKey.Public())
	users := inSSH + "client-authentication/users"
	twoUsers := edit{users, `{"user": [` + user("netconf", ed) + "," + user("noc.2", ed) + `]}`}
	ca := edit{inSSH + "client-authentication/callhome:user-ca-keys", `{"inline-definition": {"public-key": [` + publicKeyEntry("ca", ed) + `]}}`}
	d := endpoint(t, all).Dir(dir)
	principals := "AuthorizedPrincipalsFile=" + d + "/principals/%u"
	for _, tt := range []struct {
		name    string
		edits   []edit
		field   func(*settings.Call) any
		want    any
		options []string // beside LoginGraceTime and the daemon's
	}{
		{"target", []edit{{inTCP + "remote-address", `"nms.example"`}, {inTCP + "remote-port", `1234`}},
			func(s *settings.Call) any { return s.Target }, settings.Target{Host: "nms.example", Port: 1234}, nil},
		{"IANA's port", nil, func(s *settings.Call) any { return s.Port }, uint16(4334), nil},
		{"one attempt, for max-wait", []edit{{inClient + "reconnect-strategy/max-wait", `7`}},
			func(s *settings.Call) any { return []any{s.Attempts, s.ConnectTimeout} }, []any{1, 7 * time.Second}, nil},
		{"source", []edit{{inTCP + "local-address", `"192.0.2.9"`}, {inTCP + "local-port", `99`}, {inTCP + "callhome:interface", `"vrf-mgmt"`}, {inTCP + "callhome:dscp", `0`}},
			func(s *settings.Call) any {
				return []any{s.Dial.LocalAddress.String(), s.Dial.LocalPort, s.Dial.Interface, *s.Dial.DSCP, *s.Sshd.DSCP, s.Dial.Netns}
			}, []any{"192.0.2.9", uint16(99), "vrf-mgmt", 0, 0, "/run/netns/x"}, nil},
		{"the daemon's source", nil,
			func(s *settings.Call) any {
				return []any{s.Dial.LocalAddress.String(), s.Dial.LocalPort, s.Dial.Interface, *s.Dial.DSCP}
			}, []any{"192.0.2.77", uint16(830), "eth9", 46}, nil},
		{"any address, own port", []edit{{inTCP + "local-address", `"0.0.0.0"`}, {inTCP + "local-port", `99`}},
			func(s *settings.Call) any { return []any{s.Dial.LocalAddress.IsValid(), s.Dial.LocalPort} }, []any{false, uint16(99)}, nil},
		{"SOCKS5", []edit{{inTCP + "proxy-server", `{"socks5-parameters": {"remote-address": "p.example", "authentication-parameters": {"username-password": {"username": "u", "cleartext-password": "p"}}}}`}},
			func(s *settings.Call) any { return s.Proxy }, settings.Proxy{Scheme: "socks5", Target: settings.Target{Host: "p.example", Port: 1080}, Credentials: d + "/proxy"}, nil},
		{"SOCKS4", []edit{{inTCP + "proxy-server", `{"socks4-parameters": {"remote-address": "2001:db8::9", "remote-port": 99}}`}, {inTCP + "local-address", `"2001:db8::1"`}},
			func(s *settings.Call) any { return s.Proxy }, settings.Proxy{Scheme: "socks4", Target: settings.Target{Host: "2001:db8::9", Port: 99}}, nil},
		{"SOCKS4a", []edit{{inTCP + "remote-address", `"n.example"`}, {inTCP + "proxy-server", `{"socks4a-parameters": {"remote-address": "p.example"}}`}},
			func(s *settings.Call) any { return s.Proxy }, settings.Proxy{Scheme: "socks4a", Target: settings.Target{Host: "p.example", Port: 1080}}, nil},

		{"host key", nil, func(s *settings.Call) any { return []any{s.Sshd.HostKeys, s.Sshd.HostCertificates} }, []any{[]string{"/etc/ssh/hk"}, []string(nil)}, nil},
		{"host certificate", []edit{{inPair, `{"hidden-private-key": [null], "public-key-format": "ietf-crypto-types:ssh-public-key-format", "public-key": ` + b64(certificate(t, ssh.HostCert)) + `}`}},
			func(s *settings.Call) any { return []any{s.Sshd.HostKeys, s.Sshd.HostCertificates} }, []any{[]string{"/etc/ssh/hk"}, []string{d + "/host_key_0-cert.pub"}}, nil},
		{"host key inline", []edit{{inPair, `{"private-key-format": "ietf-crypto-types:one-asymmetric-key-format", "cleartext-private-key": ` + b64(pkcs8(edKey)) + `}`}},
			func(s *settings.Call) any { return s.Sshd.HostKeys }, []string{d + "/host_key_0"}, nil},
		{"host key of the keystore", []edit{{inKey + "public-key", `{"central-keystore-reference": "genkey"}`}, {"ietf-keystore:keystore/asymmetric-keys/asymmetric-key", `[{"name": "genkey", "hidden-private-key": [null]}]`}},
			func(s *settings.Call) any { return s.Sshd.HostKeys }, []string{"/etc/ssh/genkey"}, nil},

		{"users", []edit{twoUsers}, nil, nil, []string{"AllowUsers=netconf noc.2", "AuthorizedKeysFile=" + d + "/keys/%u", "AuthorizedKeysCommand=none", "AuthenticationMethods=publickey", "TrustedUserCAKeys=none",
			principals, "AuthorizedPrincipalsCommand=none"}},
		{"users and authorities", []edit{twoUsers, ca}, nil, nil, []string{"AllowUsers=netconf noc.2", "AuthorizedKeysFile=" + d + "/keys/%u", "AuthorizedKeysCommand=none", "AuthenticationMethods=publickey", "TrustedUserCAKeys=" + d + "/user_ca",
			principals, "AuthorizedPrincipalsCommand=none"}},
		{"authorities", []edit{ca}, nil, nil, []string{"TrustedUserCAKeys=" + d + "/user_ca"}},
		{"algorithms", []edit{{inSSH + "transport-params", `{"host-key": {"host-key-alg": ["rsa-sha2-512", "ssh-ed25519"]}, "key-exchange": {"key-exchange-alg": ["sntrup761x25519-sha512", "curve25519-sha256"]},
			"encryption": {"encryption-alg": ["AEAD_AES_128_GCM", "aes256-gcm@openssh.com"]}, "mac": {"mac-alg": ["hmac-sha2-512-etm@openssh.com"]}}`}}, nil, nil,
			[]string{"HostKeyAlgorithms=rsa-sha2-512,ssh-ed25519", "KexAlgorithms=sntrup761x25519-sha512@openssh.com,curve25519-sha256", "Ciphers=aes128-gcm@openssh.com,aes256-gcm@openssh.com", "MACs=hmac-sha2-512-etm@openssh.com"}},
		{"idle", []edit{{inClient + "connection-type", `{"periodic": {"idle-timeout": 300}}`}}, nil, nil, []string{"ChannelTimeout=session:*=300", "UnusedConnectionTimeout=10"}},
		{"idle soon", []edit{{inClient + "connection-type", `{"periodic": {"idle-timeout": 4}}`}}, nil, nil, []string{"ChannelTimeout=session:*=4", "UnusedConnectionTimeout=4"}},
		{"idle for ever", []edit{{inClient + "connection-type", `{"periodic": {"idle-timeout": 0}}`}}, nil, nil, nil},

		{"preset", []edit{{inNetconf + "callhome:netconf-server", `"yuma"`}}, func(s *settings.Call) any { return []any{s.Sshd.Subsystem, s.Sshd.SSHConnectionPort} }, []any{"/usr/sbin/netconf-subsystem", uint16(830)}, nil},
		{"subsystem", []edit{{inNetconf + "callhome:subsystem", `"/s --x"`}}, func(s *settings.Call) any { return []any{s.Sshd.Subsystem, s.Sshd.SSHConnectionPort} }, []any{"/s --x", uint16(0)}, nil},
		{"preset and port", []edit{{inNetconf + "callhome:netconf-server", `"clixon"`}, {inNetconf + "callhome:ssh-connection-port", `22`}},
			func(s *settings.Call) any { return []any{s.Sshd.Subsystem, s.Sshd.SSHConnectionPort} }, []any{"/usr/local/bin/clixon_netconf", uint16(22)}, nil},
		{"the daemon's subsystem", nil, func(s *settings.Call) any { return []any{s.Sshd.Subsystem, s.Sshd.SSHConnectionPort} }, []any{"/old-subsystem", uint16(830)}, nil},
		{"device id", []edit{{inSSH + "callhome:device-id", `"d1"`}}, func(s *settings.Call) any { return []any{s.Announce, s.DeviceID, s.Sshd.VersionAddendum} }, []any{false, "d1", "d1"}, nil},
		{"announced", []edit{{inSSH + "callhome:device-id", `"d1"`}, {inSSH + "callhome:announce", `true`}}, func(s *settings.Call) any { return []any{s.Announce, s.DeviceID, s.Sshd.VersionAddendum} }, []any{true, "d1", ""}, nil},
		{"the daemon's id", nil, func(s *settings.Call) any { return []any{s.Announce, s.DeviceID, s.Sshd.VersionAddendum} }, []any{false, "old-id", "old-id"}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := endpoint(t, all, tt.edits...)
			b := base()
			s := e.Call(b, dir)
			if !reflect.DeepEqual(b, base()) {
				t.Error("the daemon's own settings have changed")
			}
			if tt.field != nil && !reflect.DeepEqual(tt.field(&s), tt.want) {
				t.Errorf("%v, want %v", tt.field(&s), tt.want)
			}
			want := append(slices.Clone(tt.options), "LoginGraceTime=60", "AllowUsers=root", "Banner=none")
			if got := s.Sshd.Options; !slices.Equal(sorted(got), sorted(want)) || got[len(got)-1] != "Banner=none" || got[len(got)-2] != "AllowUsers=root" {
				t.Errorf("options %q, want %q", got, want)
			}
			if err := s.Sshd.Check(); err != nil {
				t.Error(err)
			}
		})
	}
}

func sorted(s []string) []string {
	out := slices.Clone(s)
	slices.Sort(out)
	return out
}

func TestTheNoSSHTimerSetsLoginGraceTime(t *testing.T) {
	s := endpoint(t, all, edit{inClient + "callhome:re-call-home-no-ssh-timer", `0`}).Call(settings.Call{}, dir)
	if len(s.Sshd.Options) != 0 {
		t.Errorf("off, it makes %q", s.Sshd.Options)
	}
	c := parse(t, all, with(t, edit{inClient + "callhome:re-call-home-no-ssh-timer", `30`}))
	s = c.Clients[0].Endpoints[0].Call(settings.Call{}, dir)
	if !slices.Equal(s.Sshd.Options, []string{"LoginGraceTime=30"}) || c.Clients[0].NoSSHTimer != 30*time.Second {
		t.Errorf("%q, %v", s.Sshd.Options, c.Clients[0].NoSSHTimer)
	}
}

// Without ChannelTimeout in sshd, the manager applies the idle-timeout.
func TestOldSshdGetsNoNewOption(t *testing.T) {
	old := all
	old.ChannelTimeout = false
	c := parse(t, old, with(t, edit{inClient + "connection-type", `{"periodic": {}}`}))
	if e := c.Clients[0].Endpoints[0]; e.Idle != nil || c.Clients[0].Periodic.IdleTimeout != 180*time.Second {
		t.Errorf("%v, %v", e.Idle, c.Clients[0].Periodic)
	}
}

// A persistent connection always has keepalives, and every sshd detects a dead peer
// within the limit.
func TestADeadPeerIsDetectedWithinTheLimit(t *testing.T) {
	slow := all
	slow.SlowClientAlive = true
	s := func(n int) time.Duration { return time.Duration(n) * time.Second }
	alive := func(wait, attempts string) edit {
		return edit{inSSH + "keepalives", `{"max-wait": ` + wait + `, "max-attempts": ` + attempts + `}`}
	}
	tcp := edit{inTCP + "keepalives", `{"idle-time": 10, "max-probes": 3, "probe-interval": 5}`}
	longTCP := edit{inTCP + "keepalives", `{}`}
	periodic := edit{inClient + "connection-type", `{"periodic": {}}`}
	for _, tt := range []struct {
		name    string
		f       Features
		edits   []edit
		ssh     *sshdexec.KeepAlive
		tcp     *KeepAlive
		timeout time.Duration
	}{
		{"persistent, nothing said", all, nil, &sshdexec.KeepAlive{Interval: 30, CountMax: 3}, &KeepAlive{s(30), s(10), 9}, s(121)},
		{"the same where sshd is slow", slow, nil, &sshdexec.KeepAlive{Interval: 15, CountMax: 3}, &KeepAlive{s(30), s(10), 9}, s(121)},
		{"periodic, nothing said", all, []edit{periodic}, nil, nil, 0},
		{"periodic", all, []edit{periodic, alive("10", "2")}, &sshdexec.KeepAlive{Interval: 10, CountMax: 2}, &KeepAlive{s(10), s(3), 7}, s(31)},
		{"periodic, TCP alone", all, []edit{periodic, tcp}, nil, &KeepAlive{s(10), s(5), 3}, s(25)},
		{"odd, where sshd is slow", slow, []edit{alive("5", "1")}, &sshdexec.KeepAlive{Interval: 2, CountMax: 1}, &KeepAlive{s(5), s(1), 6}, s(11)},
		{"a second, where sshd is slow", slow, []edit{alive("1", "3")}, &sshdexec.KeepAlive{Interval: 1, CountMax: 1}, &KeepAlive{s(1), s(1), 4}, s(5)},
		{"the shortest, where the kernel must be first", slow, []edit{alive("1", "1")}, &sshdexec.KeepAlive{Interval: 1, CountMax: 1}, &KeepAlive{s(1), s(1), 2}, s(1)},
		{"TCP's own are shorter", all, []edit{tcp}, &sshdexec.KeepAlive{Interval: 30, CountMax: 3}, &KeepAlive{s(10), s(5), 3}, s(25)},
		{"TCP's own are longer", all, []edit{longTCP}, &sshdexec.KeepAlive{Interval: 30, CountMax: 3}, &KeepAlive{s(7200), s(75), 9}, s(121)},
		{"the longest", all, []edit{alive("65535", "255")}, &sshdexec.KeepAlive{Interval: 65535, CountMax: 255}, &KeepAlive{s(32767), s(21845), 127}, 24 * time.Hour},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := endpoint(t, tt.f, tt.edits...)
			if !reflect.DeepEqual(e.ClientAlive, tt.ssh) || !reflect.DeepEqual(e.TCP, tt.tcp) || e.UserTimeout != tt.timeout {
				t.Errorf("SSH %+v, TCP %+v, user timeout %v; want %+v, %+v, %v", e.ClientAlive, e.TCP, e.UserTimeout, tt.ssh, tt.tcp, tt.timeout)
			}
			got := e.Call(base(), dir)
			if tt.tcp == nil {
				if got.Dial.KeepAlive != base().Dial.KeepAlive || got.Dial.UserTimeout != base().Dial.UserTimeout {
					t.Errorf("%+v, want the daemon's", got.Dial)
				}
				return
			}
			if want := (dial.KeepAlive{Idle: seconds(tt.tcp.Idle), Interval: seconds(tt.tcp.Interval), Count: tt.tcp.Count}); got.Dial.KeepAlive != want || got.Dial.UserTimeout != tt.timeout {
				t.Errorf("%+v, want %+v", got.Dial, want)
			}
			if e.SSH == nil {
				return
			}
			// The longest time of sshd or the kernel, against the documented limit.
			bound := e.SSH.Interval*time.Duration(e.SSH.Count+1) + time.Second
			sshd := secondsOf(e.ClientAlive.Interval * (e.ClientAlive.CountMax + 1))
			if tt.f.SlowClientAlive {
				sshd *= 2
			}
			if kernel := 2*e.UserTimeout + e.TCP.Interval; min(sshd, kernel) > bound {
				t.Errorf("sshd needs %v, the kernel %v, the limit is %v", sshd, kernel, bound)
			}
		})
	}
}

// The files have the modes and the contents that sshd needs.
func TestFilesAreReadableForSshd(t *testing.T) {
	ed, ed2 := wire(edKey.Public()), wire(edKey2.Public())
	e := endpoint(t, all,
		edit{inPair, `{"private-key-format": "ietf-crypto-types:one-asymmetric-key-format", "cleartext-private-key": ` + b64(pkcs8(edKey)) + `, "public-key-format": "ietf-crypto-types:ssh-public-key-format", "public-key": ` + b64(certificate(t, ssh.HostCert)) + `}`},
		edit{inSSH + "client-authentication", `{"users": {"user": [` + user("netconf", ed2) + `, {"name": "bycert"}]}, "callhome:user-ca-keys": {"inline-definition": {"public-key": [` + publicKeyEntry("ca key\"", ed) + `]}}}`},
		edit{inTCP + "proxy-server", `{"socks5-parameters": {"remote-address": "p.example", "authentication-parameters": {"username-password": {"username": "u", "cleartext-password": "a:b"}}}}`},
	)
	d := e.Dir(dir)
	if len(d) != len(dir)+1+32 || strings.Contains(d, "e1") {
		t.Errorf("directory %s", d)
	}
	text := make(map[string]string)
	var names []string
	for _, f := range e.Files(dir) {
		name := strings.TrimPrefix(f.Path, d+"/")
		names = append(names, name+" "+f.Mode.String())
		text[name] = string(f.Data)
	}
	if want := []string{"host_key_0 -rw-------", "host_key_0-cert.pub -rw-r--r--", "keys/netconf -rw-r--r--", "principals/netconf -rw-r--r--", "keys/bycert -rw-r--r--", "principals/bycert -rw-r--r--", "user_ca -rw-r--r--", "proxy -rw-------"}; !slices.Equal(names, want) {
		t.Errorf("%q, want %q", names, want)
	}
	key, err := ssh.ParseRawPrivateKey([]byte(text["host_key_0"]))
	if err != nil || !strings.HasPrefix(text["host_key_0"], "-----BEGIN OPENSSH PRIVATE KEY-----\n") {
		t.Errorf("host key: %v\n%.60s", err, text["host_key_0"])
	} else if signer := must(ssh.NewSignerFromKey(key)); string(signer.PublicKey().Marshal()) != string(ed) {
		t.Error("the host key is another one")
	}
	line := func(name string, blob []byte, comment string) {
		k, c, options, rest, err := ssh.ParseAuthorizedKey([]byte(text[name]))
		if err != nil || string(k.Marshal()) != string(blob) || c != comment || len(options) > 0 || len(rest) > 0 {
			t.Errorf("%s: %q, %v", name, text[name], err)
		}
	}
	line("keys/netconf", ed2, "k")
	line("user_ca", ed, "ca_key_")
	if text["keys/bycert"] != "" || text["proxy"] != "u:a:b\n" || text["principals/bycert"] != "bycert\n" {
		t.Errorf("%q", text)
	}
	if cert, _, _, _, err := ssh.ParseAuthorizedKey([]byte(text["host_key_0-cert.pub"])); err != nil || cert.Type() != ssh.CertAlgoED25519v01 {
		t.Errorf("certificate: %v", err)
	}
}

// A name of the document is on disk only as a digest, and no two endpoints share a
// directory.
func TestEndpointsHaveDirectoriesOfTheirOwn(t *testing.T) {
	seen := make(map[string]string)
	for _, pair := range [][2]string{{"a", "b"}, {"a\"b", ""}, {"a", "\"b"}, {"ab", ""}, {"", "ab"}, {"../x", "%u"}, {"a/b", "c"}, {"a", "b/c"}} {
		e := Endpoint{Client: pair[0], Name: pair[1]}
		d := e.Dir(dir)
		if other, twice := seen[d]; twice {
			t.Errorf("%q and %s have the same", pair, other)
		}
		seen[d] = strings.Join(pair[:], "|")
		if rest := strings.TrimPrefix(d, dir+"/"); strings.ContainsFunc(rest, notAlphanumeric) {
			t.Errorf("%q: %s", pair, d)
		}
	}
}
