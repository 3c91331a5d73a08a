package config

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"callhome/internal/device/dial"
	"callhome/internal/device/settings"

	"golang.org/x/crypto/ssh"
)

// File is a file that must exist before sshd starts. Path is absolute.
type File struct {
	Path string
	Mode fs.FileMode
	Data []byte
}

// The names below an endpoint's directory. Of the document's strings only a user's
// name becomes a file name, because sshd expands %u to it; its type (account)
// allows only characters that are safe there.
const (
	keysDir       = "keys"       // one file per user
	principalsDir = "principals" // one file per user
	caFile        = "user_ca"
	proxyFile     = "proxy"
)

// Dir returns the directory of the endpoint's files below dir. Its name is a digest:
// names in the document may have any character, and sshd expands % in a file
// name.
func (e *Endpoint) Dir(dir string) string {
	sum := sha256.Sum256([]byte(strconv.Quote(e.Client) + strconv.Quote(e.Name)))
	return filepath.Join(dir, hex.EncodeToString(sum[:16]))
}

// keyPath returns the file of the endpoint's host key i.
func (e *Endpoint) keyPath(dir string, i int) string {
	if p := e.HostKeys[i].Path; p != "" {
		return p
	}
	return filepath.Join(e.Dir(dir), fmt.Sprintf("host_key_%d", i))
}

func (e *Endpoint) certificatePath(dir string, i int) string {
	return filepath.Join(e.Dir(dir), fmt.Sprintf("host_key_%d-cert.pub", i))
}

// Files returns the files that must exist before sshd starts with e.Call(…, dir).
// They hold private keys and passwords.
func (e *Endpoint) Files(dir string) []File {
	var files []File
	add := func(path string, mode fs.FileMode, data string) {
		files = append(files, File{path, mode, []byte(data)})
	}
	for i, k := range e.HostKeys {
		if k.Path == "" {
			add(e.keyPath(dir, i), 0o600, string(k.pem()))
		}
		if k.Certificate != "" {
			add(e.certificatePath(dir, i), 0o644, k.Certificate+"\n")
		}
	}
	// sshd reads a user's keys with that user's rights.
	for _, u := range e.Users {
		add(filepath.Join(e.Dir(dir), keysDir, u.Name), 0o644, lines(u.Keys))
		if len(e.UserCAs) > 0 {
			add(filepath.Join(e.Dir(dir), principalsDir, u.Name), 0o644, u.Name+"\n")
		}
	}
	if len(e.UserCAs) > 0 {
		add(filepath.Join(e.Dir(dir), caFile), 0o644, lines(e.UserCAs))
	}
	if e.Proxy != nil && e.Proxy.User != "" {
		add(filepath.Join(e.Dir(dir), proxyFile), 0o600, e.Proxy.User+":"+e.Proxy.Password+"\n")
	}
	return files
}

func lines(of []string) string {
	if len(of) == 0 {
		return ""
	}
	return strings.Join(of, "\n") + "\n"
}

// pem returns the private key in the format that every sshd from 8.4 on reads:
// OpenSSH's own. sshd reads Ed25519 keys in PKCS #8 only from 9.6 on.
func (k *HostKey) pem() []byte {
	block := &pem.Block{Type: "PRIVATE KEY", Bytes: k.Private}
	if key, err := x509.ParsePKCS8PrivateKey(k.Private); err == nil {
		if own, err := ssh.MarshalPrivateKey(key, ""); err == nil {
			block = own
		}
	}
	return pem.EncodeToMemory(block)
}

