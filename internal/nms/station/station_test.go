package station

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"callhome/internal/nms/admission"
	"callhome/internal/nms/nmsproto"
	"callhome/internal/nms/registry"
	"callhome/internal/nms/sshtest"
	"callhome/internal/proto"

	"golang.org/x/crypto/ssh"
)

func mustAddr(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func (s *site) mustBe(id string, state nmsproto.State, lastError string) nmsproto.Device {
	s.t.Helper()
	d, ok := s.Device(id)
	if !ok || d.State != state || !strings.Contains(d.LastError, lastError) || lastError == "" && d.LastError != "" {
		s.t.Errorf("%s is %+v, want %s with error %q", id, d, state, lastError)
	}
	return d
}

// adopt registers a device as root, with the stand-ins' password: the station never
// sends its own (TestWhoMayAdoptWithWhichCredential).
func (s *site) adopt(p nmsproto.AdoptParams) (nmsproto.Adopted, error) {
	if p.KeyFile == "" {
		p.PasswordFile = s.config.Credential.PasswordFile
	}
	return s.Adopt(p, true)
}

func TestADeviceIsRecognisedByItsKeyAndStaysConnected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, a, b := newSite(t, nil), newStandIn(t), newStandIn(t)
		b.user = "other"
		s.know("edge7", a, `, "labels": {"site": "x"}`)
		s.know("edge8", b, `, "user": "other"`)
		s.mustBe("edge7", nmsproto.NeverSeen, "")
		// Both devices call from one address: the host key decides.
		s.call("192.0.2.1:1001", b.serve)
		if e := s.await(nmsproto.EventUp); e.Device != "edge8" || e.HostKey != ssh.FingerprintSHA256(b.host.PublicKey()) {
			t.Errorf("got %+v", e)
		}
		s.call("192.0.2.1:1002", a.serve)
		s.await(nmsproto.EventUp)
		d := s.mustBe("edge7", nmsproto.Connected, "")
		if d.Address != "192.0.2.1:1002" || d.Software != "SSH-2.0-StandIn" || d.User != "netconf" || d.Calls != 1 || d.Labels["site"] != "x" || d.Since == nil {
			t.Errorf("it is %+v", d)
		}
		// The connection survives hours with nothing but keepalives.
		time.Sleep(5 * time.Hour)
		s.mustBe("edge7", nmsproto.Connected, "")
		if st := s.Stats(); st.Unauthenticated != 0 || st.Devices[nmsproto.Connected] != 2 || st.Outcomes[LoggedIn] != 2 {
			t.Errorf("stats %+v", st)
		}
	})
}

func TestCallsThatDoNotLogInAreReported(t *testing.T) {
	for _, tt := range []struct {
		name    string
		prepare func(*site, *standIn)
		serve   func(*standIn) func(net.Conn) // nil: the device's own
		event   string
		outcome Outcome
		cause   string
		device  string // that it is noted at
	}{
		{"an unknown key", func(*site, *standIn) {}, nil, nmsproto.EventUnknown, Unknown, "no device has this host key", ""},
		{"a revoked key", func(s *site, d *standIn) {
			s.know("edge7", d, "")
			revoke(s, d.host.PublicKey())
		}, nil, nmsproto.EventRefused, Invalid, "is revoked", ""},
		{"the station's password is wrong", func(s *site, d *standIn) {
			s.know("edge7", d, "")
			d.password = "other"
		}, nil, nmsproto.EventRefused, NoLogin, "login failed: unable to authenticate", "edge7"},
		{"the password is not there", func(s *site, d *standIn) { s.know("edge7", d, `, "password-file": "/none"`) }, nil,
			nmsproto.EventRefused, NoLogin, "reading the password: open /none: no such file", "edge7"},
		{"no byte comes", func(*site, *standIn) {}, func(*standIn) func(net.Conn) { return quietly }, nmsproto.EventRefused, NoSSH, "no SSH version: no further byte came within 30s", ""},
		{"not SSH", func(*site, *standIn) {}, func(*standIn) func(net.Conn) { return sends("HTTP/1.1 400 \x1b[2J\r\n\r\n") }, nmsproto.EventRefused, NoSSH, "no SSH version", ""},
		{"gone at once", func(*site, *standIn) {}, func(*standIn) func(net.Conn) { return func(c net.Conn) { c.Close() } }, nmsproto.EventRefused, NoSSH, "no SSH version", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, d := newSite(t, nil), newStandIn(t)
				tt.prepare(s, d)
				serve := d.serve
				if tt.serve != nil {
					serve = tt.serve(d)
				}
				s.call("192.0.2.1:1001", serve)
				e := s.await(tt.event)
				if !strings.Contains(e.Cause, tt.cause) || e.Device != tt.device || e.Address != "192.0.2.1:1001" || strings.ContainsAny(e.Cause+e.Software, "\x1b\r\n") {
					t.Errorf("got %+v", e)
				}
				synctest.Wait()
				if st := s.Stats(); st.Outcomes[tt.outcome] != 1 || st.Unauthenticated != 0 {
					t.Errorf("stats %+v", st)
				}
				if tt.device != "" {
					s.mustBe(tt.device, nmsproto.NeverSeen, tt.cause)
				}
			})
		})
	}
}

