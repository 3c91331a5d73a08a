package station

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"callhome/internal/nms/nmsproto"
	"callhome/internal/nms/registry"
	"callhome/internal/nms/sshtest"
	"callhome/internal/proto"

	"golang.org/x/crypto/ssh"
)

// mustFail expects an error of that code with that text.
func (s *site) mustFail(err error, code proto.Code, text string) {
	s.t.Helper()
	var e *proto.Error
	if !errors.As(err, &e) || e.Code != code || !strings.Contains(e.Error(), text) {
		s.t.Errorf("got %v, want %q", err, text)
	}
}

func (s *site) revokedKeys() string {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join(s.dir, registry.RevokedFile))
	if err != nil {
		s.t.Fatal(err)
	}
	return string(text)
}

func TestARemovedDeviceIsUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, d := newSite(t, nil), newStandIn(t)
		s.know("edge7", d, "")
		s.call("192.0.2.1:1", d.serve)
		s.await(nmsproto.EventUp)
		s.mustFail(s.Remove(nmsproto.RemoveParams{Device: "edge8"}), proto.CodeNoExists, `there is no device "edge8"`)
		s.mustFail(s.Remove(nmsproto.RemoveParams{Device: "../edge7"}), proto.CodeBadType, "device id")
		if err := s.Remove(nmsproto.RemoveParams{Device: "edge7"}); err != nil {
			t.Fatal(err)
		}
		if e := s.await(nmsproto.EventDown); e.Device != "edge7" || !strings.Contains(e.Cause, "no entry") {
			t.Errorf("got %+v", e)
		}
		if _, known := s.Device("edge7"); known {
			t.Error("it is known")
		}
		if _, err := os.Stat(filepath.Join(s.dir, "edge7.json")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("its file: %v", err)
		}
		s.call("192.0.2.1:2", d.serve)
		s.await(nmsproto.EventUnknown)
	})
}

// Nothing is left of a device that was removed: connected, lost, after a failed call, or
// while its last event was held back.
func TestARemovedDeviceLeavesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, nil)
		remove := func(id string) {
			t.Helper()
			if err := s.Remove(nmsproto.RemoveParams{Device: id}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		// d0 is connected, d1 lost, and d2 has more events than are published at once.
		all := s.many(3)
		for range stateLimit.Burst {
			s.End("d2", *s.mustBe("d2", nmsproto.Connected, "").Since, "for a test")
			s.call("192.0.4.1:1", all[2].serve)
			synctest.Wait()
		}
		s.End("d1", *s.mustBe("d1", nmsproto.Connected, "").Since, "for a test")
		synctest.Wait()
		s.noteError("never", "refused while its entry was removed")
		for _, id := range []string{"d0", "d1", "d2"} {
			remove(id)
		}
		time.Sleep(stateLimit.Window)
		synctest.Wait()
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.devices)+len(s.history.devices)+len(s.Station.events.devices) > 0 {
			t.Errorf("left are states %v, histories %v, rate limits %v", s.devices, s.history.devices, s.Station.events.devices)
		}
	})
}

// A file that is not in force can be removed, too.
func TestAnInvalidFileIsRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, nil)
		if err := os.WriteFile(filepath.Join(s.dir, "edge7.json"), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		if s.reload(); len(s.config.Registry.Problems()) != 1 {
			t.Fatal(s.config.Registry.Problems())
		}
		if err := s.Remove(nmsproto.RemoveParams{Device: "edge7"}); err != nil {
			t.Fatal(err)
		}
		if e := s.await(nmsproto.EventRemoved); e.Device != "edge7" || len(s.config.Registry.Problems()) != 0 {
			t.Errorf("got %+v, %v", e, s.config.Registry.Problems())
		}
	})
}

