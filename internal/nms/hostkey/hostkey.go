// Package hostkey owns the rules for every device's host key: which algorithms, in
// which order, and with which algorithms a CA may sign. Packages knownhosts and
// registry call it. It never looks a device up.
package hostkey

import (
	"fmt"
	"slices"

	"golang.org/x/crypto/ssh"
)

// Certificates are the algorithms of host certificates in OpenSSH's order of
// preference, without those that use SHA-1.
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

// signatures are the algorithms that a CA may sign with, as in OpenSSH's
// CASignatureAlgorithms: without ssh-rsa and ssh-dss, which use SHA-1.
var signatures = []string{
	ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521,
	ssh.KeyAlgoSKED25519, ssh.KeyAlgoSKECDSA256, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256,
}

// CheckSignature refuses a certificate that a CA signed with a weak or unknown
// algorithm. It does not verify the signature.
func CheckSignature(c *ssh.Certificate) error {
	switch format := c.Signature.Format; {
	case format == ssh.KeyAlgoRSA:
		return fmt.Errorf("is signed with SHA-1 (%s)", format)
	case !slices.Contains(signatures, format):
		return fmt.Errorf("is signed with %.80q, which is not accepted", format)
	}
	return nil
}