func quietly(c net.Conn) { _, _ = io.Copy(io.Discard, c) }

func sends(text string) func(net.Conn) {
	return func(c net.Conn) {
		_, _ = io.WriteString(c, text)
		quietly(c)
	}
}

func revoke(s *site, k ssh.PublicKey) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, registry.RevokedFile), []byte(sshtest.Line(k)), 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.reload()
}

func TestAnUnknownDeviceIsAdopted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, d := newSite(t, nil), newStandIn(t)
		for n := range 3 {
			s.call(fmt.Sprintf("192.0.2.1:%d", 1001+n), d.serve)
			s.await(nmsproto.EventUnknown)
		}
		list := s.Unknown()
		if len(list) != 1 || list[0].Calls != 3 || list[0].Address != "192.0.2.1:1003" || list[0].Key != sshtest.Line(d.host.PublicKey()) {
			t.Fatalf("unknown %+v", list)
		}
		for _, wrong := range []nmsproto.AdoptParams{
			{HostKey: list[0].HostKey, ID: "../edge7"},
			{HostKey: "SHA256:none", ID: "edge7"},
			{HostKey: list[0].HostKey, ID: "edge7", User: "a\nb"},
			{HostKey: list[0].HostKey, ID: "edge7", KeyFile: "id"},
		} {
			var e *proto.Error
			if _, err := s.adopt(wrong); !errors.As(err, &e) {
				t.Errorf("%+v: got %v", wrong, err)
			}
		}
		if _, err := s.adopt(nmsproto.AdoptParams{HostKey: list[0].HostKey, ID: "edge7"}); err != nil {
			t.Fatal(err)
		}
		s.await(nmsproto.EventAdopted)
		s.call("192.0.2.1:1009", d.serve)
		s.await(nmsproto.EventUp)
		s.mustBe("edge7", nmsproto.Connected, "")
		if list := s.Unknown(); len(list) != 0 {
			t.Errorf("unknown %+v", list)
		}
	})
}

// A key that a device has already is not unknown: the error says whose it is. What
// an unknown device's calls were like comes with its registration.
func TestAdoptNamesTheOwnerOfAKnownKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, d, other := newSite(t, nil), newStandIn(t), newStandIn(t)
		s.know("edge7", d, "")
		s.call("192.0.2.1:1", d.serve)
		up := s.await(nmsproto.EventUp)
		var e *proto.Error
		if _, err := s.adopt(nmsproto.AdoptParams{HostKey: up.HostKey, ID: "edge8"}); !errors.As(err, &e) || e.Code != proto.CodeBadType || !strings.Contains(err.Error(), "is that of device edge7 already") {
			t.Errorf("got %v", err)
		}
		s.call("192.0.2.1:2", other.serve)
		s.await(nmsproto.EventUnknown)
		time.Sleep(8 * time.Second)
		s.call("192.0.2.1:3", other.serve)
		key := s.await(nmsproto.EventUnknown).HostKey
		got, err := s.adopt(nmsproto.AdoptParams{HostKey: key, ID: "edge8"})
		if err != nil || got.ID != "edge8" || got.Called.Calls != 2 || got.Called.Pause != 8*time.Second {
			t.Errorf("got %+v, %v", got, err)
		}
	})
}

// What went wrong before does not stand beside a device that is connected.
func TestTheLastErrorGoesWithTheLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, d := newSite(t, nil), newStandIn(t)
		s.know("edge7", d, "")
		s.noteError("edge7", "login refused")
		s.mustBe("edge7", nmsproto.NeverSeen, "login refused")
		s.call("192.0.2.1:1", d.serve)
		s.await(nmsproto.EventUp)
		s.mustBe("edge7", nmsproto.Connected, "")
	})
}

