package station

import (
	"fmt"
	"testing"
	"time"

	"callhome/internal/nms/nmsproto"
	"callhome/internal/nms/registry"
	"callhome/internal/nms/sshtest"

	"golang.org/x/crypto/ssh"
)

// BenchmarkAdopt registers an unknown device at a station with 20,000 connections.
func BenchmarkAdopt(b *testing.B) {
	s := newSite(b, nil)
	k := sshtest.NewSigner(b).PublicKey()
	for n := range 20000 {
		id := fmt.Sprintf("edge%d", n)
		s.deviceOf(id).connection = &connection{id: id, key: k}
		s.devices[id].seen.HostKey = "SHA256:" + id
	}
	s.config.RegistryRead = func(registry.Change, error) {}
	b.Cleanup(func() { clear(s.devices) })
	for b.Loop() {
		s.unknown.note(k, "192.0.2.1:1", "SSH-2.0-x", time.Now())
		if _, err := s.adopt(nmsproto.AdoptParams{HostKey: ssh.FingerprintSHA256(k), ID: "new"}); err != nil {
			b.Fatal(err)
		}
		c, err := s.config.Registry.Remove("new")
		if err != nil {
			b.Fatal(err)
		}
		s.recheck(c)
	}
}
