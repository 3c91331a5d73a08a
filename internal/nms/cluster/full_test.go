package cluster

import (
	"fmt"
	"testing"
	"time"

	"callhome/internal/nms/buckets"
	"callhome/internal/nms/nmsproto"
)

// TestAFullBucketStopsNothingElse: claims that NATS has no space for. Stations keep their
// leases, devices are taken, and the registry is changed; with space, the claims follow.
func TestAFullBucketStopsNothingElse(t *testing.T) {
	w := newWorld(t, 1, 10*time.Second)
	north, south := w.start("north", 0), w.start("south", 0)
	for _, s := range []*standIn{north, south} {
		await(t, s.name+" has its lease", func() bool { return s.Problem() == nil })
	}
	space := func(devices int) {
		t.Helper()
		if _, err := north.conn.Create(t.Context(), buckets.Layout{Replicas: 1, Lease: w.lease, Devices: devices}); err != nil {
			t.Fatal(err)
		}
	}
	space(1)
	for i := 0; ; i++ { // a station that means harm
		if _, err := south.claims.Put(t.Context(), fmt.Sprint("d", i), make([]byte, 50), 0); err != nil {
			t.Log(err)
			break
		}
	}
	north.mustCall("edge7.example.net")
	south.mu.Lock()
	south.calls = []nmsproto.Unknown{{HostKey: "SHA256:x", Calls: 1, Last: time.Now()}}
	south.mu.Unlock()
	await(t, "north lists an unknown device of south", func() bool { return north.Cluster.Unknown("SHA256:x") != nil })
	if _, err := north.Editor().Revoke("SHA256:" + fmt.Sprintf("%043d", 0)); err != nil {
		t.Errorf("revoking a key: %v", err)
	}
	if err := north.Problem(); err != nil {
		t.Errorf("north is out of the cluster: %v", err)
	}
	if !north.has("edge7.example.net") || north.Believes("edge7.example.net") {
		t.Error("north has not the device, or a claim for it")
	}
	space(100)
	await(t, "north's claim is written", func() bool { return north.Believes("edge7.example.net") })
	await(t, "south knows it", func() bool {
		d, _ := south.Cluster.Device("edge7.example.net")
		return d.Station == "north" && d.State == nmsproto.Connected
	})
}
