package registry

import (
	"fmt"
	"strings"
	"time"

	"callhome/internal/nms/hostkey"
	"callhome/internal/printable"

	"golang.org/x/crypto/ssh"
)

// Lookup returns the entry that has the key or certificate. ErrUnknown means that no
// entry has it; other errors say why a key is refused. The caller has verified that
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
		return nil, fmt.Errorf("%s cannot be read, every key counts as revoked", RevokedFile)
	}
	fingerprint := ssh.FingerprintSHA256(plain)
	if r.revoked[fingerprint] {
		return nil, fmt.Errorf("host key %s is revoked", fingerprint)
	}
	// A key in an entry is enough, even if a certificate comes with it.
	if id := r.byKey[fingerprint]; id != "" {
		return r.entries[id], nil
	}
	if !isCert {
		return nil, ErrUnknown
	}
	return r.certified(cert, now)
}

// Owner returns the id of the entry that has the key of that fingerprint, "" where
// none has it.
func (r *Registry) Owner(fingerprint string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.byKey[fingerprint]
}

// IsRevoked reports whether the list of revoked keys has that fingerprint. Where the list
// could never be read, Lookup refuses every key, and this reports false.
func (r *Registry) IsRevoked(fingerprint string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.revoked[fingerprint]
}

func (r *Registry) certified(cert *ssh.Certificate, now time.Time) (*Entry, error) {
	ca := string(cert.SignatureKey.Marshal())
	if r.cas[ca] == 0 {
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
		return nil, fail("it names no principal, so it identifies no device")
	}
	var id, principal string
	for _, p := range cert.ValidPrincipals {
		other := r.byName[caName{ca, p}]
		if other != "" && id != "" && other != id {
			return nil, fail(fmt.Sprintf("its principals belong to two devices, %s and %s", id, other))
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
		return nil, fail(printable.SSHError(err))
	}
	return r.entries[id], nil
}