// A key that another entry has got meanwhile makes no second entry, and no file.
func TestAFailedAdoptLeavesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, d := newSite(t, nil), newStandIn(t)
		s.call("192.0.2.1:1", d.serve)
		s.await(nmsproto.EventUnknown)
		text := fmt.Sprintf(`{"id": "a", "host-keys": [%q]}`, sshtest.Line(d.host.PublicKey()))
		if err := os.WriteFile(filepath.Join(s.dir, "a.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.config.Registry.Reload(); err != nil {
			t.Fatal(err)
		}
		s.config.RegistryRead = func(c registry.Change, err error) {
			if err != nil || len(c.Problems) > 0 {
				t.Errorf("got change %+v, %v", c, err)
			}
		}
		var e *proto.Error
		if _, err := s.adopt(nmsproto.AdoptParams{HostKey: s.Unknown()[0].HostKey, ID: "edge7"}); !errors.As(err, &e) || e.Code != proto.CodeBadType || !strings.Contains(err.Error(), "belongs to device a") {
			t.Errorf("got %v", err)
		}
		if _, err := os.Stat(filepath.Join(s.dir, "edge7.json")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("its file: %v", err)
		}
		if p := s.config.Registry.Problems(); len(p) != 0 || s.config.Registry.Entry("a") == nil {
			t.Errorf("problems %v", p)
		}
	})
}

// Whether the old connection answers a keepalive, and the policy, decide which of
// two connections stays.
func TestADuplicateIsRefusedUnlessTheOldConnectionIsDead(t *testing.T) {
	for _, tt := range []struct {
		name   string
		mute   bool // the old connection is dead
		policy string
		event  string
		stays  string // address of the connection that stays
	}{
		{"the old one is dead", true, "", nmsproto.EventReplaced, "192.0.2.2:2"},
		{"both live", false, "", nmsproto.EventDuplicate, "192.0.2.1:1"},
		{"both live, and the newer is wanted", false, `, "duplicate": "replace"`, nmsproto.EventReplaced, "192.0.2.2:2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, d := newSite(t, nil), newStandIn(t)
				s.know("edge7", d, tt.policy)
				old := *d
				old.mute = tt.mute
				s.call("192.0.2.1:1", old.serve)
				s.await(nmsproto.EventUp)
				begun := time.Now()
				s.call("192.0.2.2:2", d.serve)
				e := s.await(tt.event)
				if took := time.Since(begun); took > s.config.ProbeTime {
					t.Errorf("it took %v", took)
				}
				if e.Device != "edge7" || e.Address != "192.0.2.2:2" || !strings.Contains(e.Cause, "192.0.2.1:1") {
					t.Errorf("got %+v", e)
				}
				synctest.Wait()
				if info, _ := s.Device("edge7"); info.State != nmsproto.Connected || info.Address != tt.stays {
					t.Errorf("it is %+v", info)
				}
				// The end of the other connection does not disconnect the device.
				time.Sleep(time.Second)
				if n := s.Stats().Devices[nmsproto.Connected]; n != 1 {
					t.Errorf("%d are connected", n)
				}
			})
		})
	}
}

func TestAVanishedDeviceIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, d := newSite(t, nil), newStandIn(t)
		d.mute = true
		s.know("edge7", d, "")
		s.call("192.0.2.1:1", d.serve)
		s.await(nmsproto.EventUp)
		begun := time.Now()
		e := s.await(nmsproto.EventDown)
		// The keepalive and the end of its time each come at the end of a slot.
		if took := time.Since(begun); took > s.config.KeepaliveEvery+s.config.KeepaliveTime+2*slot || !strings.Contains(e.Cause, "no answer to a keepalive within 15s") {
			t.Errorf("after %v: %+v", took, e)
		}
		s.mustBe("edge7", nmsproto.Lost, "no answer")
	})
}

func TestAConnectionDoesNotOutliveItsEntry(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*site, *standIn)
		cause  string
	}{
		{"the file is gone", func(s *site, _ *standIn) {
			if err := os.Remove(filepath.Join(s.dir, "edge7.json")); err != nil {
				s.t.Fatal(err)
			}
		}, "has no entry with its host key any more"},
		{"another key", func(s *site, _ *standIn) { s.know("edge7", newStandIn(s.t), "") }, "has no entry with its host key any more"},
		{"revoked", func(s *site, d *standIn) { revoke(s, d.host.PublicKey()) }, "is revoked"},
		{"another label", func(s *site, d *standIn) { s.know("edge7", d, `, "labels": {"a": "b"}`) }, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, d := newSite(t, nil), newStandIn(t)
				s.know("edge7", d, "")
				s.call("192.0.2.1:1", d.serve)
				s.await(nmsproto.EventUp)
				tt.change(s, d)
				s.reload()
				if tt.cause == "" {
					synctest.Wait()
					s.mustBe("edge7", nmsproto.Connected, "")
					return
				}
				if e := s.await(nmsproto.EventDown); !strings.Contains(e.Cause, tt.cause) {
					t.Errorf("got %+v", e)
				}
			})
		})
	}
}

