package registry

import (
	"bytes"
	"errors"
	"maps"
	"slices"
	"strings"
)

// ErrNotNow is the error for a change of a cluster's registry while its buckets are out
// of reach.
var ErrNotNow = errors.New("the cluster's registry cannot be changed now")

// ErrNotRevoked is the error for a key that is to be removed from a list of revoked keys
// that does not have it.
var ErrNotRevoked = errors.New("the key is not revoked")

// FileName returns the name of the file of an entry.
func FileName(id string) string { return id + suffix }

// Revoked returns the fingerprints of the revoked keys; nil where the list could never be
// read, so that every key counts as revoked.
func (r *Registry) Revoked() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.revoked == nil {
		return nil
	}
	return append([]string{}, slices.Sorted(maps.Keys(r.revoked))...)
}

// WithoutRevoked returns a list of revoked keys without the lines of a key; other lines
// stay as they are. The error is ErrNotRevoked where no line has the key. A list that is
// not valid is an error: any of its lines may be the key's.
func WithoutRevoked(text []byte, fingerprint string) (rest []byte, err error) {
	listed, err := parseRevoked(text)
	switch {
	case err != nil:
		return nil, err
	case !listed[fingerprint]:
		return nil, ErrNotRevoked
	}
	for line := range bytes.Lines(text) {
		if f, err := Fingerprint(strings.TrimSpace(string(line))); err != nil || f != fingerprint {
			rest = append(rest, line...)
		}
	}
	return rest, nil
}

// AddRevoked returns a list of revoked keys with those lines added, less those whose key
// is on it. A list that is not valid is an error: a new line in it would have no effect.
func AddRevoked(text []byte, lines ...string) ([]byte, error) {
	listed, err := parseRevoked(text)
	if err != nil {
		return nil, err
	}
	text = bytes.Clone(text)
	for _, line := range lines {
		fingerprint, err := Fingerprint(line)
		if err != nil {
			return nil, err
		}
		if listed[fingerprint] {
			continue
		}
		listed[fingerprint] = true
		if len(text) > 0 && !bytes.HasSuffix(text, []byte("\n")) {
			text = append(text, '\n')
		}
		text = append(text, line+"\n"...)
	}
	return text, nil
}
