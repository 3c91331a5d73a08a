package station

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"callhome/internal/nms/nmsproto"
	"callhome/internal/nms/sshtest"

	"golang.org/x/crypto/ssh"
)

// others are the other stations of a cluster, one of which may hold each device.
type others struct {
	holder  string
	unknown *nmsproto.Unknown
}

func (o others) Elsewhere(string) string          { return o.holder }
func (o others) Unknown(string) *nmsproto.Unknown { return o.unknown }

// TestAdoptCountsTheCallsOfAllStations: the last one is that of the station that it called
// last.
func TestAdoptCountsTheCallsOfAllStations(t *testing.T) {
	for later, want := range map[time.Duration]nmsproto.Unknown{
		-time.Second: {Station: "a", Pause: 8 * time.Second}, time.Second: {Station: "b", Pause: 3 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			d, u := newStandIn(t), new(nmsproto.Unknown)
			s := newSite(t, func(c *Config) { c.Name, c.Cluster = "a", others{"", u} })
			s.call("192.0.2.1:1", d.serve)
			s.await(nmsproto.EventUnknown)
			time.Sleep(8 * time.Second)
			s.call("192.0.2.1:1", d.serve)
			key := s.await(nmsproto.EventUnknown).HostKey
			first := time.Now().Add(-time.Hour)
			*u = nmsproto.Unknown{HostKey: key, Key: "of another key", Station: "b", Calls: 5, First: first, Last: time.Now().Add(later), Pause: 3 * time.Second}
			got, err := s.adopt(nmsproto.AdoptParams{HostKey: key, ID: "edge7"})
			if c := got.Called; err != nil || c.Calls != 7 || !c.First.Equal(first) || c.Station != want.Station || c.Pause != want.Pause {
				t.Errorf("got %+v, %v", got.Called, err)
			}
		})
	}
}

// TestAnotherStationsUnknownDeviceHasTheKeyOfItsFingerprint: an operator compares the
// fingerprint, and another station has written it.
func TestAnotherStationsUnknownDeviceHasTheKeyOfItsFingerprint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shown, hidden := newStandIn(t).host.PublicKey(), newStandIn(t).host.PublicKey()
		u := &nmsproto.Unknown{HostKey: ssh.FingerprintSHA256(shown), Key: sshtest.Line(hidden)}
		s := newSite(t, func(c *Config) { c.Name, c.Cluster = "a", others{"", u} })
		p := nmsproto.AdoptParams{HostKey: u.HostKey, ID: "edge7"}
		if _, err := s.adopt(p); err == nil || !strings.Contains(err.Error(), ssh.FingerprintSHA256(hidden)) {
			t.Errorf("adopting it: %v", err)
		}
		u.Key = sshtest.Line(shown)
		if _, err := s.adopt(p); err != nil {
			t.Errorf("adopting one whose key is right: %v", err)
		}
	})
}

func TestADuplicateOfAConnectionElsewhereIsRefusedBeforeItsLogin(t *testing.T) {
	for _, tt := range []struct{ policy, event string }{
		{"", nmsproto.EventDuplicate},
		{`, "duplicate": "replace"`, nmsproto.EventUp},
	} {
		synctest.Test(t, func(t *testing.T) {
			s, d := newSite(t, func(c *Config) { c.Name, c.Cluster = "a", others{"b", nil} }), newStandIn(t)
			s.know("edge7", d, tt.policy)
			s.call("192.0.2.1:1", d.serve)
			e := s.await(tt.event)
			if e.Station != "a" || e.Device != "edge7" || tt.policy == "" && !strings.Contains(e.Cause, "connected to station b") {
				t.Errorf("got %+v", e)
			}
		})
	}
}

// TestAnotherStationsCallSettlesTheConnection: the rule for a second connection holds
// across stations.
func TestAnotherStationsCallSettlesTheConnection(t *testing.T) {
	for _, tt := range []struct {
		name   string
		mute   bool
		policy string
		kept   bool
	}{
		{"it is dead", true, "", false},
		{"it answers", false, "", true},
		{"it answers, and the newer is wanted", false, `, "duplicate": "replace"`, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, d := newSite(t, nil), newStandIn(t)
				s.know("edge7", d, tt.policy)
				d.mute = tt.mute
				if kept, _ := s.Settle(t.Context(), "edge7"); kept {
					t.Error("a connection that there is not was kept")
				}
				s.call("192.0.2.1:1", d.serve)
				up := s.await(nmsproto.EventUp)
				kept, cause := s.Settle(t.Context(), "edge7")
				if kept != tt.kept || cause == "" {
					t.Errorf("kept: %v, %q", kept, cause)
				}
				info, _ := s.Device("edge7")
				if connected := info.State == nmsproto.Connected; connected != tt.kept {
					t.Errorf("after %q it is %+v", cause, info)
				}
				if tt.kept {
					s.End("edge7", up.Time.Add(-time.Hour), "another connection's")
					s.mustBe("edge7", nmsproto.Connected, "")
					s.End("edge7", *info.Since, "it is connected to station b")
					s.mustBe("edge7", nmsproto.Lost, "station b")
				}
			})
		})
	}
}