// Silent connections are bounded in time and number, and a device logs in beside
// them, also from their address.
func TestSilentConnectionsDoNotBlockADevice(t *testing.T) {
	for _, address := range []string{"192.0.2.1:9999", "192.0.2.2:9999"} {
		t.Run(address, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, d := newSite(t, nil), newStandIn(t)
				s.know("edge7", d, "")
				for n := range 500 {
					s.call(fmt.Sprintf("192.0.2.1:%d", 1000+n), quietly)
				}
				if n := s.Stats().Unauthenticated; n != s.config.MaxPerSource {
					t.Errorf("%d connections wait", n)
				}
				time.Sleep(silentTime)
				synctest.Wait()
				begun := time.Now()
				s.call(address, d.serve)
				s.await(nmsproto.EventUp)
				if took := time.Since(begun); took > 0 {
					t.Errorf("it took %v", took)
				}
				time.Sleep(s.config.LoginTime)
				synctest.Wait()
				st := s.Stats()
				if st.Unauthenticated != 0 || st.Outcomes[OverLimit]+st.Outcomes[NoSSH] != 500 {
					t.Errorf("stats %+v", st)
				}
			})
		})
	}
}

// Nor do connections that send what costs nothing: a byte, or an SSH version. They have
// all places that a new address can get, and each must be waited for two seconds at
// most.
func TestConnectionsThatSendOnlyAVersionDoNotBlockADevice(t *testing.T) {
	for _, text := range []string{"S", "SSH-2.0-x", "SSH-2.0-x\r\n", "hello\r\nSSH-2.0-x\r\n"} {
		t.Run(text, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, nil)
				full := s.config.MaxUnauthenticated * 7 / 8
				for n := range full {
					s.call(fmt.Sprintf("10.%d.%d.1:5", n>>8, n&0xff), sends(text))
				}
				synctest.Wait()
				if n := s.Stats().Unauthenticated; n != full {
					t.Fatalf("%d connections wait", n)
				}
				begun := time.Now()
				for n := range 12 {
					d, id := newStandIn(t), fmt.Sprintf("edge%d", n)
					s.know(id, d, "")
					s.call(fmt.Sprintf("198.51.100.%d:5", n), d.serve)
					s.await(nmsproto.EventUp)
				}
				if took := time.Since(begun); took > minWait+500*time.Millisecond {
					t.Errorf("12 devices took %v", took)
				}
				synctest.Wait()
				if n := s.Stats().Outcomes[OverLimit]; n != 1 { // each login frees the place
					t.Errorf("%d were evicted", n)
				}
			})
		})
	}
}

// A peer that sends a byte now and then uses up its time like one that is silent.
func TestASlowPeerIsOverdue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, d := newSite(t, func(c *Config) { c.MaxUnauthenticated = 1 }), newStandIn(t)
		s.know("edge7", d, "")
		done := make(chan struct{})
		defer synctest.Wait()
		defer close(done)
		s.call("192.0.2.1:1", func(c net.Conn) {
			go quietly(c)
			for {
				select {
				case <-done:
					return
				case <-time.After(time.Second):
					_, _ = io.WriteString(c, "x")
				}
			}
		})
		begun := time.Now()
		s.call("192.0.3.1:1", d.serve)
		s.await(nmsproto.EventUp)
		if took := time.Since(begun); took < minWait || took > maxWait {
			t.Errorf("it took %v", took)
		}
	})
}

// A fleet that comes back at once, many times the limit, is not dropped: the station
// does not accept what it has no place for.
func TestAFleetWaitsForItsPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const many = 150
		s := newSite(t, func(c *Config) { c.MaxUnauthenticated = 8 })
		for n := range many {
			d := newStandIn(t)
			s.know(fmt.Sprintf("d%d", n), d, "")
			go s.call(fmt.Sprintf("192.0.2.%d:1", n), d.serve)
		}
		for s.Stats().Devices[nmsproto.Connected] < many {
			time.Sleep(time.Millisecond)
		}
		if st := s.Stats(); st.Outcomes[LoggedIn] != many || st.Outcomes[OverLimit] != 0 {
			t.Errorf("stats %+v", st)
		}
	})
}

