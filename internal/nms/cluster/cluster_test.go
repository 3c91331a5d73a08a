package cluster

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"callhome/internal/nms/buckets"
	"callhome/internal/nms/claims"
	"callhome/internal/nms/natstest"
	"callhome/internal/nms/nmsproto"

	"github.com/hashicorp/go-hclog"
)

func TestADevicesHolderIsKnownEverywhere(t *testing.T) {
	w := newWorld(t, 1, endless)
	a, b := w.start("a", 0), w.start("b", 0)
	a.mustCall("edge7.example.net")
	await(t, "a believes", func() bool { return a.Believes("edge7.example.net") })
	await(t, "b knows the holder", func() bool {
		d, _ := b.Cluster.Device("edge7.example.net")
		return d.State == nmsproto.Connected && d.Station == "a"
	})
	if b.call("edge7.example.net") {
		t.Fatal("a duplicate was taken while the first connection answers")
	}
	a.vanish("edge7.example.net")
	b.mustCall("edge7.example.net")
	await(t, "b believes", func() bool { return b.Believes("edge7.example.net") })
	await(t, "a knows the holder", func() bool {
		d, _ := a.Cluster.Device("edge7.example.net")
		return d.State == nmsproto.Connected && d.Station == "b" && !a.Believes("edge7.example.net")
	})
	here, _ := a.Cluster.Device("edge7.example.net")
	d := nmsproto.DeviceDetail{Device: here, History: []nmsproto.Record{{Time: time.Unix(1e9, 0), Event: nmsproto.EventDown}}}
	a.AddHistory(t.Context(), &d)
	if d.Sessions != 3 || d.RoundTrip != time.Millisecond || len(d.History) != 2 || d.History[0].Event != nmsproto.EventUp || d.History[0].Cause != "?[2J" || d.SessionLog[0].Error != "?" {
		t.Errorf("with what b knows it is %+v", d)
	}
	d = nmsproto.DeviceDetail{Device: here}
	b.AddHistory(t.Context(), &d)
	if len(d.History) > 0 || d.HistoryError != "" {
		t.Errorf("the holder asks another: %+v", d)
	}
	b.hangUp("edge7.example.net")
	await(t, "a knows that it is lost", func() bool {
		d, _ := a.Cluster.Device("edge7.example.net")
		return d.State == nmsproto.Lost
	})
}

// TestClaimsFallWithTheLease: a station that was killed, and one that is started again at
// once.
func TestClaimsFallWithTheLease(t *testing.T) {
	w := newWorld(t, 1, 2*time.Second)
	w.registered = []string{"1", "2", "3", "never"}
	a, b, c := w.start("a", 0), w.start("b", 0), w.start("c", 0)
	counted := func(connected, lost int, by ...*standIn) {
		t.Helper()
		await(t, "each device is counted once", func() bool {
			sum := make(map[nmsproto.State]int)
			for _, s := range by {
				for state, n := range s.Share() {
					sum[state] += n
				}
			}
			return sum[nmsproto.Connected] == connected && sum[nmsproto.Lost] == lost && sum[nmsproto.NeverSeen] == 1
		})
	}
	for _, id := range []string{"1", "2", "3"} {
		a.mustCall(id)
		await(t, "a believes", func() bool { return a.Believes(id) })
	}
	await(t, "b knows them", func() bool { d, _ := b.Cluster.Device("3"); return d.State == nmsproto.Connected })
	counted(3, 0, a, b, c)
	a.Cluster.mu.Lock()
	lease := a.lease
	a.Cluster.mu.Unlock()
	a.kill()
	b.mustCall("1")
	await(t, "b believes", func() bool {
		believes := b.Believes("1")
		if believes && lease.Valid(b.now()) {
			t.Error("the claim fell before the lease")
		}
		return believes
	})
	await(t, "c knows that the others are lost", func() bool { d, _ := c.Cluster.Device("2"); return d.State == nmsproto.Lost })
	counted(1, 2, b, c)
	// Another process of a takes the former one's place at once.
	a = w.start("a", 0)
	a.mustCall("3")
	await(t, "a believes again", func() bool { return a.Believes("3") })
}

