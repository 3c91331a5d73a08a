package settings

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"callhome/internal/proto"
)

// portName is IANA's name of proto.DefaultPort.
const portName = "netconf-ch-ssh"

// Target is the target of a call home: the NETCONF client's host and port, and the
// opaque data for the session.
type Target struct {
	// Host is a name or an IP address without brackets; an IPv6 address may
	// have a zone.
	Host string
	Port uint16
	// Opaque is untrusted data, as in maapi_netconf_ssh_call_home_opaque: at most
	// proto.MaxOpaque bytes, none of them NUL.
	Opaque string
}

// Addr returns Host as an IP address, or false if it is a name.
func (t Target) Addr() (netip.Addr, bool) {
	a, err := netip.ParseAddr(t.Host)
	return a.Unmap(), err == nil
}

// ParseTarget parses the arguments of a NETCONF server: HOST [PORT [OPAQUE]], where
// HOST may be HOST:PORT or [V6]:PORT. Port and Opaque are zero if they are missing.
func ParseTarget(args []string) (Target, error) {
	if len(args) == 0 {
		return Target{}, errors.New("no HOST given; expected HOST [PORT [OPAQUE]]")
	}
	host, port, err := splitHost(args[0])
	if err != nil {
		return Target{}, err
	}
	t := Target{Host: host, Port: port}
	rest := args[1:]
	if len(rest) > 0 && port == 0 {
		if t.Port, err = parsePort(rest[0]); err != nil {
			return Target{}, fmt.Errorf("%w%s", err, misplaced(rest[0]))
		}
		rest = rest[1:]
	} else if len(rest) > 0 && isNumber(rest[0]) {
		return Target{}, fmt.Errorf("port given twice, in %q and as %q; expected HOST [PORT [OPAQUE]] or HOST:PORT", args[0], rest[0])
	}
	if len(rest) > 1 {
		return Target{}, fmt.Errorf("unexpected argument %q; expected HOST [PORT [OPAQUE]], with OPAQUE as one argument%s", rest[1], misplaced(rest...))
	}
	if len(rest) == 1 {
		t.Opaque, err = parseOpaque(rest[0])
	}
	return t, err
}

// misplaced returns a hint for an error if one of args looks like an option.
func misplaced(args ...string) string {
	if slices.ContainsFunc(args, func(a string) bool { return strings.HasPrefix(a, "-") }) {
		return "; options come before HOST"
	}
	return ""
}

// splitHost splits HOST, HOST:PORT, V6, [V6] or [V6]:PORT. The port is 0 if it is
// missing.
func splitHost(arg string) (host string, port uint16, err error) {
	if arg == "" {
		return "", 0, errors.New("HOST is empty; expected a name or an IP address")
	}
	if rest, ok := strings.CutPrefix(arg, "["); ok {
		inner, after, ok := strings.Cut(rest, "]")
		if !ok {
			return "", 0, fmt.Errorf("host %q has no closing bracket; expected [IPV6] or [IPV6]:PORT", arg)
		}
		if !strings.Contains(inner, ":") {
			return "", 0, fmt.Errorf("host %q: only an IPv6 address can be in brackets", arg)
		}
		if host, err = parseHost(inner); err != nil || after == "" {
			return host, 0, err
		}
		digits, ok := strings.CutPrefix(after, ":")
		if !ok {
			return "", 0, fmt.Errorf("host %q: expected nothing or :PORT after the bracket", arg)
		}
		port, err = parsePort(digits)
		return host, port, err
	}
	if name, digits, ok := strings.Cut(arg, ":"); ok && !strings.Contains(digits, ":") {
		if host, err = parseHost(name); err != nil {
			return "", 0, err
		}
		port, err = parsePort(digits)
		return host, port, err
	}
	host, err = parseHost(arg)
	return host, 0, err
}

// parseHost checks a host without a port: an address to connect to, or a name with
// the characters of RFC 1123 and the underscore, which field devices use.
func parseHost(s string) (string, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return s, checkAddr(s, a)
	}
	if strings.Contains(s, ":") {
		return "", fmt.Errorf("host %q is not an IPv6 address", s)
	}
	name := strings.TrimSuffix(s, ".")
	if name == "" || len(name) > 253 {
		return "", fmt.Errorf("host %q: a name has 1 to 253 characters", s)
	}
	labels := strings.Split(name, ".")
	for _, l := range labels {
		if l == "" || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' || strings.ContainsFunc(l, notInName) {
			return "", fmt.Errorf("host %q is neither a name nor an IP address", s)
		}
	}
	if isNumber(labels[len(labels)-1]) {
		return "", fmt.Errorf("host %q looks like an IPv4 address but is not valid", s)
	}
	return s, nil
}

func checkAddr(s string, a netip.Addr) error {
	switch {
	case a.Unmap().IsUnspecified():
		return fmt.Errorf("host %q is the unspecified address; expected the NETCONF client's own", s)
	case a.Unmap().IsMulticast():
		return fmt.Errorf("host %q is a multicast address; a call home goes to one NETCONF client", s)
	case len(a.Zone()) > maxInterfaceName || strings.ContainsFunc(a.Zone(), notInName):
		return fmt.Errorf("host %q: the zone is not an interface name", s)
	}
	return CheckZone(a)
}

// CheckZone refuses a zone as a URL has it (RFC 6874): %25eth0 is no interface eth0.
func CheckZone(a netip.Addr) error {
	name, ok := strings.CutPrefix(a.Zone(), "25")
	if ok && name != "" && !isNumber(name[:1]) {
		return fmt.Errorf("the zone of %v is written as in a URL: write %v", a, a.WithZone(name))
	}
	return nil
}

func notInName(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.')
}

// parsePort parses 1 to 65535 or the IANA name of the port.
func parsePort(s string) (uint16, error) {
	if s == portName {
		return proto.DefaultPort, nil
	}
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 || !isNumber(s) {
		return 0, fmt.Errorf("port %q is not a number from 1 to 65535", s)
	}
	return uint16(n), nil
}

func isNumber(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r < '0' || r > '9' })
}

func parseOpaque(s string) (string, error) { return s, CheckOpaque(s) }

// CheckOpaque refuses opaque data that cannot be passed to the session.
func CheckOpaque(s string) error {
	if len(s) > proto.MaxOpaque {
		return fmt.Errorf("OPAQUE has %d bytes; the limit is %d", len(s), proto.MaxOpaque)
	}
	if strings.IndexByte(s, 0) >= 0 {
		return errors.New("OPAQUE contains a NUL byte, which no environment variable can have")
	}
	return nil
}