// A device at an address that logged in lately does not wait for the key exchanges of the
// peers that came before it, nor does one behind a load balancer.
func TestAnAttackersKeyExchangesDelayNoDevice(t *testing.T) {
	const attackers = 40
	for name, balancer := range map[string]string{"direct": "", "behind a load balancer": "PROXY TCP4 192.0.2.1 192.0.2.2 1 4334\r\n"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, d := newSite(t, func(c *Config) { c.Balancers = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")} }), newStandIn(t)
				s.know("edge7", d, "")
				s.unauthenticated.Remember(mustAddr("192.0.2.1:1").Addr(), time.Now())
				most := s.turns.unused()
				for range most {
					s.turns.take(admission.Recent, nil)
				}
				for n := range attackers {
					s.call(fmt.Sprintf("10.%d.0.1:1", n), newStandIn(t).serve)
				}
				synctest.Wait()
				if balancer == "" {
					s.call("192.0.2.1:1", d.serve)
				} else {
					s.call("198.51.100.1:1", func(c net.Conn) {
						_, _ = io.WriteString(c, balancer)
						d.serve(c)
					})
				}
				synctest.Wait()
				for range most {
					s.turns.give()
				}
				s.await(nmsproto.EventUp)
				if n := s.Stats().Outcomes[Unknown]; n > attackers/2 {
					t.Errorf("%d of %d attackers were served before the device", n, attackers)
				}
			})
		})
	}
}

// Of a fleet behind one address the station refuses what is above the limit, and
// evicts none that it has admitted.
func TestAFleetBehindOneAddressKeepsItsPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const many = 100
		s := newSite(t, func(c *Config) { c.MaxPerSource = 16 })
		for n := range many {
			d := newStandIn(t)
			s.know(fmt.Sprintf("d%d", n), d, "")
			s.call(fmt.Sprintf("192.0.2.1:%d", 1000+n), d.serve)
		}
		synctest.Wait()
		if st := s.Stats(); st.Outcomes[LoggedIn] < 16 || st.Outcomes[LoggedIn]+st.Outcomes[OverLimit] != many {
			t.Errorf("stats %+v", st)
		}
		events, _, cancel := s.Subscribe()
		cancel()
		for _, e := range events {
			if strings.Contains(e.Cause, "evicted") {
				t.Errorf("got %+v", e)
			}
		}
	})
}

// A device that has proven its key keeps its place, however long its login takes.
func TestALoginIsNotEvicted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, slow, d := newSite(t, func(c *Config) { c.MaxUnauthenticated = 1 }), newStandIn(t), newStandIn(t)
		s.know("slow", slow, "")
		s.know("edge7", d, "")
		slow.loginTime = 20 * time.Second
		s.call("192.0.2.1:1", slow.serve)
		synctest.Wait()
		s.call("192.0.3.1:1", d.serve)
		for _, want := range []string{"slow", "edge7"} {
			if e := s.await(nmsproto.EventUp); e.Device != want {
				t.Errorf("%s is up, want %s", e.Device, want)
			}
		}
	})
}

// A connection with one of the last descriptors is closed, and one that is overdue with it.
func TestTheLastDescriptorsAreNoDevices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		scarce := false
		s, d := newSite(t, func(c *Config) { c.Scarce = func(net.Conn) bool { return scarce } }), newStandIn(t)
		s.know("edge7", d, "")
		s.call("192.0.2.9:1", quietly)
		time.Sleep(10 * time.Second) // it is overdue
		scarce = true
		s.call("192.0.2.1:1", d.serve)
		causes := make(map[string]string)
		for range 2 { // in any order: each connection reports its own
			e := s.await(nmsproto.EventRefused)
			causes[e.Address] = e.Cause
		}
		if !strings.Contains(causes["192.0.2.1:1"], "no file descriptor is left") || !strings.Contains(causes["192.0.2.9:1"], "evicted") {
			t.Errorf("got %v", causes)
		}
		synctest.Wait()
		if st := s.Stats(); st.Unauthenticated != 0 {
			t.Errorf("%d are unauthenticated", st.Unauthenticated)
		}
		scarce = false
		s.call("192.0.2.1:2", d.serve)
		s.await(nmsproto.EventUp)
	})
}

