package buckets

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"callhome/internal/nms/natstest"

	"github.com/hashicorp/go-hclog"
	"github.com/nats-io/nats.go/jetstream"
)

// seen is a Watcher that knows when each key was shown first.
type seen struct {
	mu sync.Mutex
	at map[string]time.Time
}

func (s *seen) Begin(time.Time) {}
func (s *seen) Complete()       {}

func (s *seen) Value(key string, _ Value) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.at[key].IsZero() {
		s.at[key] = time.Now()
	}
}

func (s *seen) when(key string) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at[key]
}

// loss is what one kill of a server has shown.
type loss struct {
	roles    string
	outage   time.Duration // until the first write was acknowledged
	longest  time.Duration // that a write took, one that began after the kill
	lag      time.Duration // the longest from an acknowledgement until all watches have shown the write
	lagAfter time.Duration // when that write was acknowledged, after the kill
}

// TestMeasureLoss prints how long a write and its way to the watches take after one of
// three servers is killed: CALLHOME_MEASURE_KILLS has how often, CALLHOME_NATS_SERVER the
// program.
func TestMeasureLoss(t *testing.T) {
	kills, _ := strconv.Atoi(os.Getenv("CALLHOME_MEASURE_KILLS"))
	binary := os.Getenv("CALLHOME_NATS_SERVER")
	if kills == 0 || binary == "" {
		t.Skip("set CALLHOME_MEASURE_KILLS to a number, and CALLHOME_NATS_SERVER to a nats-server, to measure")
	}
	p := natstest.StartProcesses(t, binary)
	const clients, writing = 3, 20 * time.Second
	var conns []*Conn
	var written []*Bucket
	var watches []*seen
	for i := range clients {
		log := hclog.NewNullLogger()
		if os.Getenv("CALLHOME_TEST_LOG") != "" {
			log = hclog.New(&hclog.LoggerOptions{Name: fmt.Sprint(i), Level: hclog.Debug, TimeFormat: "05.000"})
		}
		c, err := Connect(Options{URLs: p.URLs(), Name: fmt.Sprint("client-", i)}, log)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		if err := c.AwaitUp(ctx); err != nil {
			t.Fatal(err)
		}
		for i == 0 {
			once, cancel := context.WithTimeout(ctx, 5*time.Second) // without a leader there is no answer
			_, err = c.Create(once, Layout{Replicas: 3, Lease: 10 * time.Second})
			cancel()
			if err == nil {
				break
			} else if ctx.Err() != nil {
				t.Fatal(err)
			}
		}
		cancel()
		conns = append(conns, c)
		for k, name := range []string{Registry, Claims, Stations, Callers} {
			b := open(t, c, name)
			w := &seen{at: make(map[string]time.Time)}
			if k < 2 {
				written, watches = append(written, b), append(watches, w)
			}
			go b.Watch(t.Context(), ">", w)
		}
	}
	time.Sleep(2 * time.Second)
	var all []loss
	for kill := range kills {
		leaders := awaitWhole(t, conns, p)
		if leaders == nil {
			t.Error("the servers are not whole again")
			break
		}
		victim := rand.IntN(3)
		for i := range 3 { // in turn that of a role, and any
			if kill%3 < 2 && fmt.Sprint("nats-", i) == leaders[[]string{"meta", "KV_" + Registry}[kill%3]] {
				victim = i
			}
		}
		name := fmt.Sprint("nats-", victim)
		// Of each bucket one client writes.
		writer := rand.IntN(clients)
		var roles []string
		if leaders["meta"] == name {
			roles = append(roles, "meta")
		}
		if leaders["KV_"+Registry] == name || leaders["KV_"+Claims] == name {
			roles = append(roles, "stream")
		}
		if conns[writer].nc.ConnectedServerName() == name {
			roles = append(roles, "writer")
		}
		if _, consumers := p.Leader(victim); consumers > 0 {
			roles = append(roles, "consumers")
		}
		begin := time.Now()
		p.Kill(victim)
		var wg sync.WaitGroup
		var mu sync.Mutex
		one := loss{roles: strings.Join(roles, "+")}
		for k := range 2 {
			wg.Go(func() {
				b := written[2*writer+k]
				type change struct {
					key   string
					acked time.Time
				}
				var changes []change
				first := true
				for i := 0; time.Since(begin) < writing; i++ {
					key, from := fmt.Sprintf("k-%d-%d", kill, i), time.Now()
					ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
					for ctx.Err() == nil {
						if _, err := b.Put(ctx, key, make([]byte, 300), 0); err == nil {
							break
						}
						time.Sleep(10 * time.Millisecond)
					}
					cancel()
					now := time.Now()
					mu.Lock()
					if first {
						one.outage = max(one.outage, now.Sub(begin))
					}
					one.longest = max(one.longest, now.Sub(from))
					mu.Unlock()
					first = false
					changes = append(changes, change{key, now})
					time.Sleep(50 * time.Millisecond)
				}
				for _, c := range changes {
					for i := range clients {
						w := watches[2*i+k]
						for w.when(c.key).IsZero() && time.Since(c.acked) < 90*time.Second {
							time.Sleep(10 * time.Millisecond)
						}
						lag := max(0, w.when(c.key).Sub(c.acked))
						if w.when(c.key).IsZero() {
							lag = time.Since(c.acked)
						}
						mu.Lock()
						if lag > one.lag {
							one.lag, one.lagAfter = lag, c.acked.Sub(begin)
						}
						mu.Unlock()
					}
				}
			})
		}
		wg.Wait()
		all = append(all, one)
		t.Logf("kill %d: roles %q, first write after %v, longest write %v, known everywhere at most %v after its acknowledgement (%v after the kill)", kill, one.roles,
			one.outage.Round(time.Millisecond), one.longest.Round(time.Millisecond), one.lag.Round(time.Millisecond), one.lagAfter.Round(time.Millisecond))
		p.Start(victim)
	}
	show := func(what string, of func(loss) bool) {
		var outage, lag []time.Duration
		for _, l := range all {
			if of(l) {
				outage, lag = append(outage, l.longest), append(lag, l.lag)
			}
		}
		if len(lag) == 0 {
			return
		}
		slices.Sort(outage)
		slices.Sort(lag)
		at := func(d []time.Duration, part float64) time.Duration {
			return d[min(len(d)-1, int(part*float64(len(d))))].Round(time.Millisecond)
		}
		t.Logf("%-32s %3d kills; longest write: median %v, 90 %% %v, most %v; known everywhere after the acknowledgement: median %v, 90 %% %v, most %v", what, len(lag),
			at(outage, 0.5), at(outage, 0.9), at(outage, 1), at(lag, 0.5), at(lag, 0.9), at(lag, 1))
	}
	show("all", func(loss) bool { return true })
	for _, role := range []string{"meta", "stream", "writer", "consumers"} {
		show(role, func(l loss) bool { return strings.Contains(l.roles, role) })
	}
	show("none of these", func(l loss) bool { return l.roles == "" })
}

// awaitWhole waits until all three servers are in order, and returns which leads what;
// nil where they are not in time.
func awaitWhole(t *testing.T, conns []*Conn, p *natstest.Processes) map[string]string {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Minute); time.Now().Before(deadline); time.Sleep(300 * time.Millisecond) {
		meta, _ := p.Leader(0)
		leaders, whole := map[string]string{"meta": meta}, meta != ""
		for i := range 3 {
			same, _ := p.Leader(i)
			whole = whole && same == meta
		}
		for _, c := range conns {
			whole = whole && c.Up() == nil
		}
		if !whole {
			continue
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		for _, name := range []string{"KV_" + Registry, "KV_" + Claims, "KV_" + Stations, "KV_" + Callers} {
			s, err := conns[0].js.Stream(ctx, name)
			var info *jetstream.StreamInfo
			if err == nil {
				info = s.CachedInfo()
			}
			if info == nil || info.Cluster == nil || len(info.Cluster.Replicas) != 2 || !info.Cluster.Replicas[0].Current || !info.Cluster.Replicas[1].Current {
				whole = false
				break
			}
			leaders[name] = info.Cluster.Leader
		}
		cancel()
		if whole {
			return leaders
		}
	}
	return nil
}
