package settings

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"callhome/internal/proto"
)

func TestParseTarget(t *testing.T) {
	for _, tt := range []struct {
		name string
		args []string
		want Target
	}{
		{"a name alone", []string{"nms.example.net"}, Target{Host: "nms.example.net"}},
		{"a name with the dot of the root", []string{"nms.example.net."}, Target{Host: "nms.example.net."}},
		{"a name with an underscore", []string{"nms_1"}, Target{Host: "nms_1"}},
		{"all letters and digits", []string{"azAZ09.z-9"}, Target{Host: "azAZ09.z-9"}},
		{"a label of 63 characters", []string{strings.Repeat("a", 63)}, Target{Host: strings.Repeat("a", 63)}},
		{"a name of 253 characters", []string{strings.Repeat("a.", 126) + "a"}, Target{Host: strings.Repeat("a.", 126) + "a"}},
		{"a zone that is an index", []string{"fe80::1%25"}, Target{Host: "fe80::1%25"}},
		{"a zone of 15 characters", []string{"fe80::1%" + strings.Repeat("e", 15)}, Target{Host: "fe80::1%" + strings.Repeat("e", 15)}},
		{"a port of nines", []string{"nms", "999"}, Target{Host: "nms", Port: 999}},
		{"a name that begins with a digit", []string{"3com.example"}, Target{Host: "3com.example"}},
		{"a host and its port", []string{"nms", "4335"}, Target{Host: "nms", Port: 4335}},
		{"all three arguments", []string{"nms", "4335", "site 7"}, Target{Host: "nms", Port: 4335, Opaque: "site 7"}},
		{"the port by its IANA name", []string{"nms", "netconf-ch-ssh"}, Target{Host: "nms", Port: 4334}},
		{"host and port in one argument", []string{"nms:4335"}, Target{Host: "nms", Port: 4335}},
		{"host:port and the opaque data", []string{"nms:4335", "site"}, Target{Host: "nms", Port: 4335, Opaque: "site"}},
		{"an IPv4 address", []string{"192.0.2.1"}, Target{Host: "192.0.2.1"}},
		{"an IPv4 address and port in one argument", []string{"192.0.2.1:4335"}, Target{Host: "192.0.2.1", Port: 4335}},
		{"a bare IPv6 address", []string{"2001:db8::1"}, Target{Host: "2001:db8::1"}},
		{"a bare IPv6 address and a port", []string{"2001:db8::1", "4335"}, Target{Host: "2001:db8::1", Port: 4335}},
		{"an IPv6 address whose end could be a port", []string{"2001:db8::4335"}, Target{Host: "2001:db8::4335"}},
		{"an IPv6 address in brackets", []string{"[2001:db8::1]"}, Target{Host: "2001:db8::1"}},
		{"an IPv6 address in brackets with a port", []string{"[2001:db8::1]:4335"}, Target{Host: "2001:db8::1", Port: 4335}},
		{"an IPv6 address in brackets and a port as an argument", []string{"[2001:db8::1]", "4335"}, Target{Host: "2001:db8::1", Port: 4335}},
		{"an IPv6 address with a zone", []string{"fe80::1%eth0.7"}, Target{Host: "fe80::1%eth0.7"}},
		{"an IPv6 address with a zone in brackets", []string{"[fe80::1%eth0]:4335"}, Target{Host: "fe80::1%eth0", Port: 4335}},
		{"the smallest port", []string{"nms", "1"}, Target{Host: "nms", Port: 1}},
		{"the largest port", []string{"nms:65535"}, Target{Host: "nms", Port: 65535}},
		{"a port with zeros before it", []string{"nms", "0830"}, Target{Host: "nms", Port: 830}},
		{"opaque data of any bytes", []string{"nms", "1", "-o\n\"$(x)\xff"}, Target{Host: "nms", Port: 1, Opaque: "-o\n\"$(x)\xff"}},
		{"an opaque number behind host and port", []string{"nms", "1", "7"}, Target{Host: "nms", Port: 1, Opaque: "7"}},
		{"opaque data of full length", []string{"nms", "1", strings.Repeat("x", proto.MaxOpaque)}, Target{Host: "nms", Port: 1, Opaque: strings.Repeat("x", proto.MaxOpaque)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseTarget(tt.args)
			if err != nil || got != tt.want {
				t.Errorf("ParseTarget(%q) = %+v, %v, want %+v", tt.args, got, err, tt.want)
			}
		})
	}
}

