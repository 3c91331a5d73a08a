package peering

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"callhome/internal/atomicfile"
	"callhome/internal/lazyregexp"
)

// CAKeyFile is the CA's private key, beside CAFile. No station needs it.
const CAKeyFile = "ca.key"

// caTime is how long a CA's certificate is valid.
const caTime = 10 * 365 * 24 * time.Hour

// clockSkew is how far the clock of a station may be behind.
const clockSkew = time.Hour

// Authority signs the certificates of stations.
type Authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem         []byte // of the certificate
	made        bool
}

// OpenAuthority reads the CA in dir, or creates one there.
func OpenAuthority(dir string) (*Authority, error) {
	certFile, keyFile := filepath.Join(dir, CAFile), filepath.Join(dir, CAKeyFile)
	keyPEM, err := os.ReadFile(keyFile)
	if errors.Is(err, os.ErrNotExist) {
		if _, err := os.Lstat(certFile); err == nil {
			return nil, fmt.Errorf("%s is there and %s is not: a CA cannot sign without its key", certFile, keyFile)
		}
		return newAuthority(dir)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the CA's key: %w", err)
	}
	a := new(Authority)
	if a.pem, err = os.ReadFile(certFile); err != nil {
		return nil, fmt.Errorf("reading the CA's certificate: %w", err)
	}
	block, _ := pem.Decode(a.pem)
	if block == nil {
		return nil, fmt.Errorf("reading the CA's certificate: %s has none in PEM", certFile)
	}
	if a.certificate, err = x509.ParseCertificate(block.Bytes); err != nil {
		return nil, fmt.Errorf("reading the CA's certificate in %s: %w", certFile, err)
	}
	if block, _ = pem.Decode(keyPEM); block == nil {
		return nil, fmt.Errorf("reading the CA's key: %s has none in PEM", keyFile)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("reading the CA's key in %s: %w", keyFile, err)
	}
	var ok bool
	if a.key, ok = parsed.(*ecdsa.PrivateKey); !ok || !a.key.PublicKey.Equal(a.certificate.PublicKey) {
		return nil, fmt.Errorf("the key in %s is not the one of the CA in %s", keyFile, certFile)
	}
	return a, nil
}

func newAuthority(dir string) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	t := &x509.Certificate{
		Subject: pkix.Name{CommonName: "callhome-nms stations"}, NotBefore: now.Add(-clockSkew), NotAfter: now.Add(caTime),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, err
	}
	a := &Authority{key: key, pem: encode("CERTIFICATE", der), made: true}
	if a.certificate, err = x509.ParseCertificate(der); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("creating the directory of the CA: %w", err)
	}
	if err := writeKey(filepath.Join(dir, CAKeyFile), key); err != nil {
		return nil, err
	}
	return a, write(filepath.Join(dir, CAFile), a.pem, 0o644)
}

// New reports whether OpenAuthority created the CA.
func (a *Authority) New() bool { return a.made }

// Expires is when the CA's certificate expires.
func (a *Authority) Expires() time.Time { return a.certificate.NotAfter }

// CheckNames returns an error for names that a station's certificate cannot have: its
// own, and those of its host for other servers there, nats-server say. A name of a host
// has a dot or is an address, so it is no station's.
func CheckNames(station string, hosts []string) error {
	if err := CheckStation(station); err != nil {
		return err
	}
	for _, h := range hosts {
		if net.ParseIP(h) == nil && !hostForm().MatchString(h) {
			return fmt.Errorf("host %.80q of station %s: expected an IP address or a DNS name with a dot, in lower case", h, station)
		}
	}
	return nil
}

var hostForm = lazyregexp.New(`^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])?$`)

// Issued returns the hosts in the certificate in a station's directory, and when it
// expires; ok is false without one.
func Issued(dir string) (hosts []string, expires time.Time, ok bool) {
	text, err := os.ReadFile(filepath.Join(dir, CertificateFile))
	if err != nil {
		return nil, expires, false
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, expires, false
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, expires, false
	}
	for _, name := range c.DNSNames {
		if CheckStation(name) != nil {
			hosts = append(hosts, name)
		}
	}
	for _, ip := range c.IPAddresses {
		hosts = append(hosts, ip.String())
	}
	return hosts, c.NotAfter, true
}

// Issue writes the files of a station to dir, which it creates: the CA's certificate, and
// a new certificate and key. The certificate has hosts as further names, and is not valid
// longer than the CA's. It returns when it expires.
func (a *Authority) Issue(dir, station string, hosts []string, valid time.Duration) (time.Time, error) {
	if err := CheckNames(station, hosts); err != nil {
		return time.Time{}, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return time.Time{}, err
	}
	now := time.Now()
	t := &x509.Certificate{
		Subject: pkix.Name{CommonName: station}, DNSNames: []string{station}, NotBefore: now.Add(-clockSkew), NotAfter: now.Add(valid),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, h)
		}
	}
	if t.NotAfter.After(a.certificate.NotAfter) {
		t.NotAfter = a.certificate.NotAfter
	}
	der, err := x509.CreateCertificate(rand.Reader, t, a.certificate, key.Public(), a.key)
	if err != nil {
		return time.Time{}, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return time.Time{}, fmt.Errorf("creating the directory of station %s: %w", station, err)
	}
	if err := writeKey(filepath.Join(dir, KeyFile), key); err != nil {
		return time.Time{}, err
	}
	if err := write(filepath.Join(dir, CertificateFile), encode("CERTIFICATE", der), 0o644); err != nil {
		return time.Time{}, err
	}
	return t.NotAfter, write(filepath.Join(dir, CAFile), a.pem, 0o644)
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func writeKey(path string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return write(path, encode("PRIVATE KEY", der), 0o600)
}

func write(path string, data []byte, mode os.FileMode) error {
	if err := atomicfile.Write(path, data, atomicfile.Options{Mode: mode, Sync: true}); err != nil {
		return fmt.Errorf("writing a certificate or key: %w", err)
	}
	return nil
}
