package registry

import (
	"slices"

	"golang.org/x/crypto/ssh"
)

// plainOrder and certOrder are host key algorithms, the best first.
var (
	plainOrder = []string{
		ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256,
	}
	certOrder = []string{
		ssh.CertAlgoED25519v01, ssh.CertAlgoECDSA256v01, ssh.CertAlgoECDSA384v01, ssh.CertAlgoECDSA521v01, ssh.CertAlgoRSASHA512v01, ssh.CertAlgoRSASHA256v01,
	}
	// typeOf is the key type of a signature algorithm where it differs.
	typeOf = map[string]string{ssh.KeyAlgoRSASHA512: ssh.KeyAlgoRSA, ssh.KeyAlgoRSASHA256: ssh.KeyAlgoRSA}
)

// Algorithms returns the host key algorithms to ask a caller for, before it is
// known who calls: certificates where a CA is known, then the kinds of keys that
// entries have, then the others, so that an unknown device can be seen.
func (r *Registry) Algorithms() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	have := make(map[string]bool)
	certs := false
	for _, e := range r.entries {
		certs = certs || len(e.CAs) > 0
		for _, k := range e.HostKeys {
			have[k.Type()] = true
		}
	}
	var used, others []string
	for _, a := range plainOrder {
		t := a
		if typeOf[a] != "" {
			t = typeOf[a]
		}
		if have[t] {
			used = append(used, a)
		} else {
			others = append(others, a)
		}
	}
	if certs {
		return slices.Concat(certOrder, used, others)
	}
	return slices.Concat(used, others)
}