func TestParseTargetRefuses(t *testing.T) {
	for _, tt := range []struct {
		name string
		args []string
		says string // the whole message
	}{
		{"no arguments", nil, `no HOST given; expected HOST [PORT [OPAQUE]]`},
		{"an empty host", []string{""}, `HOST is empty; expected a name or an IP address`},
		{"an empty host before a port", []string{":4334"}, `host "": a name has 1 to 253 characters`},
		{"an option for a host", []string{"-oProxyCommand=x"}, `host "-oProxyCommand=x" is neither a name nor an IP address`},
		{"a host with a space", []string{"nms 4334"}, `host "nms 4334" is neither a name nor an IP address`},
		{"a host with a newline", []string{"nms\n"}, `host "nms\n" is neither a name nor an IP address`},
		{"a host with a command substitution", []string{"$(id)"}, `host "$(id)" is neither a name nor an IP address`},
		{"a host with a user", []string{"root@nms"}, `host "root@nms" is neither a name nor an IP address`},
		{"a host with letters beyond ASCII", []string{"nms.exämple"}, `host "nms.exämple" is neither a name nor an IP address`},
		{"two dots in a row", []string{"nms..net"}, `host "nms..net" is neither a name nor an IP address`},
		{"a label that ends with a dash", []string{"nms-.net"}, `host "nms-.net" is neither a name nor an IP address`},
		{"a label of 64 characters", []string{strings.Repeat("a", 64)}, `host "` + strings.Repeat("a", 64) + `" is neither a name nor an IP address`},
		{"a name of 254 characters", []string{strings.Repeat("a.", 126) + "aa"}, `host "` + strings.Repeat("a.", 126) + `aa": a name has 1 to 253 characters`},
		{"an IPv4 address with a byte too large", []string{"192.0.2.256"}, `host "192.0.2.256" looks like an IPv4 address but is not valid`},
		{"an IPv4 address of old", []string{"127.1"}, `host "127.1" looks like an IPv4 address but is not valid`},
		{"a number", []string{"4334"}, `host "4334" looks like an IPv4 address but is not valid`},
		{"arguments in the wrong order", []string{"4334", "nms"}, `host "4334" looks like an IPv4 address but is not valid`},
		{"no IPv6 address", []string{"2001:db8:::1"}, `host "2001:db8:::1" is not an IPv6 address`},
		{"an open bracket", []string{"[2001:db8::1"}, `host "[2001:db8::1" has no closing bracket; expected [IPV6] or [IPV6]:PORT`},
		{"a name in brackets", []string{"[nms]"}, `host "[nms]": only an IPv6 address can be in brackets`},
		{"an IPv4 address in brackets", []string{"[192.0.2.1]:1"}, `host "[192.0.2.1]:1": only an IPv6 address can be in brackets`},
		{"something else behind the bracket", []string{"[2001:db8::1]4334"}, `host "[2001:db8::1]4334": expected nothing or :PORT after the bracket`},
		{"no port behind the colon", []string{"nms:"}, `port "" is not a number from 1 to 65535`},
		{"no port behind bracket and colon", []string{"[2001:db8::1]:"}, `port "" is not a number from 1 to 65535`},
		{"the unspecified IPv4 address", []string{"0.0.0.0"}, `host "0.0.0.0" is the unspecified address; expected the NETCONF client's own`},
		{"the unspecified IPv6 address", []string{"::"}, `host "::" is the unspecified address; expected the NETCONF client's own`},
		{"the unspecified IPv4 address mapped to IPv6", []string{"::ffff:0.0.0.0"}, `host "::ffff:0.0.0.0" is the unspecified address; expected the NETCONF client's own`},
		{"an IPv4 multicast address", []string{"224.0.0.1"}, `host "224.0.0.1" is a multicast address; a call home goes to one NETCONF client`},
		{"an IPv6 multicast address", []string{"ff02::1%eth0"}, `host "ff02::1%eth0" is a multicast address; a call home goes to one NETCONF client`},
		{"a zone that is no interface name", []string{"fe80::1%eth0;x"}, `host "fe80::1%eth0;x": the zone is not an interface name`},
		{"a zone as in a URL", []string{"[fe80::1%25eth0]:4335"}, `the zone of fe80::1%25eth0 is written as in a URL: write fe80::1%eth0`},
		{"a zone of 16 characters", []string{"fe80::1%" + strings.Repeat("e", 16)}, `host "fe80::1%eeeeeeeeeeeeeeee": the zone is not an interface name`},
		{"port 0", []string{"nms", "0"}, `port "0" is not a number from 1 to 65535`},
		{"port 65536", []string{"nms", "65536"}, `port "65536" is not a number from 1 to 65535`},
		{"a negative port", []string{"nms", "-1"}, `port "-1" is not a number from 1 to 65535; options come before HOST`},
		{"a port with a plus", []string{"nms", "+830"}, `port "+830" is not a number from 1 to 65535`},
		{"a port with a space", []string{"nms", " 830"}, `port " 830" is not a number from 1 to 65535`},
		{"a port with an underscore", []string{"nms", "4_334"}, `port "4_334" is not a number from 1 to 65535`},
		{"an empty port", []string{"nms", ""}, `port "" is not a number from 1 to 65535`},
		{"the port of another service", []string{"nms", "ssh"}, `port "ssh" is not a number from 1 to 65535`},
		{"an option behind the host", []string{"nms", "--port"}, `port "--port" is not a number from 1 to 65535; options come before HOST`},
		{"an option and its value behind the port", []string{"nms", "1", "--attempts", "2"}, `unexpected argument "2"; expected HOST [PORT [OPAQUE]], with OPAQUE as one argument; options come before HOST`},
		{"two ports", []string{"nms:1", "2"}, `port given twice, in "nms:1" and as "2"; expected HOST [PORT [OPAQUE]] or HOST:PORT`},
		{"opaque data that a shell split", []string{"nms", "1", "site", "7"}, `unexpected argument "7"; expected HOST [PORT [OPAQUE]], with OPAQUE as one argument`},
		{"opaque data that is too long", []string{"nms", "1", strings.Repeat("x", proto.MaxOpaque+1)}, `OPAQUE has 1025 bytes; the limit is 1024`},
		{"a wrong port before the opaque data", []string{"nms", "x", "site"}, `port "x" is not a number from 1 to 65535`},
		{"opaque data that is a NUL", []string{"nms", "1", "\x00"}, `OPAQUE contains a NUL byte, which no environment variable can have`},
		{"opaque data with a NUL", []string{"nms", "1", "a\x00b"}, `OPAQUE contains a NUL byte, which no environment variable can have`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseTarget(tt.args)
			if err == nil {
				t.Fatalf("ParseTarget(%q) = %+v, want an error", tt.args, got)
			}
			if err.Error() != tt.says {
				t.Errorf("ParseTarget(%q) says\n%s, want\n%s", tt.args, err, tt.says)
			}
		})
	}
}

