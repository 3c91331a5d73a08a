package station

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"callhome/internal/nms/nmsproto"
	"callhome/internal/printable"

	"golang.org/x/crypto/ssh"
)

// maxUnknown bounds the list of unknown devices: any peer can make new keys at any
// rate.
const maxUnknown = 256

// unknownDevices are the devices that called home with a host key that no entry
// has, by fingerprint. Of more than maxUnknown, the one that called longest ago is
// dropped.
type unknownDevices map[string]*unknownDevice

type unknownDevice struct {
	nmsproto.Unknown
	// turn orders the devices by their last call. The times do not, as the clock
	// can be set back.
	turn uint64
}

func (s unknownDevices) note(key ssh.PublicKey, address, software string, now time.Time) {
	plain, id := plainKey(key)
	fingerprint := ssh.FingerprintSHA256(plain)
	u := s[fingerprint]
	if u == nil {
		if len(s) >= maxUnknown {
			s.dropOldest()
		}
		u = &unknownDevice{Unknown: nmsproto.Unknown{HostKey: fingerprint, Key: strings.TrimSpace(string(ssh.MarshalAuthorizedKey(plain))), First: now}}
		s[fingerprint] = u
	}
	if u.Calls > 0 {
		u.Pause = max(0, now.Sub(u.Last))
	}
	u.Certificate, u.Address, u.Software, u.Last = id, address, software, now
	u.Calls++
	for _, other := range s {
		u.turn = max(u.turn, other.turn+1)
	}
}

func (s unknownDevices) dropOldest() {
	var oldest *unknownDevice
	for _, u := range s {
		if oldest == nil || u.turn < oldest.turn {
			oldest = u
		}
	}
	delete(s, oldest.HostKey)
}

// list returns a copy, the device that called last first.
func (s unknownDevices) list() []nmsproto.Unknown {
	out := make([]nmsproto.Unknown, 0, len(s))
	for _, u := range slices.SortedFunc(maps.Values(s), func(a, b *unknownDevice) int { return cmp.Compare(b.turn, a.turn) }) {
		out = append(out, u.Unknown)
	}
	return out
}

// Merge returns what two stations know of one unknown device: all its calls, and the last
// one with the station that it called. The pause is between two calls of that station: a
// device that is refused by one station may call the next at once.
func Merge(a, b nmsproto.Unknown) nmsproto.Unknown {
	if b.Last.After(a.Last) {
		a, b = b, a
	}
	a.Calls += b.Calls
	if b.First.Before(a.First) {
		a.First = b.First
	}
	return a
}

// plainKey returns a certificate's key and key ID, or the key itself.
func plainKey(key ssh.PublicKey) (plain ssh.PublicKey, certificate string) {
	if c, ok := key.(*ssh.Certificate); ok {
		return c.Key, printable.Line(c.KeyId)
	}
	return key, ""
}
