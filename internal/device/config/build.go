package config

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"callhome/internal/device/settings"
	"callhome/internal/sshdexec"
)

// Parse reads a document: an RFC 7951 instance of ietf-netconf-server's call-home
// subtree with the keystore and the truststore that it refers to. f is the sshd
// that must support it. With any fault there is no Config, and Errors has the
// faults in the order of the lines, up to maxFaults.
func Parse(doc []byte, f Features, d Defaults) (*Config, Errors) {
	root, fault := read(doc)
	if fault != nil {
		return nil, Errors{*fault}
	}
	var w walker
	w.node(root, schema(), "")
	b := &builder{walker: w, features: f, keyDir: cmp.Or(d.KeyDir, DefaultKeyDir), used: make(map[*node]bool)}
	b.keystore = index(root.child("ietf-keystore:keystore", "asymmetric-keys"), "asymmetric-key")
	b.truststore = index(root.child("ietf-truststore:truststore", "public-key-bags"), "public-key-bag")
	c := &Config{}
	for _, n := range root.child("ietf-netconf-server:netconf-server", "call-home").list("netconf-client") {
		c.Clients = append(c.Clients, b.client(n))
	}
	b.setAside(root.child("ietf-keystore:keystore", "asymmetric-keys").list("asymmetric-key"))
	b.setAside(root.child("ietf-truststore:truststore", "public-key-bags").list("public-key-bag"))
	if len(b.errs) > 0 {
		return nil, b.inOrder()
	}
	c.Warnings = b.allWarnings()
	return c, nil
}

// setAside turns the faults of entries that no SSH endpoint uses into warnings: a
// keystore has keys of other servers, too.
func (b *builder) setAside(entries []*node) {
	for _, n := range entries {
		if b.used[n] {
			continue
		}
		b.errs = slices.DeleteFunc(b.errs, func(e Error) bool {
			if e.Path != n.path && !strings.HasPrefix(e.Path, n.path+"/") {
				return false
			}
			b.warn(e.Path, e.Line, "not used by an endpoint: "+e.Message)
			return true
		})
	}
}

// allWarnings returns the warnings by line, the annotations as one.
func (b *builder) allWarnings() Errors {
	if b.annotations > 0 {
		b.warn(b.first.Path, b.first.Line, fmt.Sprintf("metadata (RFC 7952) is skipped, here and in %d other places", b.annotations-1))
	}
	slices.SortStableFunc(b.warnings, func(x, y Error) int { return x.Line - y.Line })
	return b.warnings
}

// index returns the entries of the list by name.
func index(n *node, name string) map[string]*node {
	out := make(map[string]*node)
	for _, entry := range n.list(name) {
		out[entry.str("name")] = entry
	}
	delete(out, "")
	return out
}

// builder turns the checked tree into a Config and checks what depends on several
// leaves. A leaf with a fault has a zero value, and must not cause a second fault.
type builder struct {
	walker
	features             Features
	keyDir               string
	keystore, truststore map[string]*node
	used                 map[*node]bool // the entries that an endpoint refers to
}

func (b *builder) fail(n *node, format string, args ...any) {
	b.walker.fail(n.path, n.line, format, args...)
}

// inOrder returns the faults by line. A fault of a node that several references
// share is reported once.
func (b *builder) inOrder() Errors {
	slices.SortStableFunc(b.errs, func(x, y Error) int { return x.Line - y.Line })
	var out Errors
	seen := make(map[Error]bool)
	for _, e := range b.errs {
		if e.Path == "" {
			e.Path = "/"
		}
		if !seen[e] {
			out = append(out, e)
		}
		seen[e] = true
	}
	if b.more > 0 {
		out = append(out, Error{"/", out[len(out)-1].Line, fmt.Sprintf("further faults: %d", b.more)})
	}
	return out
}

func (b *builder) client(n *node) Client {
	reconnect, backoff := n.child("reconnect-strategy"), n.child("callhome:backoff")
	c := Client{
		Name:    n.str("name"),
		Enabled: n.is("callhome:enabled"),
		Reconnect: Reconnect{
			StartWith:   StartWith(reconnect.str("start-with")),
			MaxWait:     secondsOf(reconnect.num("max-wait")),
			MaxAttempts: reconnect.num("max-attempts"),
		},
		Backoff: Backoff{
			Initial: time.Duration(backoff.num("initial")) * time.Millisecond,
			Maximum: time.Duration(backoff.num("maximum")) * time.Millisecond,
			Jitter:  backoff.num("jitter"),
		},
		NoSSHTimer:          secondsOf(n.num("callhome:re-call-home-no-ssh-timer")),
		MaxCallHomeAttempts: optional(n.child("callhome:max-call-home-attempts")),
		Hook:                n.str("callhome:hook"),
	}
	if c.Backoff.Maximum != 0 && c.Backoff.Initial > c.Backoff.Maximum {
		b.fail(backoff, "initial, %v, is longer than maximum, %v", c.Backoff.Initial, c.Backoff.Maximum)
	}
	if p := n.child("connection-type", "periodic"); p != nil {
		c.Periodic = &Periodic{
			Period:      time.Duration(p.num("period")) * time.Minute,
			Anchor:      as[time.Time](p.child("anchor-time")),
			IdleTimeout: secondsOf(p.num("idle-timeout")),
		}
	}
	endpoints := n.child("endpoints").list("endpoint")
	for _, e := range endpoints {
		if e.child("tls") == nil { // else the walker has warned
			c.Endpoints = append(c.Endpoints, b.endpoint(e, &c))
		}
	}
	if len(endpoints) > 0 && len(c.Endpoints) == 0 {
		b.fail(n.child("endpoints"), "the client has only endpoints with tls, and OpenSSH has no TLS: add one with ssh")
	}
	return c
}