// TestAnOrderlyEndGivesTheLeaseUp: claims fall long before the lease would end.
func TestAnOrderlyEndGivesTheLeaseUp(t *testing.T) {
	w := newWorld(t, 1, endless)
	b, c := w.start("b", 0), w.start("c", 0)
	b.mustCall("1")
	await(t, "b believes", func() bool { return b.Believes("1") })
	await(t, "c knows the holder", func() bool { d, _ := c.Cluster.Device("1"); return d.State == nmsproto.Connected })
	b.end()
	c.mustCall("1")
	await(t, "c believes", func() bool { return c.Believes("1") })
}

// TestASilentHoldersDevicesAreSoughtElsewhere: until a killed station's claims fall, its
// devices are at other stations already.
func TestASilentHoldersDevicesAreSoughtElsewhere(t *testing.T) {
	// c must see b while a is silent but not dead, for the half of a lease.
	w := newWorld(t, 1, 8*time.Second)
	a, b, c := w.start("a", 0), w.start("b", 0), w.start("c", 0)
	a.mustCall("1")
	ways := func(s *standIn) (names []string) {
		s.Cluster.mu.Lock()
		defer s.Cluster.mu.Unlock()
		for _, p := range s.ways("1") {
			names = append(names, p.Station)
		}
		return names
	}
	await(t, "c knows the way", func() bool { return slices.Equal(ways(c), []string{"a"}) })
	await(t, "all know each other", func() bool { return len(b.Stations()) == 3 && len(c.Stations()) == 3 })
	a.kill()
	b.mustCall("1")
	await(t, "c looks elsewhere first", func() bool { return slices.Equal(ways(c), []string{"b", "a"}) })
	await(t, "b believes, and c knows the way", func() bool { return b.Believes("1") && slices.Equal(ways(c), []string{"b"}) })
	b.hangUp("1")
	await(t, "there is no way", func() bool { return ways(c) == nil })
}

// TestTheClaimOfARemovedDeviceIsRemoved: a device that is registered again under that id
// is no known one.
func TestTheClaimOfARemovedDeviceIsRemoved(t *testing.T) {
	w := newWorld(t, 1, endless)
	a, b := w.start("a", 0), w.start("b", 0)
	for _, id := range []string{"connected", "lost"} {
		a.mustCall(id)
		await(t, "a believes", func() bool { return a.Believes(id) })
	}
	a.hangUp("lost")
	await(t, "b knows both", func() bool {
		c, _ := b.Cluster.Device("connected")
		l, _ := b.Cluster.Device("lost")
		return c.State == nmsproto.Connected && l.State == nmsproto.Lost
	})
	for _, s := range []*standIn{b, a} {
		s.mu.Lock()
		s.removed = map[string]bool{"connected": true, "lost": true}
		s.mu.Unlock()
		s.Removed([]string{"connected", "lost"})
	}
	a.hangUp("connected")
	await(t, "no claim is left", func() bool {
		left := 0
		for _, id := range []string{"connected", "lost"} {
			if v, err := b.claims.Get(t.Context(), id); err != nil || v.Revision != 0 {
				left++
			}
		}
		return left == 0
	})
}

func TestUnknownDevicesAreListedEverywhere(t *testing.T) {
	w := newWorld(t, 1, endless)
	a, b := w.start("a", 0), w.start("b", 0)
	a.mu.Lock()
	key := "SHA256:" + strings.Repeat("x", 43)
	a.calls = []nmsproto.Unknown{{HostKey: key, Calls: 1, Last: time.Now()}}
	a.mu.Unlock()
	await(t, "b lists it", func() bool { u := b.Cluster.Unknown(key); return u != nil && u.Station == "a" })
	if all := b.Callers(); len(all) != 1 || all[0].Station != "a" {
		t.Errorf("b lists %+v", all)
	}
	c := w.start("c", 0)
	c.mu.Lock()
	c.calls = []nmsproto.Unknown{{HostKey: key, Calls: 2, Last: time.Now()}}
	c.mu.Unlock()
	await(t, "b counts the calls of both", func() bool { u := b.Cluster.Unknown(key); return u != nil && u.Calls == 3 && u.Station == "c" })
	await(t, "all stations are alive", func() bool {
		s := b.Stations()
		return len(s) == 3 && s[0].Alive && s[1].Alive && s[2].Alive && s[0].Name == "a"
	})
	if _, err := b.config.Registry.Revoke(key); err != nil {
		t.Fatal(err)
	}
	if all := b.Callers(); len(all) > 0 {
		t.Errorf("a revoked key is listed: %+v", all)
	}
}

