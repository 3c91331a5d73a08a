package config

import (
	"bytes"
	"callhome/internal/device/schedule"
	"crypto/x509"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

func TestClientsHaveTheDocumentsValues(t *testing.T) {
	c := parse(t, all, with(t))
	want := Client{
		Name: "nms", Enabled: true,
		Reconnect:  Reconnect{StartWith: FirstListed, MaxWait: 5 * time.Second, MaxAttempts: 3},
		Backoff:    Backoff(schedule.DefaultPause),
		NoSSHTimer: time.Minute,
	}
	got := c.Clients[0]
	if len(got.Endpoints) != 1 || got.Endpoints[0].Name != "e1" || got.Endpoints[0].Client != "nms" {
		t.Errorf("endpoints %+v", got.Endpoints)
	}
	if got.Endpoints = nil; !reflect.DeepEqual(got, want) {
		t.Errorf("\n%+v, want\n%+v", got, want)
	}

	c = parse(t, all, with(t,
		edit{inClient + "callhome:enabled", `false`},
		edit{inClient + "connection-type", `{"periodic": {"period": 1440, "anchor-time": "2026-01-31T00:15:00+02:00", "idle-timeout": 0}}`},
		edit{inClient + "reconnect-strategy", `{"start-with": "random-selection", "max-wait": 1, "max-attempts": 255}`},
		edit{inClient + "callhome:backoff", `{"initial": 1, "maximum": 86400000, "jitter": 0}`},
		edit{inClient + "callhome:re-call-home-no-ssh-timer", `0`},
		edit{inClient + "callhome:max-call-home-attempts", `20`},
		edit{inClient + "callhome:hook", `"/usr/local/bin/hook"`},
	))
	want = Client{
		Name:      "nms",
		Periodic:  &Periodic{Period: 24 * time.Hour, Anchor: time.Date(2026, 1, 30, 22, 15, 0, 0, time.UTC)},
		Reconnect: Reconnect{StartWith: RandomSelection, MaxWait: time.Second, MaxAttempts: 255},
		Backoff:   Backoff{Initial: time.Millisecond, Maximum: 24 * time.Hour}, MaxCallHomeAttempts: new(20),
		Hook: "/usr/local/bin/hook",
	}
	got = c.Clients[0]
	if got.Endpoints = nil; !reflect.DeepEqual(got, want) {
		t.Errorf("\n%+v, want\n%+v", got, want)
	}
}

// The order of clients, endpoints and keys is that of the document.
func TestOrderIsKept(t *testing.T) {
	doc := string(with(t))
	for _, name := range []string{"z", "y", "a", "x"} {
		doc = strings.Replace(doc, `"endpoint": [`, `"endpoint": [{"name": "`+name+`", "ssh": {"tcp-client-parameters": {"remote-address": "`+name+`.example"},
			"ssh-server-parameters": {"server-identity": {"host-key": [{"name": "`+name+`", "public-key": {"inline-definition": {"hidden-private-key": [null]}}}]}}}},`, 1)
	}
	var got []string
	for _, e := range parse(t, all, []byte(doc)).Clients[0].Endpoints {
		got = append(got, e.Name)
	}
	if strings.Join(got, " ") != "x a y z e1" {
		t.Error(got)
	}
}

// A reload restarts a client for every change that affects it, also elsewhere in the
// document, and for no other change.
func TestEqualSeesEveryChangeOfAClient(t *testing.T) {
	truststore := func(blob []byte) edit {
		return edit{"ietf-truststore:truststore", `{"public-key-bags": {"public-key-bag": [{"name": "bag", "public-key": [` + publicKeyEntry("k", blob) + `]}]}}`}
	}
	uses := edit{inSSH + "client-authentication/users", `{"user": [{"name": "u", "public-keys": {"central-truststore-reference": "bag"}}]}`}
	inline := edit{inPair, `{"private-key-format": "ietf-crypto-types:one-asymmetric-key-format", "cleartext-private-key": ` + b64(pkcs8(edKey)) + `}`}
	first := func(edits ...edit) Client {
		return parse(t, all, with(t, append([]edit{truststore(wire(edKey.Public())), uses, inline}, edits...)...)).Clients[0]
	}
	was := first()
	for name, edits := range map[string][]edit{
		"nothing":           nil,
		"a default written": {{inTCP + "remote-port", `4334`}, {inClient + "callhome:enabled", `true`}, {inClient + "reconnect-strategy", `{}`}},
		"another key":       {{"ietf-keystore:keystore/asymmetric-keys/asymmetric-key", `[{"name": "k", "hidden-private-key": [null]}]`}},
		"the white space":   {{inClient + "endpoints/endpoint/0/ssh/netconf-server-parameters", `{}`}},
	} {
		if !was.Equal(first(edits...)) {
			t.Errorf("%s made another client", name)
		}
	}
	for name, edits := range map[string][]edit{
		"enabled":             {{inClient + "callhome:enabled", `false`}},
		"port":                {{inTCP + "remote-port", `4335`}},
		"max-wait":            {{inClient + "reconnect-strategy/max-wait", `6`}},
		"backoff":             {{inClient + "callhome:backoff/jitter", `26`}},
		"connection type":     {{inClient + "connection-type", `{"periodic": {}}`}},
		"DSCP of 0":           {{inTCP + "callhome:dscp", `0`}},
		"announce":            {{inSSH + "callhome:announce", `false`}},
		"hook":                {{inClient + "callhome:hook", `"/h"`}},
		"the truststore's":    {truststore(wire(edKey2.Public()))},
		"the private key":     {{inPair + "cleartext-private-key", b64(pkcs8(edKey2))}},
		"another endpoint":    {{inClient + "endpoints/endpoint", `[` + string(marshal(t, with(t, inline), inEnd)) + `,` + strings.Replace(string(marshal(t, with(t, inline), inEnd)), "e1", "e2", 1) + `]`}},
		"the endpoint's name": {{inEnd + "name", `"e2"`}},
	} {
		if was.Equal(first(edits...)) {
			t.Errorf("%s made no other client", name)
		}
	}
}

// A private key in each format of the models becomes a file that sshd reads.
func TestPrivateKeysOfAllFormatsAreReadable(t *testing.T) {
	for _, tt := range []struct {
		name, format string
		der          []byte
		public       any
	}{
		{"RSA", "rsa-private-key-format", x509.MarshalPKCS1PrivateKey(rsaKey()), rsaKey().Public()},
		{"RSA in PKCS 8", "one-asymmetric-key-format", pkcs8(rsaKey()), rsaKey().Public()},
		{"ECDSA", "ec-private-key-format", must(x509.MarshalECPrivateKey(ecKey())), ecKey().Public()},
		{"ECDSA in PKCS 8", "one-asymmetric-key-format", pkcs8(ecKey()), ecKey().Public()},
		{"Ed25519", "one-asymmetric-key-format", pkcs8(edKey), edKey.Public()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := endpoint(t, all, edit{inPair, `{"private-key-format": "ietf-crypto-types:` + tt.format + `", "cleartext-private-key": ` + b64(tt.der) +
				`, "public-key-format": "ietf-crypto-types:ssh-public-key-format", "public-key": ` + b64(wire(tt.public)) + `}`})
			signer, err := ssh.ParsePrivateKey(e.Files(dir)[0].Data)
			if err != nil || !bytes.Equal(signer.PublicKey().Marshal(), wire(tt.public)) {
				t.Errorf("%v: %v", signer, err)
			}
		})
	}
}

