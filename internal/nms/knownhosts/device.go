// Package knownhosts decides whether the peer of a call home is the expected device
// (RFC 8071 section 3.1, C5 and C6): by its host key, its fingerprint, or a
// certificate of a given CA, looked up by the device's name. The console calls it in
// each handshake. It never uses the peer's address: a device calls home from any
// address, and with an entry per address a device at a new one would pass as new. It
// opens no connection, and writes one file at most: that of --accept-new.
package knownhosts

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"callhome/internal/nms/hostkey"
	"callhome/internal/printable"
	"callhome/internal/sysexits"

	"golang.org/x/crypto/ssh"
)

// Options is what is known of a device.
type Options struct {
	// Files are known_hosts files (sshd(8)), with @cert-authority and @revoked. A
	// file that does not exist counts as empty.
	Files []string
	// Port is the port of a device that is looked up by host and port, as ssh(1)
	// does; "" for a device that is looked up by its name.
	Port string
	// Keys, Fingerprints (SHA256:...) and Authorities are known in addition.
	Keys         []ssh.PublicKey
	Fingerprints []string
	Authorities  []ssh.PublicKey
	// Principal is required in a certificate; "" is the device's name.
	Principal string
	// Revoked are revocation lists as in RevokedHostKeys, ssh_config(5): public
	// keys one a line, or a KRL. Each check reads them again.
	Revoked []string
	// AcceptNew is the known_hosts file to record the key of an unknown device in,
	// under the device's name; "" refuses such a device.
	AcceptNew string
}

// Reason is why a peer was refused.
type Reason string

// The reasons.
const (
	Unknown     Reason = "unknown"     // no host key of the device is known
	Changed     Reason = "changed"     // another key than the known ones
	Revoked     Reason = "revoked"     // the key, its certificate, or its CA is revoked
	Certificate Reason = "certificate" // of a known CA, but not valid for this device now
)

// Refusal is why a peer is not the device. Its text has nothing of the peer's but
// the key's fingerprint and quoted, bounded fields of a certificate.
type Refusal struct {
	Reason      Reason
	Name        string // the device's
	KeyType     string // of the key that was shown
	Fingerprint string // of that key, SHA256
	detail      string
}

func (r *Refusal) Error() string { return r.detail }

// Device is one device's identity. Its methods are for any goroutine.
type Device struct {
	Name string

	options      Options
	fingerprints map[string]bool
	revocations  []*revocations
	isRevoked    func(ssh.PublicKey) error // by @revoked

	mu          sync.Mutex // guards the fields that follow: --accept-new adds a key
	keys        []known
	authorities []known
}

// known is a key with the place where it is known from.
type known struct {
	key   ssh.PublicKey
	place string
}

// New reads what is known of the device of that name.
func New(name string, o Options) (*Device, error) {
	name, err := Name(name)
	if o.Port != "" {
		err = nil // ssh's own rules
	}
	if err != nil {
		return nil, err
	}
	if o.Principal == "" {
		o.Principal = name
	}
	d := &Device{Name: name, options: o, fingerprints: make(map[string]bool)}
	for _, f := range o.Fingerprints {
		if f, err = fingerprint(f); err != nil {
			return nil, err
		}
		d.fingerprints[f] = true
	}
	address := net.JoinHostPort(name, "22") // known_hosts leaves port 22 out
	if o.Port != "" {
		address = net.JoinHostPort(name, o.Port)
	}
	if d.keys, d.authorities, d.isRevoked, err = lookUp(address, o.Files); err != nil {
		return nil, err
	}
	for _, k := range o.Keys {
		d.keys = append(d.keys, known{k, "pinned"})
	}
	for _, k := range o.Authorities {
		d.authorities = append(d.authorities, known{k, "given CA"})
	}
	for _, file := range o.Revoked {
		r, err := openRevocations(file)
		if err != nil {
			return nil, err
		}
		d.revocations = append(d.revocations, r)
	}
	return d, nil
}

// maxName is the longest name in DNS, in bytes.
const maxName = 253

