package hostkey

import (
	"crypto/rand"
	"slices"
	"strings"
	"testing"

	"callhome/internal/nms/sshtest"

	"golang.org/x/crypto/ssh"
)

func TestASignatureWithSHA1OrAnUnknownAlgorithmIsRefused(t *testing.T) {
	ca := sshtest.NewRSA(t, 2048)
	for algorithm, text := range map[string]string{
		ssh.KeyAlgoRSA: "is signed with SHA-1 (ssh-rsa)", ssh.KeyAlgoRSASHA256: "", ssh.KeyAlgoRSASHA512: "",
	} {
		wants(t, certify(t, sshtest.SigningAs(t, ca, algorithm)), text)
	}
	good := certify(t, sshtest.NewSigner(t))
	wants(t, good, "")
	good.Signature.Format = "x\n"
	wants(t, good, `is signed with "x\n", which is not accepted`)
}

func certify(t *testing.T, ca ssh.Signer) *ssh.Certificate {
	t.Helper()
	c := &ssh.Certificate{Key: sshtest.NewSigner(t).PublicKey(), CertType: ssh.HostCert}
	if err := c.SignCert(rand.Reader, ca); err != nil {
		t.Fatal(err)
	}
	return c
}

func wants(t *testing.T, c *ssh.Certificate, text string) {
	t.Helper()
	if err := CheckSignature(c); text == "" && err != nil || text != "" && (err == nil || err.Error() != text) {
		t.Errorf("%s: got %v, want %q", c.Signature.Format, err, text)
	}
}

// The library supports all offered algorithms, and none of them uses SHA-1.
func TestAllAlgorithmsAreSupportedAndSecure(t *testing.T) {
	supported := ssh.SupportedAlgorithms().HostKeys
	all := All()
	for _, a := range all {
		if !slices.Contains(supported, a) {
			t.Errorf("%s is not supported, or insecure", a)
		}
	}
	if len(all) != len(supported) || !strings.Contains(all[0], "-cert-") {
		t.Errorf("offered are %v, supported are %v", all, supported)
	}
}
