package station

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/pires/go-proxyproto"
)

// behind is a connection that came through a load balancer, without the header.
type behind struct {
	net.Conn
	r *bufio.Reader
}

func (b *behind) Read(p []byte) (int, error) { return b.r.Read(p) }

// maxHeader is more than any PROXY header has, in bytes: 107 in version 1; in
// version 2 the addresses and what the balancer adds.
const maxHeader = 4 << 10

// readHeader reads the PROXY header (version 1 or 2) that a trusted balancer
// sends first, and returns the caller's own address and the connection behind
// the header. A balancer's own connection, as for its health checks, has none:
// it is an error, as there is no device at its other end.
func readHeader(conn net.Conn) (net.Conn, netip.AddrPort, error) {
	r := bufio.NewReaderSize(conn, maxHeader)
	h, err := proxyproto.Read(r)
	if err != nil {
		return nil, netip.AddrPort{}, fmt.Errorf("no PROXY header of the load balancer: %w", err)
	}
	if h.Command.IsLocal() {
		return nil, netip.AddrPort{}, errLocal
	}
	tcp, ok := h.SourceAddr.(*net.TCPAddr)
	if !ok {
		return nil, netip.AddrPort{}, fmt.Errorf("the PROXY header is for %v, expected TCP", h.TransportProtocol)
	}
	from := tcp.AddrPort()
	if !from.Addr().IsValid() {
		return nil, netip.AddrPort{}, errors.New("the PROXY header has no address")
	}
	return &behind{conn, r}, netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), nil
}

var errLocal = errors.New("the load balancer's own connection")
