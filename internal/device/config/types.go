package config

import (
	"encoding/base64"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"callhome/internal/device/settings"
)

// leafType checks a leaf's JSON value and returns the Go value. The error is the
// fault's message.
type leafType func(n *node) (any, error)

// quote returns a string of the document for a message, on one line and of bounded
// length.
func quote(s string) string {
	const most = 64
	if len(s) > most {
		s = s[:most] + "…"
	}
	return strconv.Quote(s)
}

func wrongKind(n *node, want string) error {
	if n.kind == isString || n.kind == isNumber || n.kind == isBool {
		return fmt.Errorf("found %s %s; expected %s", n.kind, quote(n.text), want)
	}
	return wrongKindOnly(n, want)
}

// wrongKindOnly does not quote the value: in place of an object or array it can be a
// secret of below.
func wrongKindOnly(n *node, want string) error {
	return fmt.Errorf("found %s; expected %s", n.kind, want)
}

// text is a string of low to high characters without control characters.
func text(low, high int) leafType {
	want := fmt.Sprintf("a string of %d to %d characters", low, high)
	return func(n *node) (any, error) {
		if n.kind != isString {
			return nil, wrongKind(n, want)
		}
		if c := len([]rune(n.text)); c < low || c > high {
			return nil, fmt.Errorf("found %d characters; expected %s", c, want)
		}
		if strings.ContainsFunc(n.text, unicode.IsControl) {
			return nil, fmt.Errorf("%s contains a control character", quote(n.text))
		}
		return n.text, nil
	}
}

// secret is a leaf whose value must not be in a message.
func secret(want string, typ leafType) leafType {
	return func(n *node) (any, error) {
		v, err := typ(n)
		if err != nil {
			return nil, fmt.Errorf("expected %s", want)
		}
		return v, nil
	}
}

// name is the key of a list. The models do not limit its length; logs and metrics
// need a limit.
var name = text(1, 128)

// number is an unsigned integer of at most 32 bits, which RFC 7951 section 6.1
// writes as a JSON number.
func number(low, high int) leafType {
	want := fmt.Sprintf("a number from %d to %d", low, high)
	return func(n *node) (any, error) {
		if n.kind == isString {
			return nil, fmt.Errorf("found a string %s; expected %s, without quotes (RFC 7951 section 6.1)", quote(n.text), want)
		}
		if n.kind != isNumber {
			return nil, wrongKind(n, want)
		}
		v, err := strconv.ParseUint(n.text, 10, 32)
		if err != nil || v < uint64(low) || v > uint64(high) {
			return nil, fmt.Errorf("found %s; expected %s", quote(n.text), want)
		}
		return int(v), nil
	}
}

func boolean(n *node) (any, error) {
	if n.kind != isBool {
		return nil, wrongKind(n, "true or false, without quotes")
	}
	return n.text == "true", nil
}

// empty is YANG's type empty.
func empty(n *node) (any, error) {
	if n.kind != isArray || len(n.items) != 1 || n.items[0].kind != isNull {
		return nil, fmt.Errorf("found %s; a leaf without a value is written [null] (RFC 7951 section 6.9)", n.kind)
	}
	return true, nil
}

func oneOf(values ...string) leafType {
	want := "one of " + strings.Join(values, ", ")
	return func(n *node) (any, error) {
		if n.kind != isString {
			return nil, wrongKind(n, want)
		}
		if slices.Contains(values, n.text) {
			return n.text, nil
		}
		return nil, fmt.Errorf("unknown value %s; expected %s", quote(n.text), want)
	}
}

// cryptoTypes is the module of all identities in the covered part.
const cryptoTypes = "ietf-crypto-types:"

// identity is an identityref to one of ietf-crypto-types' identities; its value is
// the bare name. refused has the messages for identities that are not supported.
// The value is not quoted: it may be the key, set in the wrong leaf.
func identity(refused map[string]string, names ...string) leafType {
	want := "one of " + cryptoTypes + strings.Join(names, ", "+cryptoTypes)
	return func(n *node) (any, error) {
		if n.kind != isString {
			return nil, wrongKindOnly(n, want)
		}
		bare, qualified := strings.CutPrefix(n.text, cryptoTypes)
		if why := refused[bare]; why != "" {
			return nil, fmt.Errorf("%s: %s", bare, why)
		}
		for _, w := range names {
			switch {
			case bare == w && qualified:
				return w, nil
			case bare == w:
				return nil, fmt.Errorf("%s needs its module's name: write %s%s (RFC 7951 section 6.8)", w, cryptoTypes, w)
			}
		}
		return nil, fmt.Errorf("unknown value; expected %s", want)
	}
}