// Name returns a device's name in lower case, as ssh looks up HostKeyAlias. It
// refuses a name that would be a pattern or a list in a known_hosts file.
func Name(name string) (string, error) {
	lower := strings.ToLower(name)
	good := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || strings.ContainsRune("-_.", r)
	}
	if lower == "" || len(lower) > maxName || strings.HasPrefix(lower, "-") || strings.IndexFunc(lower, func(r rune) bool { return !good(r) }) >= 0 {
		return lower, sysexits.New(sysexits.Usage, "use letters, digits, dash, underscore and dot", fmt.Errorf("%.300q is not a device's name", name))
	}
	return lower, nil
}

// fingerprint checks a fingerprint as ssh-keygen -l prints it.
func fingerprint(s string) (string, error) {
	trimmed := strings.TrimRight(s, "=")
	if !strings.HasPrefix(trimmed, "SHA256:") || len(trimmed) != len("SHA256:")+43 {
		return "", sysexits.New(sysexits.Usage, "`ssh-keygen -l -f KEY.pub` prints it, SHA256: and 43 characters", fmt.Errorf("%.100q is not a fingerprint", s))
	}
	return trimmed, nil
}

// Algorithms returns the host key algorithms to offer in the handshake: those of the
// known keys. With others in the list, a server with several keys could choose one
// that is not known.
func (d *Device) Algorithms() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []string
	if len(d.authorities) > 0 {
		all = append(all, hostkey.Certificates...)
	}
	anyType := len(d.fingerprints) > 0 || len(d.keys) == 0 && len(d.authorities) == 0
	for _, row := range hostkey.Keys {
		if anyType || slices.ContainsFunc(d.keys, func(k known) bool { return k.key.Type() == row.Type }) {
			all = append(all, row.Algorithms...)
		}
	}
	if len(all) == 0 {
		// The known key has a type that is not supported. The device shows another
		// key, and the refusal names both.
		all = append(all, ssh.KeyAlgoED25519)
	}
	return all
}

// Check returns nil if the key, which the peer has proven to hold, is the device's.
// The error is a *Refusal in a *sysexits.Error, or says why a revocation list or
// known_hosts file cannot be used, which refuses the peer too.
func (d *Device) Check(key ssh.PublicKey) error {
	// A KRL costs a process, so it is read last: any peer can call with some key.
	if err := d.checkRevoked(key, (*revocations).checkLines); err != nil {
		return err
	}
	isNew, err := d.recognise(key)
	if err != nil {
		return err
	}
	if err := d.checkRevoked(key, (*revocations).check); err != nil || !isNew {
		return err
	}
	return d.learn(plain(key))
}

// recognise reports whether a key is the device's, revocation lists apart. isNew is
// true for a key to record, of a device of which no key is known.
func (d *Device) recognise(key ssh.PublicKey) (isNew bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if cert, ok := key.(*ssh.Certificate); ok {
		if in(d.authorities, cert.SignatureKey) {
			return false, d.checkCertificate(cert)
		}
		key = cert.Key // a certificate of an unknown CA proves its key alone
	}
	switch {
	case in(d.keys, key) || d.fingerprints[ssh.FingerprintSHA256(key)]:
		return false, nil
	case len(d.keys)+len(d.fingerprints)+len(d.authorities) > 0:
		return false, d.changed(key)
	case d.options.AcceptNew == "":
		return false, d.refuse(Unknown, key, "compare the fingerprint with the device's own (`ssh-keygen -l -f` there), then record it with --accept-new",
			"no host key is known of device "+d.Name)
	}
	return true, nil
}

// learn records a new device's key, unless another handshake has recorded one
// meanwhile.
func (d *Device) learn(key ssh.PublicKey) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case in(d.keys, key):
		return nil
	case len(d.keys) > 0:
		return d.changed(key)
	}
	if err := record(d.options.AcceptNew, d.address(), key); err != nil {
		return err
	}
	d.keys = append(d.keys, known{key, d.options.AcceptNew})
	return nil
}

