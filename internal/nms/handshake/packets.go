package handshake

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// msgNewKeys is the type of the last packet in the clear (RFC 4253 section 7.3).
const msgNewKeys = 21

// packets follows the bounds of what a peer sends in the clear. The library
// makes room for a whole packet, up to 256 KiB, as soon as it knows the length;
// nobody shall hold that with a few bytes. It is pure, and ready as it is.
type packets struct {
	next      int  // where the next line or packet begins
	version   bool // the lines are over
	encrypted bool // from here on lengths cannot be read
}

// check looks at all that came so far, in.
func (p *packets) check(in []byte) error {
	if len(in) > maxExchange {
		return fmt.Errorf("the key exchange has more than %d bytes", maxExchange)
	}
	for !p.version {
		line, _, whole := bytes.Cut(in[p.next:], []byte("\n"))
		if !whole {
			return nil
		}
		p.next += len(line) + 1
		p.version = bytes.HasPrefix(line, []byte("SSH-"))
	}
	// 4 bytes of length, one of the padding's, and the type (RFC 4253 section 6).
	for !p.encrypted && len(in)-p.next >= 4 {
		rest := in[p.next:]
		length := binary.BigEndian.Uint32(rest)
		if length > maxExchange {
			return fmt.Errorf("the key exchange has a packet of %d bytes, at most %d are taken", length, maxExchange)
		}
		if len(rest) < 6 {
			return nil
		}
		p.encrypted = rest[5] == msgNewKeys
		p.next += 4 + int(length)
	}
	return nil
}