// Call returns the settings of a call home to this endpoint: base, the daemon's own,
// with the document's values in their place. dir is the directory of Files. base is
// not changed.
func (e *Endpoint) Call(base settings.Call, dir string) settings.Call {
	s := base
	s.Target = settings.Target{Host: e.Host, Port: e.Port}
	s.ConnectTimeout, s.Attempts = e.ConnectTimeout, 1
	s.Dial.LocalAddress, s.Dial.LocalPort = e.LocalAddress, e.LocalPort
	if !e.LocalAddress.IsValid() && e.LocalPort == 0 {
		s.Dial.LocalAddress, s.Dial.LocalPort = base.Dial.LocalAddress, base.Dial.LocalPort
	}
	if e.Interface != "" {
		s.Dial.Interface = e.Interface
	}
	if e.DSCP != nil {
		s.Dial.DSCP, s.Sshd.DSCP = e.DSCP, e.DSCP
	}
	if e.TCP != nil {
		s.Dial.KeepAlive = dial.KeepAlive{Idle: seconds(e.TCP.Idle), Interval: seconds(e.TCP.Interval), Count: e.TCP.Count}
	}
	if e.UserTimeout != 0 {
		s.Dial.UserTimeout = e.UserTimeout
	}
	if e.Proxy != nil {
		s.Proxy = settings.Proxy{Scheme: e.Proxy.Scheme, Target: settings.Target{Host: e.Proxy.Host, Port: e.Proxy.Port}}
		if e.Proxy.User != "" {
			s.Proxy.Credentials = filepath.Join(e.Dir(dir), proxyFile)
		}
	}
	e.sshd(&s, dir)
	return s
}

// sshd sets the options of sshd in s.
func (e *Endpoint) sshd(s *settings.Call, dir string) {
	if len(e.HostKeys) > 0 {
		s.Sshd.HostKeys, s.Sshd.HostCertificates = nil, nil
	}
	for i, k := range e.HostKeys {
		s.Sshd.HostKeys = append(s.Sshd.HostKeys, e.keyPath(dir, i))
		if k.Certificate != "" {
			s.Sshd.HostCertificates = append(s.Sshd.HostCertificates, e.certificatePath(dir, i))
		}
	}
	if e.ClientAlive != nil {
		s.Sshd.KeepAlive = e.ClientAlive
	}
	if e.Subsystem != "" {
		s.Sshd.Subsystem, s.Sshd.SSHConnectionPort = e.Subsystem, e.SSHConnectionPort
	}
	if e.DeviceID != "" {
		s.DeviceID = e.DeviceID
	}
	if e.Announce != nil {
		s.Announce = *e.Announce
	}
	s.Sshd.VersionAddendum = s.DeviceID
	if s.Announce {
		s.Sshd.VersionAddendum = ""
	}
	// sshd uses the first of two settings, so the document's come before the daemon's.
	s.Sshd.Options = append(e.options(dir), s.Sshd.Options...)
}

// options returns the endpoint's options of sshd_config(5), as KEY=VALUE.
func (e *Endpoint) options(dir string) []string {
	var out []string
	set := func(key, value string) {
		if value != "" {
			out = append(out, key+"="+value)
		}
	}
	if e.Restricted {
		names := make([]string, len(e.Users))
		for i, u := range e.Users {
			names[i] = u.Name
		}
		if len(names) == 0 {
			set("DenyUsers", "*") // an empty AllowUsers would allow every user
		}
		// Only the document decides which users log in, and how; sshd_config must
		// not add to it. AllowUsers there does add users, in every version of sshd.
		// Such a user has neither a key nor a principal here.
		set("AllowUsers", strings.Join(names, " "))
		set("AuthenticationMethods", "publickey")
		set("AuthorizedKeysFile", filepath.Join(e.Dir(dir), keysDir, "%u"))
		set("AuthorizedKeysCommand", "none")
		set("AuthorizedPrincipalsFile", filepath.Join(e.Dir(dir), principalsDir, "%u"))
		set("AuthorizedPrincipalsCommand", "none")
	}
	switch {
	case len(e.UserCAs) > 0:
		set("TrustedUserCAKeys", filepath.Join(e.Dir(dir), caFile))
	case e.Restricted:
		set("TrustedUserCAKeys", "none")
	}
	set("HostKeyAlgorithms", strings.Join(e.Algorithms.HostKey, ","))
	set("KexAlgorithms", strings.Join(e.Algorithms.Kex, ","))
	set("Ciphers", strings.Join(e.Algorithms.Ciphers, ","))
	set("MACs", strings.Join(e.Algorithms.MACs, ","))
	if e.LoginGrace != 0 {
		set("LoginGraceTime", strconv.Itoa(seconds(e.LoginGrace)))
	}
	if e.Idle != nil {
		set("ChannelTimeout", "session:*="+strconv.Itoa(seconds(e.Idle.Session)))
		set("UnusedConnectionTimeout", strconv.Itoa(seconds(e.Idle.Unused)))
	}
	return out
}

func seconds(d time.Duration) int { return int(d / time.Second) }
