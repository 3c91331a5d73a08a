package cluster

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"callhome/internal/nms/buckets"
	"callhome/internal/nms/claims"
	"callhome/internal/nms/nmsproto"
)

// TestMeasure prints what a station's knowledge of other stations' devices costs:
// CALLHOME_MEASURE has their number.
func TestMeasure(t *testing.T) {
	n, _ := strconv.Atoi(os.Getenv("CALLHOME_MEASURE"))
	if n == 0 {
		t.Skip("set CALLHOME_MEASURE to a number of devices to measure")
	}
	w := newWorld(t, 1, 10*time.Second)
	b := w.start("b", 0)
	await(t, "b has its lease", func() bool { return b.Problem() == nil })
	write := func() {
		const station = "a"
		var wg sync.WaitGroup
		next := make(chan int)
		for range 32 {
			wg.Go(func() {
				for i := range next {
					since := time.Now().UTC()
					id := fmt.Sprint("device-", i)
					claim := claims.Claim{Station: station, Incarnation: station + "5f0c1e2d.0", Address: station + ".example.net:4337", Device: nmsproto.Device{
						ID: id, State: nmsproto.Connected, Since: &since, Address: fmt.Sprintf("192.0.2.1:%d", i), Software: "SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u10",
						HostKey: fmt.Sprintf("SHA256:%043d", i), User: "netconf", Calls: 1, Station: station,
					}}
					ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
					if _, err := b.claims.Put(ctx, buckets.KeyOf(id), mustJSON(claim), 0); err != nil {
						t.Error(err)
					}
					cancel()
				}
			})
		}
		for i := range n {
			next <- i
		}
		close(next)
		wg.Wait()
	}
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	write()
	await(t, "b knows them", func() bool { b.Cluster.mu.Lock(); defer b.Cluster.mu.Unlock(); return len(b.claimed) >= n })
	c := w.start("c", 0)
	before := heap()
	begin := time.Now()
	await(t, "c knows them", func() bool {
		c.Cluster.mu.Lock()
		defer c.Cluster.mu.Unlock()
		return len(c.claimed) >= n && c.snapshot == nil
	})
	t.Logf("a station that starts knows %d claims after %v, and %d bytes of memory each", n, time.Since(begin).Round(time.Millisecond), (heap()-before)/uint64(n))
}
