package registry

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"callhome/internal/lazyregexp"

	"golang.org/x/crypto/ssh"
)

// Entry is one device, as in its file. It is read-only.
type Entry struct {
	ID         string
	HostKeys   []ssh.PublicKey
	CAs        []ssh.PublicKey // a certificate of one, with one of Principals, is the device's
	Principals []string
	// User and the credential are for the login; the station's own replace empty ones.
	User         string
	KeyFile      string
	PasswordFile string
	Labels       map[string]string
	// Duplicate is the policy for a duplicate; "" for the station's own.
	Duplicate Duplicate

	sum [sha256.Size]byte // of the text that Parse had
}

// Duplicate is the policy for a second live connection of a device.
type Duplicate string

// The policies.
const (
	Refuse  Duplicate = "refuse"  // refuse the new connection
	Replace Duplicate = "replace" // end the old connection
)

// Limits of an entry.
const (
	maxFile   = 64 << 10 // bytes
	maxList   = 32       // keys, CAs, principals
	maxLabels = 64
	maxText   = 1024 // bytes of a user, path or label
)

// idForm allows ids that are safe as a file name, a socket's name, the part of a
// user name, and on a terminal.
var idForm = lazyregexp.New(`^[a-zA-Z0-9][a-zA-Z0-9._-]{0,63}$`)

// CheckID returns an error for text that is not a device id.
func CheckID(id string) error {
	if !idForm().MatchString(id) {
		return fmt.Errorf("device id %.80q: expected 1 to 64 letters, digits, dots, dashes and underscores, a letter or digit first", id)
	}
	return nil
}

// field is a member of an entry's JSON object.
type field struct {
	name string
	set  func(*Entry, json.RawMessage) error
	get  func(*Entry) any // nil for an absent member
}

// fields are all members, in the order of Format.
var fields = []field{
	{"id", func(e *Entry, v json.RawMessage) error { return text(&e.ID, v, CheckID) }, func(e *Entry) any { return e.ID }},
	{"host-keys", func(e *Entry, v json.RawMessage) error { return keys(&e.HostKeys, v) }, func(e *Entry) any { return lines(e.HostKeys) }},
	{"cas", func(e *Entry, v json.RawMessage) error { return keys(&e.CAs, v) }, func(e *Entry) any { return lines(e.CAs) }},
	{"principals", func(e *Entry, v json.RawMessage) error { return texts(&e.Principals, v) }, func(e *Entry) any { return orNil(len(e.Principals), e.Principals) }},
	{"user", func(e *Entry, v json.RawMessage) error { return text(&e.User, v, checkText) }, func(e *Entry) any { return orNil(len(e.User), e.User) }},
	{"key-file", func(e *Entry, v json.RawMessage) error { return text(&e.KeyFile, v, checkPath) }, func(e *Entry) any { return orNil(len(e.KeyFile), e.KeyFile) }},
	{"password-file", func(e *Entry, v json.RawMessage) error { return text(&e.PasswordFile, v, checkPath) }, func(e *Entry) any { return orNil(len(e.PasswordFile), e.PasswordFile) }},
	{"labels", labels, func(e *Entry) any { return orNil(len(e.Labels), e.Labels) }},
	{"duplicate", func(e *Entry, v json.RawMessage) error { return text((*string)(&e.Duplicate), v, checkDuplicate) }, func(e *Entry) any { return orNil(len(e.Duplicate), e.Duplicate) }},
}

func orNil(n int, v any) any {
	if n == 0 {
		return nil
	}
	return v
}

// Parse parses an entry's file. Errors name the line.
func Parse(text []byte) (*Entry, error) {
	if len(text) > maxFile {
		return nil, fmt.Errorf("line 1: the file has %d bytes, the maximum is %d", len(text), maxFile)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	e := &Entry{sum: sha256.Sum256(text)}
	if err := e.members(d); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = errors.New("the file ends in the middle")
		}
		return nil, fmt.Errorf("line %d: %w", lineAt(text, offsetOf(d, err)), err)
	}
	if err := e.check(); err != nil {
		return nil, err
	}
	return e, nil
}

// members parses one JSON object and nothing after it. json.Unmarshal would accept
// member names in any case, twice, or unknown.
func (e *Entry) members(d *json.Decoder) error {
	if t, err := d.Token(); err != nil {
		return err
	} else if t != json.Delim('{') {
		return errors.New("expected an object, { and }")
	}
	seen := make(map[string]bool)
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return err
		}
		name := t.(string) // the decoder accepts nothing else here
		f := fieldOf(name)
		switch {
		case f == nil:
			return fmt.Errorf("%.80q is not a member of a device's entry", name)
		case seen[name]:
			return fmt.Errorf("duplicate member %q", name)
		}
		seen[name] = true
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return err
		}
		if err := f.set(e, value); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if _, err := d.Token(); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("unexpected data after the object")
	}
	return nil
}

func fieldOf(name string) *field {
	for i := range fields {
		if fields[i].name == name {
			return &fields[i]
		}
	}
	return nil
}