// optional returns the number of a leaf without a default; nil: it is missing.
func optional(n *node) *int {
	if n == nil {
		return nil
	}
	v := as[int](n)
	return &v
}

func secondsOf(n int) time.Duration { return time.Duration(n) * time.Second }

func (b *builder) endpoint(n *node, c *Client) Endpoint {
	e := Endpoint{Name: n.str("name"), Client: c.Name, ConnectTimeout: c.Reconnect.MaxWait, LoginGrace: c.NoSSHTimer}
	tcp, ssh := n.child("ssh", "tcp-client-parameters"), n.child("ssh", "ssh-server-parameters")
	if tcp == nil || ssh == nil {
		return e // another transport: reported already
	}
	b.tcp(&e, tcp)
	e.HostKeys = b.hostKeys(ssh.child("server-identity"))
	b.users(&e, ssh.child("client-authentication"))
	e.Algorithms = b.algorithms(ssh.child("transport-params"))
	b.keepalives(&e, tcp.child("keepalives"), ssh.child("keepalives"), c.Periodic == nil)
	if c.Periodic != nil && c.Periodic.IdleTimeout > 0 && b.features.ChannelTimeout {
		e.Idle = &Idle{Session: c.Periodic.IdleTimeout, Unused: min(c.Periodic.IdleTimeout, unusedTimeout)}
	}
	b.announce(&e, ssh)
	b.netconf(&e, n.child("ssh", "netconf-server-parameters"))
	// The schema is not trusted alone: every option is checked again before it
	// reaches sshd's command line.
	for _, o := range e.options("/") {
		if err := sshdexec.CheckOption(o); err != nil {
			b.fail(ssh, "%v", err)
		}
	}
	return e
}

// unusedTimeout limits a connection without a session. sshd closes only the idle
// session; without this limit the client could hold the connection for ever.
const unusedTimeout = 10 * time.Second

func (b *builder) tcp(e *Endpoint, n *node) {
	e.Host, e.Port = n.str("remote-address"), uint16(n.num("remote-port"))
	// In the model the unspecified address means any address.
	if a := as[netip.Addr](n.child("local-address")); a.IsValid() && !a.Unmap().IsUnspecified() {
		e.LocalAddress = a
	}
	e.LocalPort = uint16(n.num("local-port"))
	e.Interface = n.str("callhome:interface")
	e.DSCP = optional(n.child("callhome:dscp"))
	next, at := e.Host, n.child("remote-address")
	if p := n.child("proxy-server"); p != nil {
		e.Proxy = b.proxy(p, e.Host)
	}
	if e.Proxy != nil {
		next, at = e.Proxy.Host, n.child("proxy-server")
	}
	to, err := netip.ParseAddr(next)
	if err != nil {
		return
	}
	switch to = to.Unmap(); {
	case e.LocalAddress.IsValid() && e.LocalAddress.Unmap().Is4() != to.Is4():
		b.fail(n.child("local-address"), "%v and %v are not of one family", e.LocalAddress, to)
	case to.Is6() && to.IsLinkLocalUnicast() && to.Zone() == "" && e.Interface == "":
		b.fail(at, "%v is a link-local address: add its zone, as in %v%%eth0, or callhome:interface", to, to)
	}
}

// proxies are the cases of proxy-type, with the targets that each can reach.
var proxies = []struct {
	node, scheme string
	names, ip6   bool
	instead      string
}{
	{"socks4-parameters", "socks4", false, false, "SOCKS4 carries only IPv4 addresses: use socks5-parameters, or socks4a-parameters for a name"},
	{"socks4a-parameters", "socks4a", true, false, "SOCKS4a carries no IPv6 addresses: use socks5-parameters"},
	{"socks5-parameters", "socks5", true, true, ""},
}

// maxSocksField is the limit of RFC 1929's length bytes.
const maxSocksField = 255

