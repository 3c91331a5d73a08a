package registry

import (
	"fmt"
	"strings"
	"time"

	"callhome/internal/nms/hostkey"
	"callhome/internal/printable"

	"golang.org/x/crypto/ssh"
)

// Lookup returns the device that has the key, which may be a certificate.
// ErrUnknown means that nobody has it; other errors say what is wrong with a
// key that the registry knows something of. The caller has seen the proof that
// the peer holds the key.
func (r *Registry) Lookup(key ssh.PublicKey, now time.Time) (*Entry, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	cert, isCert := key.(*ssh.Certificate)
	plain := key
	if isCert {
		plain = cert.Key
	}
	if r.revoked == nil {
		return nil, fmt.Errorf("%s cannot be read, so every key counts as revoked", RevokedFile)
	}
	if r.revoked[ssh.FingerprintSHA256(plain)] {
		return nil, fmt.Errorf("host key %s is revoked", ssh.FingerprintSHA256(plain))
	}
	// A pinned key needs no certificate, whoever signed one for it.
	if id := r.byKey[string(plain.Marshal())]; id != "" {
		return r.entries[id], nil
	}
	if !isCert {
		return nil, ErrUnknown
	}
	return r.certified(cert, now)
}

func (r *Registry) certified(cert *ssh.Certificate, now time.Time) (*Entry, error) {
	ca := string(cert.SignatureKey.Marshal())
	if !r.cas[ca] {
		return nil, ErrUnknown
	}
	fail := func(why string) error {
		return fmt.Errorf("certificate %q (serial %d): %s", printable.Line(cert.KeyId), cert.Serial, why)
	}
	if r.revoked[ssh.FingerprintSHA256(cert.SignatureKey)] {
		return nil, fail("its CA is revoked")
	}
	if cert.CertType != ssh.HostCert {
		return nil, fail("it is not valid for a host")
	}
	if err := hostkey.CheckSignature(cert); err != nil {
		return nil, fail("it " + err.Error())
	}
	if len(cert.ValidPrincipals) == 0 {
		return nil, fail("it names no principal, so it does not say which device it is")
	}
	var id, principal string
	for _, p := range cert.ValidPrincipals {
		other := r.byName[caName{ca, p}]
		if other != "" && id != "" && other != id {
			return nil, fail(fmt.Sprintf("its principals are those of %s and of %s", id, other))
		}
		if other != "" {
			id, principal = other, p
		}
	}
	if id == "" {
		return nil, fail(fmt.Sprintf("no device has its principals %s", printable.Line(strings.Join(cert.ValidPrincipals, ","))))
	}
	checker := ssh.CertChecker{Clock: func() time.Time { return now }}
	if err := checker.CheckCert(principal, cert); err != nil {
		return nil, fail(strings.TrimPrefix(err.Error(), "ssh: "))
	}
	return r.entries[id], nil
}
