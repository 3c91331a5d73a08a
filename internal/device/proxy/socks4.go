package proxy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// SOCKS4 has a request of one packet and an answer of eight bytes; 4a puts a
// name behind the request for the proxy to resolve, marked by an address
// 0.0.0.x.
//
//	us ──▶ 4, CONNECT, port, IPv4, user id, 0 [, name, 0]
//	us ◀── 0, code, port, IPv4
const (
	socks4Version  = 4
	socks4Connect  = 1
	socks4Granted  = 90
	socks4MaxField = 255
)

var socks4Refusals = map[byte]string{
	91: "it refuses, or could not connect",
	92: "it finds no identd on this machine",
	93: "the identd of this machine names another user",
}

// socks4 requests a connection to an IPv4 address: SOCKS4 has neither names nor
// IPv6.
func socks4(conn net.Conn, to string, auth *Auth) error { return askSocks4(conn, to, auth, false) }

// socks4a requests a connection to an IPv4 address or a name.
func socks4a(conn net.Conn, to string, auth *Auth) error { return askSocks4(conn, to, auth, true) }

func askSocks4(conn net.Conn, to string, auth *Auth, names bool) error {
	request, err := socks4Request(to, auth, names)
	if err != nil {
		return err
	}
	if _, err := conn.Write(request); err != nil {
		return err
	}
	var answer [8]byte
	if _, err := io.ReadFull(conn, answer[:]); err != nil {
		return err
	}
	switch code := answer[1]; {
	case answer[0] != 0 && answer[0] != socks4Version: // the version of the answer is 0; not all know
		return fmt.Errorf("its answer begins with %d, which is not SOCKS4", answer[0])
	case code == socks4Granted:
		return nil
	case socks4Refusals[code] != "":
		return errors.New(socks4Refusals[code])
	default:
		return fmt.Errorf("it answers code %d", code)
	}
}

func socks4Request(to string, auth *Auth, names bool) ([]byte, error) {
	host, digits, err := net.SplitHostPort(to)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(digits, 10, 16)
	if err != nil {
		return nil, err
	}
	ip, err := netip.ParseAddr(host)
	ip = ip.Unmap()
	name := ""
	switch {
	case err != nil && !names:
		return nil, errors.New("SOCKS4 takes no names; use SOCKS4a or SOCKS5")
	case err == nil && !ip.Is4():
		return nil, errors.New("SOCKS4 takes no IPv6 addresses; use SOCKS5")
	case err != nil:
		ip, name = netip.AddrFrom4([4]byte{0, 0, 0, 1}), host
	}
	user := ""
	if auth != nil {
		user = auth.User
	}
	for _, field := range []string{user, name} {
		if len(field) > socks4MaxField || strings.IndexByte(field, 0) >= 0 {
			return nil, errors.New("SOCKS4 takes no such name")
		}
	}
	out := []byte{socks4Version, socks4Connect}
	out = binary.BigEndian.AppendUint16(out, uint16(port))
	out = append(out, ip.AsSlice()...)
	out = append(append(out, user...), 0)
	if name != "" {
		out = append(append(out, name...), 0)
	}
	return out, nil
}