func TestADeviceOfWhichAKeyIsRevokedIsEnded(t *testing.T) {
	for _, tt := range []struct {
		name, key string // %f and %k are the device's fingerprint and key
		written   string
	}{
		{"by its id", "edge7", "%k edge7\n"},
		{"by its fingerprint", "%f", "%f\n"},
		{"by its key", " %k lost in the post ", "%k lost in the post\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, d, other := newSite(t, nil), newStandIn(t), newStandIn(t)
				s.know("edge7", d, "")
				s.know("edge8", other, "")
				if err := os.WriteFile(filepath.Join(s.dir, registry.RevokedFile), []byte("# ours"), 0o600); err != nil {
					t.Fatal(err)
				}
				s.call("192.0.2.1:1", d.serve)
				s.await(nmsproto.EventUp)
				s.call("192.0.2.1:2", other.serve)
				s.await(nmsproto.EventUp)
				fingerprint := ssh.FingerprintSHA256(d.host.PublicKey())
				fill := strings.NewReplacer("%f", fingerprint, "%k", sshtest.Line(d.host.PublicKey()))
				for range 2 { // the second time nothing changes
					got, err := s.Revoke(nmsproto.RevokeParams{Key: fill.Replace(tt.key)})
					if err != nil || !slices.Equal(got.HostKeys, []string{fingerprint}) {
						t.Fatalf("got %+v, %v", got, err)
					}
					if got := s.revokedKeys(); got != "# ours\n"+fill.Replace(tt.written) {
						t.Errorf("the list is %q", got)
					}
				}
				if e := s.await(nmsproto.EventDown); e.Device != "edge7" || !strings.Contains(e.Cause, "is revoked") {
					t.Errorf("got %+v", e)
				}
				s.mustBe("edge8", nmsproto.Connected, "")
				s.call("192.0.2.1:3", d.serve)
				if e := s.await(nmsproto.EventRefused); !strings.Contains(e.Cause, "is revoked") {
					t.Errorf("got %+v", e)
				}
			})
		})
	}
}

// What Revoke returns names the devices that it ends.
func TestRevokeNamesTheDevicesThatItEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, d := newSite(t, nil), newStandIn(t)
		s.know("edge7", d, "")
		s.call("192.0.2.1:1", d.serve)
		s.await(nmsproto.EventUp)
		got, err := s.Revoke(nmsproto.RevokeParams{Key: "edge7"})
		if err != nil || !slices.Equal(got.Devices, []string{"edge7"}) {
			t.Errorf("got %+v, %v", got, err)
		}
		if e := s.await(nmsproto.EventRevoked); e.Device != "edge7" || e.HostKey != got.HostKeys[0] {
			t.Errorf("got %+v", e)
		}
	})
}

func TestRevokeRefusesWhatItCannotBringInForce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, nil)
		ca := sshtest.NewSigner(t).PublicKey()
		s.write("edge9", `{"id": "edge9", "cas": ["`+sshtest.Line(ca)+`"], "principals": ["edge9"]}`)
		fingerprint := ssh.FingerprintSHA256(ca)
		for key, want := range map[string]struct {
			code proto.Code
			text string
		}{
			"edge8":                           {proto.CodeNoExists, `there is no device "edge8"`},
			"edge9":                           {proto.CodeNoExists, "name its key instead"},
			"SHA256:short":                    {proto.CodeBadType, "is not a public key, nor a fingerprint or a device"},
			fingerprint + " a\nssh-rsa AAAA":  {proto.CodeBadType, "is not a public key"},
			sshtest.Line(ca) + "\nssh-rsa AA": {proto.CodeBadType, "is not a public key"},
		} {
			_, err := s.Revoke(nmsproto.RevokeParams{Key: key})
			s.mustFail(err, want.code, want.text)
		}
		list := filepath.Join(s.dir, registry.RevokedFile)
		if _, err := os.Stat(list); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("the list: %v", err)
		}
		if err := os.WriteFile(list, []byte("hello\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := s.Revoke(nmsproto.RevokeParams{Key: fingerprint})
		s.mustFail(err, proto.CodeOS, "line 1: \"hello\" is not a public key, nor a fingerprint; correct that line first")
		if got := s.revokedKeys(); got != "hello\n" {
			t.Errorf("the list is %q", got)
		}
	})
}