// A message about a private key or a password does not quote it.
func TestMessagesQuoteNoSecret(t *testing.T) {
	secret := append([]byte("sesame"), pkcs8(edKey)...)
	for _, format := range []string{"rsa-private-key-format", "ec-private-key-format", "one-asymmetric-key-format"} {
		_, errs := Parse(with(t, edit{inPair, `{"private-key-format": "ietf-crypto-types:` + format + `", "cleartext-private-key": ` + b64(secret) + `}`}), all, Defaults{})
		if len(errs) != 1 || strings.Contains(errs.Error(), "sesame") || strings.Contains(errs.Error(), strings.Trim(b64(secret), `"`)[:8]) {
			t.Error(errs)
		}
	}
	for _, password := range []string{`"sesame\n"`, `{"sesame": 1}`, `["sesame"]`, `1726354`} {
		_, errs := Parse(with(t, edit{inTCP + "proxy-server", `{"socks5-parameters": {"remote-address": "p.example", "authentication-parameters": {"username-password": {"username": "u", "cleartext-password": ` + password + `}}}}`}), all, Defaults{})
		if len(errs) != 1 || strings.Contains(errs.Error(), "sesame") || strings.Contains(errs.Error(), "1726354") {
			t.Error(errs)
		}
	}
}

func TestHostKeysAreInTheKeyDirectory(t *testing.T) {
	c, errs := Parse(with(t), all, Defaults{KeyDir: "/etc/callhome/keys"})
	if len(errs) > 0 || c.Clients[0].Endpoints[0].HostKeys[0].Path != "/etc/callhome/keys/hk" {
		t.Error(errs, c)
	}
}

