// Package hostkey owns what is asked of host keys whichever way a device is
// recognised: which algorithms, in which order, and how a CA may sign. Packages
// knownhosts and registry call it. It knows no device.
package hostkey

import (
	"fmt"
	"slices"

	"golang.org/x/crypto/ssh"
)

// Certificates are the algorithms of host certificates in our order of
// preference, which is OpenSSH's. None with SHA-1 is among them.
var Certificates = []string{
	ssh.CertAlgoED25519v01, ssh.CertAlgoECDSA256v01, ssh.CertAlgoECDSA384v01, ssh.CertAlgoECDSA521v01,
	ssh.CertAlgoRSASHA512v01, ssh.CertAlgoRSASHA256v01,
}

// Keys are the types of plain keys with their algorithms, in the same order.
var Keys = []struct {
	Type       string
	Algorithms []string
}{
	{ssh.KeyAlgoED25519, []string{ssh.KeyAlgoED25519}},
	{ssh.KeyAlgoECDSA256, []string{ssh.KeyAlgoECDSA256}},
	{ssh.KeyAlgoECDSA384, []string{ssh.KeyAlgoECDSA384}},
	{ssh.KeyAlgoECDSA521, []string{ssh.KeyAlgoECDSA521}},
	{ssh.KeyAlgoRSA, []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}},
}

// All are all algorithms, certificates first.
func All() []string {
	all := slices.Clone(Certificates)
	for _, k := range Keys {
		all = append(all, k.Algorithms...)
	}
	return all
}

// signatures are how a CA may sign: as OpenSSH's CASignatureAlgorithms has it.
// ssh-rsa and ssh-dss, which are SHA-1, do not stand there.
var signatures = []string{
	ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521,
	ssh.KeyAlgoSKED25519, ssh.KeyAlgoSKECDSA256, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256,
}

// CheckSignature refuses a certificate that a CA signed in a way that proves too
// little. That the signature holds is not its question.
func CheckSignature(c *ssh.Certificate) error {
	switch format := c.Signature.Format; {
	case format == ssh.KeyAlgoRSA:
		return fmt.Errorf("is signed with SHA-1 (%s)", format)
	case !slices.Contains(signatures, format):
		return fmt.Errorf("is signed with %.80q, which does not count", format)
	}
	return nil
}