func TestTargetAddr(t *testing.T) {
	for _, tt := range []struct {
		host string
		want string // "" for a name
	}{
		{"192.0.2.1", "192.0.2.1"},
		{"2001:db8::1", "2001:db8::1"},
		{"fe80::1%eth0", "fe80::1%eth0"},
		{"::ffff:192.0.2.1", "192.0.2.1"},
		{"nms.example", ""},
		{"", ""},
	} {
		addr, ok := Target{Host: tt.host}.Addr()
		if ok != (tt.want != "") || ok && addr != netip.MustParseAddr(tt.want) {
			t.Errorf("Addr of %q = %v, %v, want %q", tt.host, addr, ok, tt.want)
		}
	}
}

func FuzzParseTarget(f *testing.F) {
	for _, args := range [][]string{
		{"nms.example.", "4334", "opaque"}, {"nms:1", "o"}, {"[::1%lo]:65535"}, {"::ffff:192.0.2.1", "netconf-ch-ssh"},
		{"-x", "-1", "\x00"}, {"[", "]", ":"}, {"a", "1", "b", "c"}, {"1.2.3.4:0x1"}, {"fe80::1%\n"},
	} {
		f.Add(strings.Join(args, "\x1f"))
	}
	// The fuzzer has no []string: one string with a separator that no argument
	// contains.
	f.Fuzz(func(t *testing.T, line string) {
		args := strings.Split(line, "\x1f")
		got, err := ParseTarget(args)
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("the refusal of %q has more than one line: %q", args, err)
			}
			return
		}
		if strings.HasPrefix(got.Host, "-") || hasControl(got.Host) || strings.ContainsAny(got.Host, " []'\"\\$`;&|<>/@") || got.Host == "" {
			t.Errorf("%q: host %q", args, got.Host)
		}
		if addr, ok := got.Addr(); ok && (addr.IsUnspecified() || addr.IsMulticast()) {
			t.Errorf("%q: %v cannot be called", args, addr)
		}
		if len(args) > 1 && got.Port == 0 {
			t.Errorf("%q: port 0", args)
		}
		if len(got.Opaque) > proto.MaxOpaque || strings.Contains(got.Opaque, "\x00") {
			t.Errorf("%q: opaque %q", args, got.Opaque)
		}
		for _, again := range spellings(got) {
			if second, err := ParseTarget(again); err != nil || second != got {
				t.Errorf("%q gives %+v, and that as %q gives %+v, %v", args, got, again, second, err)
			}
		}
	})
}

// spellings returns the ways to write t as arguments.
func spellings(t Target) [][]string {
	var opaque []string
	if t.Opaque != "" {
		opaque = []string{t.Opaque}
	}
	bracketed := t.Host
	if strings.Contains(t.Host, ":") {
		bracketed = "[" + t.Host + "]"
	}
	if t.Port == 0 {
		return [][]string{{t.Host}, {bracketed}}
	}
	out := [][]string{
		slices.Concat([]string{t.Host, decimal(t.Port)}, opaque),
		slices.Concat([]string{bracketed, decimal(t.Port)}, opaque),
	}
	// After HOST:PORT a number is read as a second port.
	if !isNumber(t.Opaque) {
		out = append(out, slices.Concat([]string{bracketed + ":" + decimal(t.Port)}, opaque))
	}
	return out
}