// TestASecondProcessWithTheNameIsNoticed: the one that begins later has the name, and the
// other stops believing.
func TestASecondProcessWithTheNameIsNoticed(t *testing.T) {
	w := newWorld(t, 1, 2*time.Second)
	first := w.start("a", 0)
	await(t, "the first has its lease", func() bool { return first.Problem() == nil })
	second := w.start("a", 0)
	await(t, "the second has its lease", func() bool { return second.Problem() == nil })
	await(t, "the first knows", func() bool { return first.Problem() != nil })
	second.kill()
	await(t, "the first has its lease again", func() bool { return first.Problem() == nil })
}

// TestNeverTwoHolders plays random events at three stations: devices call, vanish and
// hang up, stations lose NATS or each other, are killed and started again, servers are
// stopped. At no time do two stations believe that they hold a device, and at the end each
// connected device has exactly one. With three servers each station knows one of them.
func TestNeverTwoHolders(t *testing.T) {
	for _, servers := range []int{1, 3} {
		t.Run(fmt.Sprint(servers, " servers"), func(t *testing.T) { neverTwoHolders(t, servers) })
	}
}

func neverTwoHolders(t *testing.T, servers int) {
	length, seed := 5*time.Second, uint64(time.Now().UnixNano())
	if s, err := strconv.Atoi(os.Getenv("CALLHOME_CLAIMS_SECONDS")); err == nil {
		length = time.Duration(s) * time.Second
	}
	if s, err := strconv.ParseUint(os.Getenv("CALLHOME_CLAIMS_SEED"), 10, 64); err == nil {
		seed = s
	}
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	w := newWorld(t, servers, time.Second)
	names := []string{"a", "b", "c"}
	server := func(name string) int { return int(name[0]-'a') % servers }
	var mu sync.Mutex // guards stations
	stations := make(map[string]*standIn)
	for _, n := range names {
		stations[n] = w.start(n, server(n))
	}
	station := func(n string) *standIn { mu.Lock(); defer mu.Unlock(); return stations[n] }
	var ids []string
	for i := range 6 {
		ids = append(ids, fmt.Sprint("d", i))
	}
	var counts [9]int
	stop := make(chan struct{})
	var samples, believed atomic.Int64
	var sampling sync.WaitGroup
	sampling.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			for _, id := range ids {
				samples.Add(1)
				for i, n := range names {
					x := station(n)
					if !x.Believes(id) {
						continue
					}
					believed.Add(1)
					for _, m := range names[i+1:] {
						// Both at one moment: x before and after y.
						if y := station(m); y.Believes(id) && x.Believes(id) {
							t.Errorf("%s and %s both believe that they hold %s: %s, %s", n, m, id, x.sees(id, y), y.sees(id, x))
						}
					}
				}
			}
			time.Sleep(200 * time.Microsecond)
		}
	})
	var later sync.WaitGroup
	after := func(f func()) {
		d := rand.N(2 * w.lease)
		later.Go(func() { time.Sleep(d); f() })
	}
	cut := make(map[string]bool)
	for end := time.Now().Add(length); time.Now().Before(end); time.Sleep(time.Duration(r.IntN(30)) * time.Millisecond) {
		n, m, id := names[r.IntN(3)], names[r.IntN(3)], ids[r.IntN(len(ids))]
		s := station(n)
		e := r.IntN(100)
		switch {
		case e < 45: // a device moves: its former connections are dead
			counts[0]++
			for _, o := range names {
				station(o).vanish(id)
			}
			s.call(id)
		case e < 60: // a device calls though it is connected
			counts[1]++
			s.call(id)
		case e < 75:
			counts[2]++
			s.hangUp(id)
		case e < 85:
			counts[3]++
			p := s.proxy
			p.Cut(r.IntN(2) == 0)
			after(p.Heal)
		case e < 92:
			counts[4]++
			pair := [2]string{min(n, m), max(n, m)}
			w.mu.Lock()
			w.severed[pair] = true
			w.mu.Unlock()
			after(func() { w.mu.Lock(); delete(w.severed, pair); w.mu.Unlock() })
		case e < 94 && !cut[n]:
			counts[5]++
			s.kill()
			fresh := w.start(n, server(n))
			mu.Lock()
			stations[n] = fresh
			mu.Unlock()
		case e < 95:
			counts[6]++
			i := r.IntN(servers)
			w.servers.Stop(i)
			time.Sleep(time.Duration(r.IntN(int(w.lease))))
			w.servers.Start(i)
		}
	}
	later.Wait()
	for _, n := range names {
		station(n).proxy.Heal()
	}
	agree := func() string {
		for _, id := range ids {
			var connected, believing []string
			for _, n := range names {
				if s := station(n); s.has(id) {
					connected = append(connected, n)
					if s.Believes(id) {
						believing = append(believing, n)
					}
				}
			}
			if len(connected) > 1 || len(connected) != len(believing) {
				return fmt.Sprintf("%s is connected to %v, and %v believe that they hold it", id, connected, believing)
			}
			for _, n := range names {
				d, _ := station(n).Cluster.Device(id)
				if is := d.State == nmsproto.Connected; is != (len(connected) == 1) || is && d.Station != connected[0] {
					return fmt.Sprintf("%s is connected to %v, and %s says %s at %q", id, connected, n, d.State, d.Station)
				}
			}
		}
		return ""
	}
	// Connections that are dead without the station's knowledge end by keepalives.
	for _, n := range names {
		s := station(n)
		s.mu.Lock()
		for id, c := range s.devices {
			if !c.alive {
				s.drop(id)
			}
		}
		s.mu.Unlock()
	}
	var why string
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if why = agree(); why == "" {
			break
		}
	}
	if why != "" {
		t.Error("after everything has healed: " + why)
	}
	close(stop)
	sampling.Wait()
	t.Logf("events %v, %d samples, %d with a holder", counts[:7], samples.Load(), believed.Load())
}

