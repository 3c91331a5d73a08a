package reconnect

import (
	"net/netip"
	"testing"
	"time"

	"callhome/internal/device/config"
)

func TestFingerprint(t *testing.T) {
	type inner struct{ A, B []string }
	type now struct {
		Name  string
		Inner inner
		Say   *bool
	}
	type later struct {
		Say   *bool
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
		"a word said, no":      now{Name: "a", Inner: inner{A: []string{"x"}}, Say: &no},
		"a word said, yes":     now{Name: "a", Inner: inner{A: []string{"x"}}, Say: &yes},
		"a field used":         later{Name: "a", Inner: next.Inner, Wait: 1},
	} {
		if fingerprint(other) == was {
			t.Errorf("%s does not change it", name)
		}
	}
	if fingerprint(now{Say: &no}) == fingerprint(now{Say: &yes}) {
		t.Error("yes and no are one")
	}
}

// What an endpoint's sessions were made with is all in it.
func TestAnEndpointsFingerprint(t *testing.T) {
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
