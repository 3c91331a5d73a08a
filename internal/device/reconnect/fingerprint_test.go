package reconnect

import (
	"net/netip"
	"testing"
	"time"

	"callhome/internal/device/config"
)

func TestFingerprintIgnoresUnusedFields(t *testing.T) {
	type inner struct{ A, B []string }
	type now struct {
		Name  string
		Inner inner
		Flag  *bool
	}
	type later struct {
		Flag  *bool
		Name  string
		Inner struct {
			A, B []string
			C    int
		}
		Wait time.Duration
	}
	yes, no := true, false
	was := fingerprint(now{Name: "a", Inner: inner{A: []string{"x"}}})
	next := later{Name: "a"}
	next.Inner.A = []string{"x"}
	if fingerprint(next) != was {
		t.Error("fields that are not used change it")
	}
	for name, other := range map[string]any{
		"another name":         now{Name: "b", Inner: inner{A: []string{"x"}}},
		"another list":         now{Name: "a", Inner: inner{A: []string{"x", "y"}}},
		"the same list, moved": now{Name: "a", Inner: inner{B: []string{"x"}}},
		"a flag, false":        now{Name: "a", Inner: inner{A: []string{"x"}}, Flag: &no},
		"a flag, true":         now{Name: "a", Inner: inner{A: []string{"x"}}, Flag: &yes},
		"a field used":         later{Name: "a", Inner: next.Inner, Wait: 1},
	} {
		if fingerprint(other) == was {
			t.Errorf("%s does not change it", name)
		}
	}
	if fingerprint(now{Flag: &no}) == fingerprint(now{Flag: &yes}) {
		t.Error("true and false have one fingerprint")
	}
}

// Every setting of an endpoint's sessions changes its fingerprint.
func TestEverySettingChangesAnEndpointsFingerprint(t *testing.T) {
	a := conf("nms", "a").Endpoints[0]
	was := owner(&a)
	if b := conf("nms", "a").Endpoints[0]; owner(&b) != was {
		t.Error("the same endpoint has two")
	}
	for name, change := range map[string]func(*config.Endpoint){
		"port":          func(e *config.Endpoint) { e.Port++ },
		"local address": func(e *config.Endpoint) { e.LocalAddress = netip.MustParseAddr("192.0.2.7") },
		"a key":         func(e *config.Endpoint) { e.HostKeys = []config.HostKey{{Name: "k", Private: []byte{1}}} },
		"a user":        func(e *config.Endpoint) { e.Users = []config.User{{Name: "u"}} },
		"keepalives":    func(e *config.Endpoint) { e.SSH = &config.KeepAlive{Count: 3} },
	} {
		b := conf("nms", "a").Endpoints[0]
		change(&b)
		if owner(&b) == was {
			t.Errorf("%s: the fingerprint stays", name)
		}
	}
}