// Without knowledge of sshd's abilities every algorithm is accepted.
func TestAnUnknownSshdAcceptsEveryAlgorithm(t *testing.T) {
	e := endpoint(t, Features{}, edit{inSSH + "transport-params", `{"encryption": {"encryption-alg": ["AEAD_AES_128_GCM", "3des-cbc"]}, "mac": {"mac-alg": ["x@y"]}}`})
	if want := (Algorithms{Ciphers: []string{"aes128-gcm@openssh.com", "3des-cbc"}, MACs: []string{"x@y"}}); !reflect.DeepEqual(e.Algorithms, want) {
		t.Errorf("%+v, want %+v", e.Algorithms, want)
	}
}

func TestInitMakesAValidDocument(t *testing.T) {
	line := "ssh-ed25519 " + strings.Trim(b64(wire(edKey.Public())), `"`) + " me@noc"
	for name, o := range map[string]InitOptions{
		"one":  {Stations: []string{"nms.example"}, HostKeys: []string{"ssh_host_ed25519_key"}},
		"all":  {Stations: []string{"nms.example:99", "[2001:db8::1]:830", "192.0.2.1"}, HostKeys: []string{"ssh_host_ed25519_key", "ssh_host_rsa_key"}, Users: []User{{"netconf", []string{line, line}}}, Preset: "yuma"},
		"each": {Stations: []string{"a.example", "b.example:99"}, Each: true, HostKeys: []string{"k"}},
		"zone": {Stations: []string{"fe80::1%eth0"}, HostKeys: []string{"k"}},
	} {
		t.Run(name, func(t *testing.T) {
			doc, err := Init(o)
			if err != nil {
				t.Fatal(err)
			}
			c := parse(t, all, doc).Clients
			clients, endpoints := 1, len(o.Stations)
			if o.Each {
				clients, endpoints = endpoints, clients
			}
			if len(c) != clients || len(c[0].Endpoints) != endpoints || len(c[0].Endpoints[0].HostKeys) != len(o.HostKeys) || len(c[0].Endpoints[0].Users) != len(o.Users) || c[0].Periodic != nil {
				t.Errorf("%+v\n%s", c, doc)
			}
			if o.Each && (c[1].Name != "b.example:99" || c[1].Endpoints[0].Host != "b.example" || c[1].Endpoints[0].Port != 99) {
				t.Errorf("the second: %+v", c[1])
			}
			if name == "all" {
				e := c[0].Endpoints
				if e[0].Host != "nms.example" || e[0].Port != 99 || e[1].Host != "2001:db8::1" || e[1].Port != 830 || e[2].Port != 4334 || e[2].Subsystem == "" || len(e[0].Users[0].Keys) != 2 {
					t.Errorf("%+v", e)
				}
			}
			needYanglint(t)
			if out, err := yanglint(t, doc); err != nil {
				t.Error(out)
			}
		})
	}
	for name, tt := range map[string]struct {
		o    InitOptions
		says string
	}{
		"no station":   {InitOptions{HostKeys: []string{"k"}}, "no NETCONF client is given"},
		"no key":       {InitOptions{Stations: []string{"n"}}, "this machine has no host key"},
		"no host":      {InitOptions{Stations: []string{"-n"}, HostKeys: []string{"k"}}, `host "-n" is neither`},
		"bad key name": {InitOptions{Stations: []string{"n"}, HostKeys: []string{"../k"}}, "is not a file name in the key directory"},
		"bad user":     {InitOptions{Stations: []string{"n"}, HostKeys: []string{"k"}, Users: []User{{"a b", []string{line}}}}, "is not a user name"},
		"bad key line": {InitOptions{Stations: []string{"n"}, HostKeys: []string{"k"}, Users: []User{{"u", []string{"sesame"}}}}, "key 1 of user \"u\" is not a line"},
		"keyless user": {InitOptions{Stations: []string{"n"}, HostKeys: []string{"k"}, Users: []User{{"u", nil}}}, "no way to log in"},
		"no preset":    {InitOptions{Stations: []string{"n"}, HostKeys: []string{"k"}, Preset: "x"}, "expected one of yuma"},
		"duplicate":    {InitOptions{Stations: []string{"n", "n"}, HostKeys: []string{"k"}}, "duplicate name"},
	} {
		if _, err := Init(tt.o); err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, want %s", name, err, tt.says)
		}
	}
}