func TestADeviceWhoseRevocationIsUndoneIsAccepted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, d := newSite(t, nil), newStandIn(t)
		s.know("edge7", d, "")
		other, own := ssh.FingerprintSHA256(sshtest.NewSigner(t).PublicKey()), ssh.FingerprintSHA256(d.host.PublicKey())
		list := filepath.Join(s.dir, registry.RevokedFile)
		if err := os.WriteFile(list, []byte("# ours\n"+other+" edge8\n"+own+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		// The same key once more, as the key itself.
		if _, err := s.Revoke(nmsproto.RevokeParams{Key: "edge7"}); err != nil {
			t.Fatal(err)
		}
		s.call("192.0.2.1:1", d.serve)
		s.await(nmsproto.EventRefused)
		for key, want := range map[string]struct {
			code proto.Code
			text string
		}{
			"edge7":        {proto.CodeBadType, "is no key: name the fingerprint"},
			"SHA256:short": {proto.CodeBadType, "is not a public key, nor a fingerprint"},
			ssh.FingerprintSHA256(sshtest.NewSigner(t).PublicKey()): {proto.CodeNoExists, "no revoked key has the fingerprint SHA256:"},
		} {
			_, err := s.Unrevoke(nmsproto.UnrevokeParams{Key: key})
			s.mustFail(err, want.code, want.text)
		}
		got, err := s.Unrevoke(nmsproto.UnrevokeParams{Key: sshtest.Line(d.host.PublicKey())})
		if err != nil || got.HostKey != own {
			t.Fatalf("got %+v, %v", got, err)
		}
		if e := s.await(nmsproto.EventUnrevoked); e.HostKey != own {
			t.Errorf("got %+v", e)
		}
		if got := s.revokedKeys(); got != "# ours\n"+other+" edge8\n" {
			t.Errorf("the list is %q", got)
		}
		s.call("192.0.2.1:1", d.serve)
		s.await(nmsproto.EventUp)
		if err := os.WriteFile(list, []byte("hello\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err = s.Unrevoke(nmsproto.UnrevokeParams{Key: other})
		s.mustFail(err, proto.CodeOS, "removing from revoked_keys: line 1: \"hello\" is not a public key, nor a fingerprint; correct that line first")
	})
}

func TestAForgottenCallerIsListedAgainWhenItCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, d := newSite(t, nil), newStandIn(t)
		s.call("192.0.2.1:1", d.serve)
		key := s.await(nmsproto.EventUnknown).HostKey
		if err := s.Forget(nmsproto.ForgetParams{HostKey: key}); err != nil || len(s.Unknown()) != 0 {
			t.Errorf("%v, unknown: %+v", err, s.Unknown())
		}
		s.mustFail(s.Forget(nmsproto.ForgetParams{HostKey: key}), proto.CodeNoExists, "no unknown device has called with the host key "+key)
		s.call("192.0.2.1:2", d.serve)
		s.await(nmsproto.EventUnknown)
		if list := s.Unknown(); len(list) != 1 || list[0].Calls != 1 {
			t.Errorf("unknown: %+v", list)
		}
	})
}

// The numbers of events have no gap, and those of a later run are higher.
func TestEventsAreNumbered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, nil)
		for range 3 {
			s.Publish(nmsproto.Event{Event: nmsproto.EventAdopted})
		}
		first := s.await(nmsproto.EventAdopted).Sequence
		for n := range uint64(2) {
			if got := s.await(nmsproto.EventAdopted).Sequence; got != first+1+n {
				t.Errorf("got %d after %d", got, first+n)
			}
		}
		if next := newSite(t, nil); next.Station.events.sequence+1 < first {
			t.Errorf("a later run begins with %d, before it was %d", next.Station.events.sequence+1, first)
		}
	})
}
