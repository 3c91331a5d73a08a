package handshake

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// Types of packets. Each key exchange that is offered has the last two numbers (RFC 4253
// section 8, RFC 5656 section 4), and its reply begins with the host key.
const (
	msgNewKeys  = 21 // the last packet in the clear (RFC 4253 section 7.3)
	msgKexInit  = 30
	msgKexReply = 31
)

// minPacket is the length of the length of padding and of the type.
const minPacket = 2

// packets finds the packets that a peer sends in the clear, and bounds their length.
// The library allocates a whole packet, up to 256 KiB, as soon as it has read the
// length; an unauthenticated peer must not cause that with a few bytes. It is pure, and
// its zero value is ready.
type packets struct {
	next      int    // where the next packet begins
	version   bool   // the version string has come, packets follow
	encrypted bool   // from here on lengths cannot be read
	replied   bool   // the reply of the key exchange has come
	hostKey   []byte // in it; nil if the reply is malformed
}

// check returns an error if in, all bytes so far, exceeds a bound.
func (p *packets) check(in []byte) error {
	if len(in) > maxExchange {
		return fmt.Errorf("the key exchange has more than the maximum of %d bytes", maxExchange)
	}
	if !p.version {
		line, _, whole := bytes.Cut(in, []byte("\n"))
		if !whole {
			return nil
		}
		p.next, p.version = len(line)+1, true
	}
	// 4 bytes of length, one of padding length, and the type (RFC 4253 section 6).
	for !p.encrypted && len(in)-p.next >= 4 {
		rest := in[p.next:]
		length := binary.BigEndian.Uint32(rest)
		switch {
		case length > maxExchange:
			return fmt.Errorf("the key exchange has a packet of %d bytes, the maximum is %d", length, maxExchange)
		case length < minPacket:
			return fmt.Errorf("the key exchange has a packet of %d bytes, which has no type", length)
		}
		if len(rest) < 6 {
			return nil
		}
		if rest[5] == msgKexReply && !p.replied {
			if len(rest) < 4+int(length) {
				return nil
			}
			p.replied, p.hostKey = true, firstString(rest[6:4+length])
		}
		p.encrypted = rest[5] == msgNewKeys
		p.next += 4 + int(length)
	}
	return nil
}

// firstString returns the string that b begins with (RFC 4251 section 5), nil if it does
// not begin with a whole one.
func firstString(b []byte) []byte {
	if len(b) < 4 {
		return nil
	}
	n := binary.BigEndian.Uint32(b)
	if uint64(n) > uint64(len(b)-4) {
		return nil
	}
	return b[4 : 4+n]
}