// TestOnlyWhatStationsWriteIsTaken: another station's account may have written it.
func TestOnlyWhatStationsWriteIsTaken(t *testing.T) {
	since := time.Now().UTC()
	for _, tt := range []struct {
		name   string
		device nmsproto.Device
		taken  bool
	}{
		{"connected", nmsproto.Device{State: nmsproto.Connected, Since: &since}, true},
		{"lost", nmsproto.Device{State: nmsproto.Lost, Since: &since}, true},
		{"a state that there is not", nmsproto.Device{State: "on fire", Since: &since}, false},
		{"lost, by a station that has not seen it", nmsproto.Device{State: nmsproto.Lost}, true},
		{"without a time", nmsproto.Device{State: nmsproto.Connected}, false},
	} {
		c := parseClaim(buckets.Value{Data: mustJSON(claims.Claim{Station: "b", Device: tt.device}), Revision: 7})
		if taken := c.Station == "b"; taken != tt.taken || c.Revision != 7 {
			t.Errorf("%s: %+v", tt.name, c)
		}
	}
	list := make([]nmsproto.Unknown, 256)
	for i := range list {
		list[i] = nmsproto.Unknown{HostKey: fmt.Sprint(i), Key: strings.Repeat("k", 4096)}
	}
	text := callersText(list)
	var got []nmsproto.Unknown
	if err := json.Unmarshal([]byte(text), &got); err != nil || len(text) > maxCallers || len(got) == 0 || got[0].HostKey != "0" {
		t.Errorf("a long list of unknown devices: %d bytes, %d devices, %v", len(text), len(got), err)
	}
	if text := callersText(nil); text != "[]" {
		t.Errorf("none is %q", text)
	}
}

// TestAStationJoinsSoonAfterNATSIsBack: servers that are started again have no leader at
// first, and the station must not wait as long as while they were away.
func TestAStationJoinsSoonAfterNATSIsBack(t *testing.T) {
	servers := natstest.Start(t, 1)
	servers.Stop(0)
	conn, err := buckets.Connect(buckets.Options{URLs: servers.URLs(), Name: "north"}, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := &Cluster{conn: conn}
	if next := c.awaitJoin(t.Context(), time.Millisecond); next != 2*time.Millisecond {
		t.Errorf("without a connection the next pause is %v", next)
	}
	next := make(chan time.Duration)
	go func() { next <- c.awaitJoin(t.Context(), time.Hour) }()
	servers.Start(0)
	if got := <-next; got != firstJoin {
		t.Errorf("once NATS is back the next pause is %v", got)
	}
	if next := c.awaitJoin(t.Context(), time.Millisecond); next != 2*time.Millisecond {
		t.Errorf("with a connection the next pause is %v", next)
	}
}
