package config

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"fmt"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/ssh"
)

// publicKey parses the wire format of RFC 4253 section 6.6, which an OpenSSH public
// key file has in base64.
func publicKey(blob []byte) (ssh.PublicKey, error) {
	k, err := ssh.ParsePublicKey(blob)
	if err != nil {
		return nil, fmt.Errorf("not a public key in SSH's format: paste the second field of a .pub file of ssh-keygen")
	}
	return k, nil
}

// keyLine returns a line of an authorized keys file. The comment comes from the
// document, so unsafe characters are replaced.
func keyLine(k ssh.PublicKey, comment string) string {
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k)))
	comment = strings.Map(func(r rune) rune {
		if notInAccount(r) && r != '@' {
			return '_'
		}
		return r
	}, comment)
	return line + " " + comment
}

// parsePrivateKey parses PKCS #8, PKCS #1 or SEC 1, nil: none of them. The document's
// format is not relied on: openssl genpkey writes PKCS #8, which Netopeer2 stores as
// rsa-private-key-format. The library's errors may quote bytes of the key.
func parsePrivateKey(der []byte) any {
	if key, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		return key
	}
	if key, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return key
	}
	if key, err := x509.ParseECPrivateKey(der); err == nil {
		return key
	}
	return nil
}

// privateKey parses DER; format is for the message. It returns the key as PKCS #8, and
// its public key.
func privateKey(format string, der []byte) ([]byte, ssh.PublicKey, error) {
	key := parsePrivateKey(der)
	if key == nil {
		return nil, nil, fmt.Errorf("not a private key in %s (DER)", format)
	}
	private, ok := key.(crypto.Signer)
	if !ok {
		return nil, nil, fmt.Errorf("this key cannot sign: use RSA, ECDSA or Ed25519")
	}
	public, err := ssh.NewPublicKey(private.Public())
	if err != nil {
		return nil, nil, fmt.Errorf("SSH does not support this kind of key: use RSA, Ed25519, or ECDSA on P-256, P-384 or P-521")
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("not a private key in %s (DER)", format)
	}
	return pkcs8, public, nil
}

// hostKey builds the host key name from n, which has the rows keyPair.
func (b *builder) hostKey(n *node, name string) HostKey {
	k := HostKey{Name: name}
	format, blob := n.child("public-key-format"), n.child("public-key")
	var shown ssh.PublicKey // from the document; the model needs neither of the two
	if raw := as[[]byte](blob); raw != nil && (format == nil || as[string](format) != "") {
		var err error
		if shown, err = publicKey(raw); err != nil {
			b.fail(blob, "%v", err)
		}
	}
	if cert, ok := shown.(*ssh.Certificate); ok {
		if cert.CertType != ssh.HostCert {
			b.fail(blob, "this is a user certificate: a host key needs a host certificate (ssh-keygen -h)")
		}
		k.Certificate = keyLine(cert, name)
		shown = cert.Key
	}
	private := n.child("cleartext-private-key")
	privateFormat := n.child("private-key-format")
	switch {
	case private != nil && privateFormat == nil:
		b.fail(private, "cleartext-private-key needs private-key-format beside it")
	case private != nil:
		raw, format := as[[]byte](private), as[string](privateFormat)
		if raw == nil || format == "" {
			return k
		}
		pkcs8, public, err := privateKey(format, raw)
		if err != nil {
			b.fail(private, "%v", err)
			return k
		}
		if shown != nil && !bytes.Equal(public.Marshal(), shown.Marshal()) {
			b.fail(blob, "the public key does not belong to the private key")
		}
		k.Private = pkcs8
	case n.child("hidden-private-key") != nil:
		if privateFormat != nil {
			b.fail(privateFormat, "a hidden-private-key has no private-key-format")
		}
		if !safeFileName(name) {
			b.fail(n, "%s is not a file name in the key directory: use letters, digits and -_., and begin with a letter or digit", quote(name))
		}
		k.Path = filepath.Join(b.keyDir, name)
	}
	return k
}

func safeFileName(s string) bool {
	return s != "" && !notAlphanumeric(rune(s[0])) && !strings.ContainsFunc(s, notInAccount)
}

// hostKeys builds the endpoint's host keys.
func (b *builder) hostKeys(identity *node) []HostKey {
	var out []HostKey
	for _, n := range identity.list("host-key") {
		pair, name := n.child("public-key", "inline-definition"), n.str("name")
		if ref := n.child("public-key", "central-keystore-reference"); ref != nil && pair == nil {
			name = as[string](ref)
			if pair = b.keystore[name]; pair == nil {
				if name != "" {
					b.fail(ref, "there is no asymmetric-key %s in ietf-keystore:keystore; for a key file of that name in %s add the entry {\"name\": %s, \"hidden-private-key\": [null]}", quote(name), b.keyDir, quote(name))
				}
				continue
			}
		}
		b.used[pair] = true
		if pair == nil || name == "" {
			continue
		}
		out = append(out, b.hostKey(pair, name))
	}
	return out
}

// publicKeys returns the keys of a ts:inline-or-truststore-public-keys-grouping as
// lines, and whether it has an entry, with or without a fault.
func (b *builder) publicKeys(n *node) (lines []string, some bool) {
	from := n.child("inline-definition")
	if ref := n.child("central-truststore-reference"); ref != nil && from == nil {
		name := as[string](ref)
		if from = b.truststore[name]; from == nil {
			if name != "" {
				b.fail(ref, "there is no public-key-bag %s in ietf-truststore:truststore", quote(name))
			}
			return nil, true
		}
	}
	b.used[from] = true
	entries := from.list("public-key")
	for _, k := range entries {
		raw := as[[]byte](k.child("public-key"))
		if raw == nil || k.str("public-key-format") == "" {
			continue
		}
		public, err := publicKey(raw)
		if err != nil {
			b.fail(k.child("public-key"), "%v", err)
			continue
		}
		if _, ok := public.(*ssh.Certificate); ok {
			b.fail(k.child("public-key"), "this is a certificate, not a key: put its CA's key into callhome:user-ca-keys")
			continue
		}
		lines = append(lines, keyLine(public, k.str("name")))
	}
	return lines, len(entries) > 0
}
