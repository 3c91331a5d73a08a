package station

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/pires/go-proxyproto"
)

// behind is a connection through a load balancer; its PROXY header has been read.
type behind struct {
	net.Conn
	r *bufio.Reader
}

func (b *behind) Read(p []byte) (int, error) { return b.r.Read(p) }

// maxHeader bounds a PROXY header, in bytes. Version 1 has at most 107; version 2
// has the addresses and the balancer's own fields.
const maxHeader = 4 << 10

// readHeader reads the PROXY header (version 1 or 2) that a trusted balancer sends
// first, and returns the connection without it, and the device's own address. A
// balancer's own connection, such as a health check, is errLocal: it has no device.
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
