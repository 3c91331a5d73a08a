package scrape

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"

	"callhome/internal/daemon"
	"callhome/internal/sysexits"
)

// Address is where the metrics are served.
type Address struct {
	Network string // "tcp" or "unix"
	Address string // as net.Listen takes it
}

// maxPath is the kernel's limit on the path of a socket (unix(7)).
const maxPath = 107

// ParseAddress reads ADDRESS:PORT or unix:PATH. The address must be a loopback
// one, as there is neither encryption nor authentication.
func ParseAddress(s string) (Address, error) {
	if path, isUnix := strings.CutPrefix(s, "unix:"); isUnix {
		switch {
		case !filepath.IsAbs(path) || path != filepath.Clean(path):
			return Address{}, fmt.Errorf("metrics address %q: expected unix: and an absolute path", s)
		case len(path) > maxPath:
			return Address{}, fmt.Errorf("metrics address %q: the path has %d bytes, the limit is %d", s, len(path), maxPath)
		}
		return Address{"unix", path}, nil
	}
	a, err := netip.ParseAddrPort(s)
	switch {
	case err != nil:
		return Address{}, fmt.Errorf("metrics address %q: expected a loopback address and port, such as 127.0.0.1:9434 or [::1]:9434, or unix:/PATH", s)
	case !a.Addr().IsLoopback():
		return Address{}, fmt.Errorf("metrics address %q is not a loopback address; metrics have neither encryption nor authentication, so use 127.0.0.1, [::1] or unix:/PATH, and a proxy for other machines", s)
	case a.Port() == 0:
		return Address{}, fmt.Errorf("metrics address %q: expected a port from 1 to 65535", s)
	}
	return Address{"tcp", a.String()}, nil
}

// Listen opens the listener at ADDRESS:PORT or unix:PATH (ParseAddress). Every
// local user may connect: no text from outside is among the metrics. Errors carry
// their exit status.
func Listen(address string) (net.Listener, error) {
	a, err := ParseAddress(address)
	if err != nil {
		return nil, sysexits.New(sysexits.Usage, "use another --metrics", err)
	}
	if a.Network == "unix" {
		l, err := daemon.ListenUnix(a.Address, "metrics")
		if err != nil {
			return nil, err // not l, which is a nil of another type
		}
		return l, nil
	}
	l, err := net.Listen(a.Network, a.Address)
	if err != nil {
		return nil, sysexits.New(sysexits.Unavailable, "use another --metrics", fmt.Errorf("serving metrics at %q: %w", address, err))
	}
	return l, nil
}
