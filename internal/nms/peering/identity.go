package peering

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// The files of a station's directory. A renewed one is in force at the next connection.
const (
	CAFile          = "ca.crt"
	CertificateFile = "station.crt"
	KeyFile         = "station.key"
	// DeniedFile has the SHA-256 fingerprints of certificates that are not accepted, as
	// `openssl x509 -fingerprint -sha256` prints them, one a line. It may be absent.
	DeniedFile = "denied"
)

var identityFiles = []string{CAFile, CertificateFile, KeyFile, DeniedFile}

// Identity is a station's certificate, the CA whose certificates it accepts, and those
// that it denies, read from a directory. Its methods may be called by several
// goroutines.
type Identity struct {
	station, dir string
	failed       func(error)

	mu   sync.Mutex // guards the fields that follow, held while files are read
	seen stamps
	now  *material
}

// stamps tell whether files have changed.
type stamps [4]struct {
	modified time.Time
	size     int64
}

// material is what an Identity's files had. It is not changed.
type material struct {
	cas         *x509.CertPool
	certificate tls.Certificate
	denied      map[[sha256.Size]byte]bool
}

// Load reads the identity of a station from the files in dir. failed is called with the
// error when changed files cannot be used later; those from before stay in force.
func Load(station, dir string, failed func(error)) (*Identity, error) {
	if err := CheckStation(station); err != nil {
		return nil, err
	}
	i := &Identity{station: station, dir: dir, failed: failed, seen: stampsOf(dir)}
	var err error
	i.now, err = read(station, dir)
	return i, err
}

// Station is the name in the certificate.
func (i *Identity) Station() string { return i.station }

// Expires is when the certificate in force expires.
func (i *Identity) Expires() time.Time { return i.current().certificate.Leaf.NotAfter }

// current returns what the files have, and reads those again that have changed.
func (i *Identity) current() *material {
	i.mu.Lock()
	defer i.mu.Unlock()
	seen := stampsOf(i.dir)
	if seen == i.seen {
		return i.now
	}
	i.seen = seen
	m, err := read(i.station, i.dir)
	if err != nil {
		// Of a certificate and its key one may be new and the other not yet.
		i.failed(err)
		return i.now
	}
	i.now = m
	return m
}

func stampsOf(dir string) (out stamps) {
	for n, name := range identityFiles {
		if info, err := os.Stat(filepath.Join(dir, name)); err == nil {
			out[n].modified, out[n].size = info.ModTime(), info.Size()
		}
	}
	return out
}

// read reads and checks the files.
func read(station, dir string) (*material, error) {
	path := func(name string) string { return filepath.Join(dir, name) }
	m := &material{cas: x509.NewCertPool(), denied: make(map[[sha256.Size]byte]bool)}
	cas, err := os.ReadFile(path(CAFile))
	if err != nil {
		return nil, fmt.Errorf("reading the CA of the stations: %w", err)
	}
	if !m.cas.AppendCertsFromPEM(cas) {
		return nil, fmt.Errorf("reading the CA of the stations: %s has no certificate in PEM", path(CAFile))
	}
	if m.certificate, err = tls.LoadX509KeyPair(path(CertificateFile), path(KeyFile)); err != nil {
		return nil, fmt.Errorf("reading the certificate of station %s in %s: %w", station, dir, err)
	}
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("the certificate in %s: %w", path(CertificateFile), err)
	}
	if !names(m.certificate.Leaf, station) {
		return nil, fmt.Errorf("the certificate in %s is of %s, and this is station %s", path(CertificateFile), strings.Join(m.certificate.Leaf.DNSNames, ", "), station)
	}
	denied, err := os.ReadFile(path(DeniedFile))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("reading the certificates that are denied: %w", err)
	}
	for line := range strings.Lines(string(denied)) {
		sum, ok, err := fingerprint(line)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path(DeniedFile), err)
		}
		if ok {
			m.denied[sum] = true
		}
	}
	return m, nil
}

// check verifies the station's own certificate as another station will, but for its
// expiry: a station that starts with an expired one serves its own devices.
func (m *material) check() error {
	at := time.Now()
	if until := m.certificate.Leaf.NotAfter; at.After(until) {
		at = until
	}
	between := x509.NewCertPool()
	for _, der := range m.certificate.Certificate[1:] {
		if c, err := x509.ParseCertificate(der); err == nil {
			between.AddCert(c)
		}
	}
	for _, use := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		if _, err := m.certificate.Leaf.Verify(x509.VerifyOptions{Roots: m.cas, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{use}, CurrentTime: at}); err != nil {
			return err
		}
	}
	return nil
}

// fingerprint reads a line of DeniedFile; ok is false for an empty line or a comment.
func fingerprint(line string) (out [sha256.Size]byte, ok bool, err error) {
	text := strings.TrimSpace(line)
	if text == "" || strings.HasPrefix(text, "#") {
		return out, false, nil
	}
	if _, after, has := strings.Cut(text, "="); has { // sha256 Fingerprint=AB:CD:...
		text = after
	}
	raw, err := hex.DecodeString(strings.ReplaceAll(text, ":", ""))
	if err != nil || len(raw) != sha256.Size {
		return out, false, fmt.Errorf("%.80q is not a SHA-256 fingerprint", text)
	}
	return [sha256.Size]byte(raw), true, nil
}

// names reports whether a certificate is the station's. A wildcard is of none.
func names(c *x509.Certificate, station string) bool { return slices.Contains(c.DNSNames, station) }

// errDenied is the error for a certificate in DeniedFile.
var errDenied = errors.New("its certificate is denied here")

// refuses returns why m does not accept a certificate that its CA has signed.
func (m *material) refuses(c *x509.Certificate) error {
	if m.denied[sha256.Sum256(c.Raw)] {
		return errDenied
	}
	return nil
}

// client is the configuration for a connection to a station.
func (i *Identity) client(station string) *tls.Config {
	m := i.current()
	return &tls.Config{
		MinVersion: tls.VersionTLS13, ServerName: station, RootCAs: m.cas, Certificates: []tls.Certificate{m.certificate},
		VerifyConnection: func(s tls.ConnectionState) error {
			c := s.PeerCertificates[0]
			if !names(c, station) {
				return fmt.Errorf("its certificate is of %s", strings.Join(c.DNSNames, ", "))
			}
			return m.refuses(c)
		},
	}
}

// errName is the error for a peer that does not know which station it has connected to.
// It gets no certificate, so one without knowledge of the cluster learns no name.
var errName = errors.New("it does not ask for this station")

// server is the configuration for connections of stations. Sessions are not resumed: each
// connection shows a certificate, which may have been denied meanwhile.
func (i *Identity) server() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			if hello.ServerName != i.station {
				return nil, errName
			}
			m := i.current()
			return &tls.Config{
				MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true, Certificates: []tls.Certificate{m.certificate},
				ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: m.cas,
				VerifyConnection: func(s tls.ConnectionState) error { return m.refuses(s.PeerCertificates[0]) },
			}, nil
		},
	}
}