// A connection that waits for a place ends with the station.
func TestAStoppingStationTakesNoConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, func(c *Config) { c.MaxUnauthenticated = 1 })
		s.call("192.0.2.1:1", quietly)
		ctx, cancel := context.WithCancel(t.Context())
		a, b := net.Pipe()
		taken := make(chan struct{})
		go func() {
			defer close(taken)
			s.Take(ctx, from{a, "192.0.3.1:1"})
		}()
		synctest.Wait()
		cancel()
		<-taken
		if _, err := b.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("got %v", err)
		}
	})
}

// Peers without a known key are refused after some attempts; a device that has logged
// in is not, from the same address.
func TestFailedAttemptsAreLimited(t *testing.T) {
	for _, tt := range []struct {
		name  string
		serve func(*standIn) func(net.Conn)
	}{
		{"an unknown key", func(d *standIn) func(net.Conn) { return d.serve }},
		{"no SSH", func(*standIn) func(net.Conn) {
			return func(c net.Conn) {
				_, _ = io.WriteString(c, "HTTP/1.1 400\r\n\r\n")
				_, _ = c.Read(make([]byte, 64)) // the station's version
				c.Close()
			}
		}},
		{"gone at once", func(*standIn) func(net.Conn) { return func(c net.Conn) { c.Close() } }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, unknown, d := newSite(t, nil), newStandIn(t), newStandIn(t)
				s.know("edge7", d, "")
				attempts := func(address string) {
					for n := range 20 {
						s.call(fmt.Sprintf("%s:%d", address, 1000+n), tt.serve(unknown))
						synctest.Wait()
						time.Sleep(50 * time.Millisecond)
					}
				}
				attempts("192.0.2.1")
				time.Sleep(s.config.LoginTime)
				if n := s.Stats().Outcomes[OverLimit]; n == 0 {
					t.Errorf("%d were refused", n)
				}
				s.call("192.0.3.1:1", d.serve)
				s.await(nmsproto.EventUp)
				refused := s.Stats().Outcomes[OverLimit]
				attempts("192.0.3.1")
				if n := s.Stats().Outcomes[OverLimit]; n != refused {
					t.Errorf("%d more were refused", n-refused)
				}
			})
		})
	}
}

// The bubble's clock stands still while they log in: the machine may be slow.
func TestManyDevicesAtOnce(t *testing.T) {
	const many = 100
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, func(c *Config) { c.MaxPerSource = 2 * many })
		for n := range many {
			d := newStandIn(t)
			s.know(fmt.Sprintf("d%d", n), d, "")
			go s.call(fmt.Sprintf("192.0.2.1:%d", 1000+n), d.serve)
		}
		for range many {
			s.await(nmsproto.EventUp)
		}
		var wg sync.WaitGroup
		for n := range many {
			wg.Go(func() {
				c := s.dial(fmt.Sprintf("d%d", n))
				text := fmt.Sprintf("hello %d", n)
				if got := c.exchange(text); got != text {
					t.Errorf("device %d sent %q", n, got)
				}
				if r, err := c.end(); err != nil || r.ExitStatus == nil || *r.ExitStatus != 0 {
					t.Errorf("device %d: %+v, %v", n, r, err)
				}
			})
		}
		wg.Wait()
		if st := s.Stats(); st.Sessions != many || st.SessionsNow != 0 {
			t.Errorf("stats %+v", st)
		}
	})
}

// peer is a peer with a session.
type peer struct {
	t    testing.TB
	sock *net.UnixConn
	done chan error
	out  nmsproto.ConnectResult
	stop context.CancelFunc
}

func (s *site) dial(id string) *peer {
	s.t.Helper()
	ours, theirs := socketpair(s.t)
	ctx, cancel := context.WithCancel(context.Background())
	c := &peer{t: s.t, sock: ours, done: make(chan error, 1), stop: cancel}
	s.t.Cleanup(cancel)
	go func() {
		var err error
		c.out, err = s.Connect(ctx, id, theirs)
		c.done <- err
	}()
	return c
}

