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

// maxStrangers bounds the list of unknown keys: anybody can make new ones.
const maxStrangers = 256

// strangers are the keys that called and that no device has. The one that
// called longest ago makes room.
type strangers map[string]*stranger

type stranger struct {
	nmsproto.Unknown
	// turn is higher than that of all who called before. Their times do not say
	// who was first, as the clock can be set.
	turn uint64
}

func (s strangers) note(key ssh.PublicKey, address, software string, now time.Time) {
	plain, id := plainKey(key)
	fingerprint := ssh.FingerprintSHA256(plain)
	u := s[fingerprint]
	if u == nil {
		if len(s) >= maxStrangers {
			s.forgetOldest()
		}
		u = &stranger{Unknown: nmsproto.Unknown{HostKey: fingerprint, Key: strings.TrimSpace(string(ssh.MarshalAuthorizedKey(plain))), First: now}}
		s[fingerprint] = u
	}
	u.Certificate, u.Address, u.Software, u.Last = id, address, software, now
	u.Calls++
	for _, other := range s {
		u.turn = max(u.turn, other.turn+1)
	}
}

func (s strangers) forgetOldest() {
	var oldest *stranger
	for _, u := range s {
		if oldest == nil || u.turn < oldest.turn {
			oldest = u
		}
	}
	delete(s, oldest.HostKey)
}

// list is a copy, who called last first.
func (s strangers) list() []nmsproto.Unknown {
	out := make([]nmsproto.Unknown, 0, len(s))
	for _, u := range slices.SortedFunc(maps.Values(s), func(a, b *stranger) int { return cmp.Compare(b.turn, a.turn) }) {
		out = append(out, u.Unknown)
	}
	return out
}

// plainKey is a certificate's key and its name for people, or the key itself.
func plainKey(key ssh.PublicKey) (plain ssh.PublicKey, certificate string) {
	if c, ok := key.(*ssh.Certificate); ok {
		return c.Key, printable.Line(c.KeyId)
	}
	return key, ""
}