func (d *Device) address() string {
	if d.options.Port == "" {
		return d.Name
	}
	return net.JoinHostPort(d.Name, d.options.Port)
}

func in(list []known, key ssh.PublicKey) bool {
	return slices.ContainsFunc(list, func(k known) bool { return equal(k.key, key) })
}

func equal(a, b ssh.PublicKey) bool { return bytes.Equal(a.Marshal(), b.Marshal()) }

func (d *Device) changed(key ssh.PublicKey) error {
	var expected []string
	for _, k := range d.keys {
		expected = append(expected, fmt.Sprintf("%s (%s)", ssh.FingerprintSHA256(k.key), k.place))
	}
	for f := range d.fingerprints {
		expected = append(expected, f)
	}
	for _, k := range d.authorities {
		expected = append(expected, fmt.Sprintf("a certificate of CA %s (%s)", ssh.FingerprintSHA256(k.key), k.place))
	}
	slices.Sort(expected)
	return d.refuse(Changed, key, "it is another device, or one that pretends to be it; if its key was replaced on purpose, replace the known key",
		"this is not device "+d.Name+", whose host key is "+strings.Join(expected, " or "))
}

// refuse ends the message with the key that was shown.
func (d *Device) refuse(reason Reason, key ssh.PublicKey, hint, detail string) error {
	r := &Refusal{Reason: reason, Name: d.Name, KeyType: key.Type(), Fingerprint: ssh.FingerprintSHA256(plain(key))}
	r.detail = fmt.Sprintf("%s: it showed %s %s", detail, r.KeyType, r.Fingerprint)
	return sysexits.New(sysexits.NoPerm, hint, r)
}

// plain returns a certificate's key, or the key itself.
func plain(key ssh.PublicKey) ssh.PublicKey {
	if cert, ok := key.(*ssh.Certificate); ok {
		return cert.Key
	}
	return key
}

func (d *Device) checkCertificate(cert *ssh.Certificate) error {
	invalid := func(why string) error {
		return d.refuse(Certificate, cert, "have the CA issue another one (`ssh-keygen -s CA -h -n "+d.options.Principal+"`)",
			fmt.Sprintf("the certificate of device %s (%.100q, serial %d) %s", d.Name, cert.KeyId, cert.Serial, why))
	}
	const layout = "2006-01-02 15:04:05 MST"
	now := uint64(time.Now().Unix())
	switch {
	case cert.CertType != ssh.HostCert:
		return invalid("is not a host certificate")
	case len(cert.ValidPrincipals) == 0:
		return invalid("names no principal, so it would be valid for every device")
	case !slices.Contains(cert.ValidPrincipals, d.options.Principal):
		return invalid(fmt.Sprintf("is for %.200q, not for %s", cert.ValidPrincipals, d.options.Principal))
	case cert.ValidBefore != ssh.CertTimeInfinity && now >= cert.ValidBefore:
		return invalid("expired at " + time.Unix(int64(cert.ValidBefore), 0).UTC().Format(layout))
	case now < cert.ValidAfter:
		return invalid("is not valid before " + time.Unix(int64(cert.ValidAfter), 0).UTC().Format(layout))
	}
	if err := hostkey.CheckSignature(cert); err != nil {
		return invalid(err.Error())
	}
	checker := ssh.CertChecker{}
	if err := checker.CheckCert(d.options.Principal, cert); err != nil {
		return invalid("is not valid: " + printable.SSHError(err))
	}
	return nil
}

// checkRevoked looks the key up in known_hosts, and in each list with ask.
func (d *Device) checkRevoked(key ssh.PublicKey, ask func(*revocations, ssh.PublicKey) error) error {
	err := d.isRevoked(key)
	for _, r := range d.revocations {
		if err == nil {
			err = ask(r, key)
		}
	}
	var revoked *revokedError
	if errors.As(err, &revoked) {
		return d.refuse(Revoked, key, "if the list is right, give the device a new key", fmt.Sprintf("the key of device %s is revoked in %s", d.Name, revoked.place))
	}
	return err
}
