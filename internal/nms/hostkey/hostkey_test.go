package hostkey

import (
	"crypto/rand"
	"slices"
	"strings"
	"testing"

	"callhome/internal/nms/sshtest"

	"golang.org/x/crypto/ssh"
)

func TestHowACASigns(t *testing.T) {
	ca := sshtest.NewRSA(t, 2048)
	for algorithm, words := range map[string]string{
		ssh.KeyAlgoRSA: "is signed with SHA-1 (ssh-rsa)", ssh.KeyAlgoRSASHA256: "", ssh.KeyAlgoRSASHA512: "",
	} {
		wants(t, certify(t, sshtest.SigningAs(t, ca, algorithm)), words)
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

func wants(t *testing.T, c *ssh.Certificate, words string) {
	t.Helper()
	if err := CheckSignature(c); words == "" && err != nil || words != "" && (err == nil || err.Error() != words) {
		t.Errorf("%s: got %v, want %q", c.Signature.Format, err, words)
	}
}

// What is asked for can be answered by the library, and nothing of it is SHA-1.
func TestAllIsSupportedAndSound(t *testing.T) {
	supported := ssh.SupportedAlgorithms().HostKeys
	all := All()
	for _, a := range all {
		if !slices.Contains(supported, a) {
			t.Errorf("%s is not supported, or insecure", a)
		}
	}
	if len(all) != len(supported) || !strings.Contains(all[0], "-cert-") {
		t.Errorf("asks for %v, supported is %v", all, supported)
	}
}
