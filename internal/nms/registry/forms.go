package registry

import (
	"bytes"
	"errors"
	"maps"
	"slices"
)

// ErrNotNow is the error for a change of a cluster's registry while its buckets are out
// of reach.
var ErrNotNow = errors.New("the cluster's registry cannot be changed now")

// FileName returns the name of the file of an entry.
func FileName(id string) string { return id + suffix }

// Revoked returns the fingerprints of the revoked keys.
func (r *Registry) Revoked() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(maps.Keys(r.revoked))
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
