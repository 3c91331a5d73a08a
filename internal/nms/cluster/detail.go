package cluster

import (
	"cmp"
	"context"
	"slices"
	"time"

	"callhome/internal/nms/nmsproto"
	"callhome/internal/nms/peering"
	"callhome/internal/printable"
)

// detailTime bounds the question for a device's history at another station: without an
// answer the one of this station is shown.
const detailTime = 3 * time.Second

// AddHistory adds to a device what only the station knows that has it, or had it last: its
// history there, sessions and round trip.
func (c *Cluster) AddHistory(ctx context.Context, d *nmsproto.DeviceDetail) {
	c.mu.Lock()
	claim := c.claimed[d.ID]
	elsewhere := claim.Revision != 0 && d.Station == claim.Station && c.reachable(claim.Station, claim.Incarnation)
	c.mu.Unlock()
	if !elsewhere {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, detailTime)
	defer cancel()
	their, err := c.config.Peers.Detail(ctx, peering.Peer{Station: claim.Station, Address: claim.Address}, d.ID)
	if err != nil {
		d.HistoryError = err.Error()
		return
	}
	d.Sessions, d.RoundTrip = their.Sessions, their.RoundTrip
	for _, r := range their.History {
		for _, text := range []*string{&r.Event, &r.Address, &r.Software, &r.HostKey, &r.Certificate, &r.Cause} {
			*text = printable.Line(*text)
		}
		d.History = append(d.History, r)
	}
	for _, s := range their.SessionLog {
		s.Error = printable.Line(s.Error)
		d.SessionLog = append(d.SessionLog, s)
	}
	slices.SortStableFunc(d.History, func(a, b nmsproto.Record) int { return b.Time.Compare(a.Time) })
	slices.SortStableFunc(d.SessionLog, func(a, b nmsproto.SessionRecord) int {
		return cmp.Or(b.Begin.Compare(a.Begin), b.End.Compare(a.End))
	})
}