func (b *builder) proxy(n *node, target string) *Proxy {
	for _, p := range proxies {
		in := n.child(p.node)
		if in == nil {
			continue
		}
		to, err := netip.ParseAddr(target)
		if target != "" && (err != nil && !p.names || err == nil && !to.Unmap().Is4() && !p.ip6) {
			b.fail(in, "the NETCONF client is %s, and %s", target, p.instead)
		}
		out := &Proxy{Scheme: p.scheme, Host: in.str("remote-address"), Port: uint16(in.num("remote-port"))}
		if a := in.child("remote-address"); a != nil && out.Host == "" {
			if out.Host = a.text; settings.CheckHost(a.text) != nil && a.value != nil {
				b.fail(a, "%s is not an address to connect to", quote(a.text))
			}
		}
		if auth := in.child("authentication-parameters", "username-password"); auth != nil {
			out.User, out.Password = auth.str("username"), auth.str("cleartext-password")
			if strings.Contains(out.User, ":") {
				b.fail(auth.child("username"), "the user name of a proxy must not have a colon")
			}
			if len(out.User) > maxSocksField || len(out.Password) > maxSocksField {
				b.fail(auth, "SOCKS5 allows at most %d bytes for a user name and for a password", maxSocksField)
			}
		}
		return out
	}
	return nil
}

func (b *builder) users(e *Endpoint, n *node) {
	cas := n.child("callhome:user-ca-keys")
	if cas != nil {
		var some bool
		if e.UserCAs, some = b.publicKeys(cas); !some && !cas.faulty {
			b.fail(cas, "it has no key")
		}
	}
	// "users": {} means no user; without users sshd_config decides.
	e.Restricted = n.child("users") != nil
	for _, u := range n.child("users").list("user") {
		one := User{Name: u.str("name")}
		some := false
		if keys := u.child("public-keys"); keys != nil {
			one.Keys, some = b.publicKeys(keys)
		}
		if !some && cas == nil && !u.faulty {
			b.fail(u, "the user has no way to log in: add public-keys, or callhome:user-ca-keys for all users")
		}
		e.Users = append(e.Users, one)
	}
}

// aliases are OpenSSH's names of algorithms that IANA registered under another name.
var aliases = map[string]string{
	"AEAD_AES_128_GCM":       "aes128-gcm@openssh.com",
	"AEAD_AES_256_GCM":       "aes256-gcm@openssh.com",
	"chacha20-poly1305":      "chacha20-poly1305@openssh.com",
	"curve25519-sha256":      "curve25519-sha256@libssh.org",
	"sntrup761x25519-sha512": "sntrup761x25519-sha512@openssh.com",
}

func (b *builder) algorithms(n *node) Algorithms {
	return Algorithms{
		HostKey: b.known(n.child("host-key", "host-key-alg"), "HostKeyAlgorithms", b.features.HostKeyAlgorithms),
		Kex:     b.known(n.child("key-exchange", "key-exchange-alg"), "KexAlgorithms", b.features.KexAlgorithms),
		Ciphers: b.known(n.child("encryption", "encryption-alg"), "Ciphers", b.features.Ciphers),
		MACs:    b.known(n.child("mac", "mac-alg"), "MACs", b.features.MACs),
	}
}

// known returns the leaf-list in OpenSSH's names. has are the algorithms that sshd
// supports, nil where that is unknown.
func (b *builder) known(n *node, option string, has []string) []string {
	var out []string
	if n == nil {
		return nil
	}
	for _, item := range n.items {
		name := as[string](item)
		alias := aliases[name]
		switch {
		case name == "":
			continue
		case option == "MACs" && strings.HasPrefix(name, "AEAD_"):
			b.fail(item, "in OpenSSH %s is a cipher without a separate MAC: list it under encryption only", name)
			continue
		case slices.Contains(has, name):
		case alias != "" && (has == nil || slices.Contains(has, alias)):
			name = alias
		case has != nil:
			b.fail(item, "%s of this machine does not support %s; its %s: %s", b.features.Version, name, option, strings.Join(has, ", "))
			continue
		}
		out = append(out, name)
	}
	return out
}

func (b *builder) announce(e *Endpoint, n *node) {
	e.DeviceID = n.str("callhome:device-id")
	a := n.child("callhome:announce")
	if a == nil {
		return
	}
	announce := as[bool](a)
	e.Announce = &announce
	if announce && n.child("callhome:device-id") == nil {
		b.fail(a, "the device is announced by its identifier: add callhome:device-id")
	}
}

func (b *builder) netconf(e *Endpoint, n *node) {
	if preset := n.str("callhome:netconf-server"); preset != "" {
		var err error
		if e.Subsystem, e.SSHConnectionPort, err = settings.Preset(preset); err != nil {
			b.fail(n.child("callhome:netconf-server"), "%v", err)
		}
	}
	if command := n.str("callhome:subsystem"); command != "" {
		e.Subsystem = command
	}
	if port := n.child("callhome:ssh-connection-port"); port != nil {
		e.SSHConnectionPort = uint16(as[int](port))
		if e.Subsystem == "" && n.child("callhome:subsystem") == nil {
			b.fail(port, "the port applies only to the endpoint's own subsystem: add callhome:subsystem or callhome:netconf-server")
		}
	}
}