// maxBinary bounds a key, in bytes: an RSA key of 16384 bits has 9 KiB.
const maxBinary = 32 << 10

func binary(n *node) (any, error) {
	if n.kind != isString {
		return nil, wrongKindOnly(n, "base64 in a string")
	}
	if len(n.text) > maxBinary {
		return nil, fmt.Errorf("found %d characters; a key has at most %d", len(n.text), maxBinary)
	}
	b, err := base64.StdEncoding.Strict().DecodeString(n.text)
	if err != nil || len(b) == 0 {
		return nil, fmt.Errorf("not base64 (RFC 4648 section 4), or empty")
	}
	return b, nil
}

func host(n *node) (any, error) {
	if n.kind != isString {
		return nil, wrongKind(n, "a name or an IP address in a string")
	}
	if len(n.text) > 253 {
		return nil, fmt.Errorf("found %d characters; a name has 1 to 253", len(n.text))
	}
	if err := settings.CheckHost(n.text); err != nil {
		return nil, err
	}
	return n.text, nil
}

func address(n *node) (any, error) {
	if n.kind != isString {
		return nil, wrongKind(n, "an IP address in a string")
	}
	a, err := netip.ParseAddr(n.text)
	if err != nil {
		return nil, fmt.Errorf("%s is not an IP address", quote(n.text))
	}
	return a, settings.CheckZone(a)
}

func interfaceName(n *node) (any, error) {
	if n.kind != isString {
		return nil, wrongKind(n, "the name of an interface or VRF")
	}
	if err := settings.CheckInterface(n.text); err != nil {
		return nil, fmt.Errorf("%s: %w", quote(n.text), err)
	}
	return n.text, nil
}

func deviceID(n *node) (any, error) {
	if n.kind != isString {
		return nil, wrongKind(n, "a string")
	}
	if err := settings.CheckDeviceID(n.text); err != nil {
		return nil, err
	}
	return n.text, nil
}

func path(n *node) (any, error) {
	v, err := text(2, 1024)(n)
	if err == nil && !filepath.IsAbs(n.text) {
		return nil, fmt.Errorf("%s: expected an absolute path", quote(n.text))
	}
	return v, err
}

// fullMinute is yang:date-and-time as anchor-time restricts it.
func fullMinute(n *node) (any, error) {
	if n.kind != isString {
		return nil, wrongKind(n, "a time")
	}
	t, err := time.Parse("2006-01-02T15:04:00Z07:00", n.text)
	if err != nil {
		return nil, fmt.Errorf("%s: expected a date, a time on a full minute and its zone, as 2026-01-31T00:15:00Z", quote(n.text))
	}
	return t.UTC(), nil
}

// account is the name of a user that may log in. It becomes a pattern of AllowUsers,
// where *, ?, ! and @ are special, and a file name.
func account(n *node) (any, error) {
	v, err := text(1, 32)(n)
	if err != nil {
		return nil, err
	}
	if n.text[0] == '-' || n.text == "." || n.text == ".." || strings.ContainsFunc(n.text, notInAccount) {
		return nil, fmt.Errorf("%s is not a user name: use letters, digits and -_., and do not begin with -", quote(n.text))
	}
	return v, nil
}

func notInAccount(r rune) bool { return notAlphanumeric(r) && !strings.ContainsRune("-_.", r) }

func notAlphanumeric(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9')
}

// algorithm is a name in a list of sshd_config(5), where a comma separates names and
// a leading +, - or ^ changes the meaning of the list.
func algorithm(n *node) (any, error) {
	v, err := text(1, 64)(n)
	if err != nil {
		return nil, err
	}
	switch {
	case strings.Contains(n.text, ":"):
		return nil, fmt.Errorf("%s: an algorithm is written without a module's name since revision 2024-10-16 of the IANA modules", quote(n.text))
	case notAlphanumeric(rune(n.text[0])) || strings.ContainsFunc(n.text, func(r rune) bool { return notAlphanumeric(r) && !strings.ContainsRune("@-_.", r) }):
		return nil, fmt.Errorf("%s is not the name of an algorithm", quote(n.text))
	}
	return v, nil
}