func offsetOf(d *json.Decoder, err error) int64 {
	var s *json.SyntaxError
	if errors.As(err, &s) {
		return max(s.Offset, d.InputOffset())
	}
	return d.InputOffset()
}

func lineAt(text []byte, offset int64) int {
	return 1 + bytes.Count(text[:min(int(offset), len(text))], []byte("\n"))
}

// check returns an error for members that are missing or exclude each other.
func (e *Entry) check() error {
	switch {
	case e.ID == "":
		return errors.New("line 1: id is missing")
	case len(e.HostKeys) == 0 && len(e.CAs) == 0:
		return errors.New("line 1: neither host-keys nor cas, expected one of them to recognise the device by")
	case len(e.CAs) > 0 && len(e.Principals) == 0:
		return errors.New("line 1: cas without principals, every host of that CA would pass as this device")
	case len(e.Principals) > 0 && len(e.CAs) == 0:
		return errors.New("line 1: principals without cas have no effect")
	case e.KeyFile != "" && e.PasswordFile != "":
		return errors.New("line 1: key-file and password-file, expected one of them")
	}
	return nil
}

// Format returns the entry as a file that Parse reads.
func (e *Entry) Format() []byte {
	var out bytes.Buffer
	out.WriteString("{")
	separator := "\n\t"
	for _, f := range fields {
		v := f.get(e)
		if v == nil {
			continue
		}
		// Encoding strings, lists and maps of strings cannot fail.
		text, _ := json.MarshalIndent(v, "\t", "\t")
		fmt.Fprintf(&out, "%s%q: %s", separator, f.name, text)
		separator = ",\n\t"
	}
	out.WriteString("\n}\n")
	return out.Bytes()
}

func text(to *string, v json.RawMessage, check func(string) error) error {
	if err := typed(v, to, "a string"); err != nil {
		return err
	}
	return check(*to)
}

func texts(to *[]string, v json.RawMessage) error {
	if err := typed(v, to, "a list of strings"); err != nil {
		return err
	}
	if len(*to) > maxList {
		return fmt.Errorf("%d items, the maximum is %d", len(*to), maxList)
	}
	for _, s := range *to {
		if err := checkText(s); err != nil {
			return err
		}
	}
	return nil
}

func typed(v json.RawMessage, to any, what string) error {
	if json.Unmarshal(v, to) != nil || string(v) == "null" {
		return fmt.Errorf("expected %s", what)
	}
	return nil
}

func labels(e *Entry, v json.RawMessage) error {
	if err := typed(v, &e.Labels, "an object of strings"); err != nil {
		return err
	}
	if len(e.Labels) > maxLabels {
		return fmt.Errorf("%d items, the maximum is %d", len(e.Labels), maxLabels)
	}
	for name, value := range e.Labels {
		if err := checkText(name); err != nil {
			return err
		}
		if value != "" {
			if err := checkText(value); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkText(s string) error {
	control := func(r rune) bool { return r < ' ' || r == 0x7f }
	switch {
	case s == "":
		return errors.New("it is empty")
	case len(s) > maxText:
		return fmt.Errorf("it has %d bytes, the maximum is %d", len(s), maxText)
	case strings.ContainsFunc(s, control):
		return errors.New("it has control characters")
	}
	return nil
}

func checkPath(s string) error {
	if err := checkText(s); err != nil {
		return err
	}
	if !filepath.IsAbs(s) {
		return fmt.Errorf("%q is not an absolute path", s)
	}
	return nil
}

func checkDuplicate(s string) error {
	if d := Duplicate(s); d != Refuse && d != Replace {
		return fmt.Errorf("%.80q, expected refuse or replace", s)
	}
	return nil
}

// keys parses public keys as in a .pub file, or after the name in known_hosts.
func keys(to *[]ssh.PublicKey, v json.RawMessage) error {
	var list []string
	if err := typed(v, &list, "a list of public keys"); err != nil {
		return err
	}
	if len(list) > maxList {
		return fmt.Errorf("%d items, the maximum is %d", len(list), maxList)
	}
	*to = nil
	for _, line := range list {
		k, err := ParseKey(line)
		if err != nil {
			return err
		}
		*to = append(*to, k)
	}
	return nil
}

// ParseKey parses one public key, with or without a comment, and nothing else.
func ParseKey(line string) (ssh.PublicKey, error) {
	k, _, options, rest, err := ssh.ParseAuthorizedKey([]byte(line))
	_, isCert := k.(*ssh.Certificate)
	switch {
	case err != nil || len(options) > 0 || len(rest) > 0 || strings.ContainsAny(strings.TrimSpace(line), "\n\r"):
		return nil, fmt.Errorf("%.80q is not a public key", line)
	case isCert:
		return nil, fmt.Errorf("%.80q is a certificate, expected a key", line)
	}
	return k, nil
}

func lines(keys []ssh.PublicKey) any {
	var out []string
	for _, k := range keys {
		out = append(out, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k))))
	}
	return orNil(len(out), out)
}
