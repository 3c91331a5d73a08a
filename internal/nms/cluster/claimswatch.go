package cluster

import (
	"encoding/json"
	"time"

	"callhome/internal/nms/buckets"
	"callhome/internal/nms/claims"
	"callhome/internal/nms/nmsproto"
	"callhome/internal/nms/registry"
)

// parseClaim returns the claim of a value; one that cannot be understood counts as
// released, so it is overwritten.
func parseClaim(v buckets.Value) (claim claims.Claim) {
	broken := v.Deleted || json.Unmarshal(v.Data, &claim) != nil
	if s := claim.Device.State; broken || s != nmsproto.Lost && (s != nmsproto.Connected || claim.Device.Since == nil) {
		claim = claims.Claim{}
	}
	claim.Revision = v.Revision
	return claim
}

// share has equal texts of claims in memory once: of 100,000 claims, few stations and
// kinds of software have most. The caller holds mu.
func (c *Cluster) share(claim *claims.Claim) {
	for _, text := range []*string{&claim.Station, &claim.Incarnation, &claim.Address, &claim.Device.Station, &claim.Device.Software, &claim.Device.User} {
		if one, ok := c.texts[*text]; ok {
			*text = one
		} else if len(c.texts) < maxTexts {
			c.texts[*text] = *text
		}
	}
}

// claimsWatch is the cluster as a buckets.Watcher of claims.
type claimsWatch struct{ *Cluster }

// Begin implements buckets.Watcher.
func (w *claimsWatch) Begin(time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.snapshot = make(map[string]bool)
}

// Value implements buckets.Watcher.
func (w *claimsWatch) Value(key string, v buckets.Value) {
	id := buckets.IDOf(key)
	if registry.CheckID(id) != nil {
		return // no station writes such a claim
	}
	claim := parseClaim(v)
	w.mu.Lock()
	defer w.mu.Unlock()
	former := w.claimed[id]
	w.share(&claim)
	if w.snapshot != nil {
		w.snapshot[id] = true
	} else if claim.Revision <= former.Revision {
		return // this station has read or written a newer one
	}
	w.note(id, claim)
	if claim.Station != w.name() || former.Station != w.name() {
		w.changed.Publish(id)
	}
	if w.held[id] != nil || claim.Station == w.name() {
		w.touch(id)
	}
}

// Complete implements buckets.Watcher.
func (w *claimsWatch) Complete() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.snapshot == nil {
		return
	}
	for id := range w.claimed {
		if !w.snapshot[id] {
			delete(w.claimed, id)
			w.changed.Publish(id)
		}
	}
	for id := range w.held {
		w.touch(id)
	}
	w.snapshot = nil
	w.config.Log.Info("the claims of the cluster are known", "devices", len(w.claimed))
}