// exchange writes text and reads as many bytes.
func (c *peer) exchange(text string) string {
	c.t.Helper()
	if _, err := io.WriteString(c.sock, text); err != nil {
		c.t.Error(err)
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(c.sock, got); err != nil {
		c.t.Error(err)
	}
	return string(got)
}

// end sends the peer's end and waits for the device's.
func (c *peer) end() (nmsproto.ConnectResult, error) {
	c.t.Helper()
	_ = c.sock.CloseWrite()
	err := c.wait()
	return c.out, err
}

func (c *peer) wait() error {
	c.t.Helper()
	select {
	case err := <-c.done:
		return err
	case <-time.After(20 * time.Second):
		c.t.Fatal("the session has no end")
		return nil
	}
}

// joined returns a site with one connected device that has that subsystem.
func joined(t *testing.T, netconf func(ssh.Channel) uint32) (*site, net.Conn) {
	t.Helper()
	s, d := newSite(t, nil), newStandIn(t)
	d.netconf = netconf
	s.know("edge7", d, "")
	conn := s.call("192.0.2.1:1", d.serve)
	s.await(nmsproto.EventUp)
	return s, conn
}

// No byte is lost when the peer does not read for a while, and the station buffers
// none beyond SSH's windows.
func TestASessionIsAsFastAsItsReader(t *testing.T) {
	s, _ := joined(t, sshtest.Echo)
	c := s.dial("edge7")
	const size = 24 << 20
	wrote := make(chan error, 1)
	var written int64
	go func() {
		n, err := io.Copy(c.sock, io.LimitReader(pattern{}, size))
		written = n
		wrote <- errors.Join(err, c.sock.CloseWrite())
	}()
	// The peer does not read: the writer blocks long before the end.
	select {
	case err := <-wrote:
		t.Fatalf("%d bytes were taken that the peer has not read: %v", written, err)
	case <-time.After(300 * time.Millisecond):
	}
	got, err := io.Copy(&patternChecker{t: t}, c.sock)
	if err := errors.Join(err, <-wrote, c.wait()); err != nil || got != size {
		t.Errorf("read %d of %d bytes: %v", got, size, err)
	}
	if c.out.Sent != size || c.out.Received != size {
		t.Errorf("counted %+v", c.out)
	}
}

// pattern is bytes that differ from their neighbours.
type pattern struct{}

func (pattern) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(i)
	}
	return len(p) &^ 0xff, nil
}

type patternChecker struct {
	t *testing.T
	n int
}

func (c *patternChecker) Write(p []byte) (int, error) {
	for i, b := range p {
		if b != byte(c.n+i) {
			c.t.Fatalf("byte %d is %d", c.n+i, b)
		}
	}
	c.n += len(p)
	return len(p), nil
}

func TestASessionsEndIsReported(t *testing.T) {
	for _, tt := range []struct {
		name    string
		netconf func(ssh.Channel) uint32
		story   func(s *site, device net.Conn, c *peer)
		status  int // -1: no exit status
		stderr  string
		err     string
	}{
		{"the peer sends its end", sshtest.Echo, func(_ *site, _ net.Conn, c *peer) { _ = c.sock.CloseWrite() }, 0, "", ""},
		{"the server ends first", func(ch ssh.Channel) uint32 {
			_, _ = io.WriteString(ch.Stderr(), "no license\n")
			return 3
		}, func(*site, net.Conn, *peer) {}, 3, "no license\n", ""},
		{"the peer is gone", func(ch ssh.Channel) uint32 {
			for {
				if _, err := ch.Write(make([]byte, 1<<10)); err != nil {
					return 1
				}
			}
		}, func(_ *site, _ net.Conn, c *peer) { c.sock.Close() }, -1, "", ""},
		{"the peer's request is cancelled", func(ch ssh.Channel) uint32 {
			_, _ = io.Copy(ch, ch)
			select {} // and it never ends
		}, func(_ *site, _ net.Conn, c *peer) {
			c.exchange("x")
			c.stop()
		}, -1, "", ""},
		{"the device is gone", sshtest.Echo, func(_ *site, device net.Conn, c *peer) {
			c.exchange("x")
			device.Close()
		}, -1, "", "the connection of edge7 ended: the device closed the connection"},
		{"no subsystem", nil, func(*site, net.Conn, *peer) {}, -1, "", "opening a netconf channel to edge7: the device has no netconf subsystem"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, device := joined(t, tt.netconf)
			c := s.dial("edge7")
			tt.story(s, device, c)
			err := c.wait()
			if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("got %v, want %q", err, tt.err)
			}
			if status := statusOf(c.out); status != tt.status || c.out.Stderr != tt.stderr {
				t.Errorf("got %+v", c.out)
			}
			// The peer sees the end.
			_ = c.sock.SetReadDeadline(time.Now().Add(20 * time.Second))
			if _, err := io.Copy(io.Discard, c.sock); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("the socket is open still")
			}
			if st := s.Stats(); st.SessionsNow != 0 {
				t.Errorf("%d sessions are left", st.SessionsNow)
			}
		})
	}
}

func statusOf(r nmsproto.ConnectResult) int {
	if r.ExitStatus == nil {
		return -1
	}
	return *r.ExitStatus
}

func TestASessionNeedsAConnectedDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, d := newSite(t, nil), newStandIn(t)
		s.know("edge7", d, "")
		connect := func(id string) error {
			a, b := net.Pipe()
			defer a.Close()
			_, err := s.Connect(t.Context(), id, duplexPipe{b})
			return err
		}
		for id, want := range map[string]string{"edge7": "device edge7 is not connected: it has not called home since the station started", "edge8": `there is no device "edge8"`} {
			if err := connect(id); err == nil || err.Error() != want {
				t.Errorf("got %v, want %q", err, want)
			}
		}
		d.mute = true
		s.call("192.0.2.1:1", d.serve)
		s.await(nmsproto.EventDown)
		if err := connect("edge7"); err == nil || !strings.Contains(err.Error(), "not connected: no answer to a keepalive") {
			t.Errorf("got %v", err)
		}
		if st := s.Stats(); st.SessionsFailed != 3 || st.Sessions != 0 {
			t.Errorf("stats %+v", st)
		}
	})
}

// duplexPipe is a pipe in place of a peer's socket.
type duplexPipe struct{ net.Conn }

func (d duplexPipe) CloseWrite() error { return nil }

func TestABalancersHeaderNamesTheDevicesAddress(t *testing.T) {
	v2 := "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x09\x0a\x00\x00\x01\x04\xd2\x10\xee"
	for _, tt := range []struct{ name, from, header, event, address, cause string }{
		{"version 1", "10.0.0.1:5", "PROXY TCP4 192.0.2.9 10.0.0.1 1234 4334\r\n", nmsproto.EventUp, "192.0.2.9:1234", ""},
		{"version 1, IPv6", "10.0.0.1:5", "PROXY TCP6 2001:db8::9 2001:db8::1 1234 4334\r\n", nmsproto.EventUp, "[2001:db8::9]:1234", ""},
		{"version 2", "10.0.0.1:5", v2, nmsproto.EventUp, "192.0.2.9:1234", ""},
		{"none", "10.0.0.1:5", "", nmsproto.EventRefused, "10.0.0.1:5", "no PROXY header"},
		{"wrong", "10.0.0.1:5", "PROXY TCP4 x y 1 2\r\n", nmsproto.EventRefused, "10.0.0.1:5", "no PROXY header"},
		{"a health check", "10.0.0.1:5", "PROXY UNKNOWN\r\n", "", "", ""},
		// A header from an address that is not a trusted balancer's is ignored.
		{"from elsewhere", "192.0.2.66:5", "PROXY TCP4 192.0.2.9 10.0.0.1 1234 4334\r\n", nmsproto.EventUp, "192.0.2.66:5", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, func(c *Config) { c.Balancers = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")} })
				d := newStandIn(t)
				s.know("edge7", d, "")
				s.call(tt.from, func(c net.Conn) {
					_, _ = io.WriteString(c, tt.header)
					d.serve(c)
				})
				if tt.event == "" {
					synctest.Wait()
					if st := s.Stats(); st.Unauthenticated != 0 || len(st.Outcomes) != len(Outcomes) {
						t.Errorf("stats %+v", st)
					}
					return
				}
				if e := s.await(tt.event); e.Address != tt.address || !strings.Contains(e.Cause, tt.cause) {
					t.Errorf("got %+v", e)
				}
			})
		})
	}
}

func TestAStoppedStationHasNothingLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, d := newSite(t, nil), newStandIn(t)
		s.know("edge7", d, "")
		s.call("192.0.2.1:1", d.serve)
		s.await(nmsproto.EventUp)
		s.call("192.0.2.1:2", quietly)
		s.stop()
		if st := s.Stats(); st.Unauthenticated != 0 || st.Devices[nmsproto.Connected] != 0 {
			t.Errorf("stats %+v", st)
		}
		s.call("192.0.2.1:3", d.serve) // closed at once
		synctest.Wait()
		if st := s.Stats(); st.Unauthenticated != 0 {
			t.Errorf("stats %+v", st)
		}
	})
}

func TestCheckRefusesUnusableValues(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Config)
		err    string
	}{
		{"the defaults", func(*Config) {}, ""},
		{"no time", func(c *Config) { c.KeepaliveTime = 0 }, "keepalive-time 0s: expected a time above 0"},
		{"no place", func(c *Config) { c.MaxPerSource = 0 }, "expected at least 1"},
		{"no policy", func(c *Config) { c.Duplicate = "both" }, "expected refuse or replace"},
	} {
		c := Defaults()
		tt.change(&c)
		if err := c.Check(); tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}
