package buckets

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"callhome/internal/nms/natstest"

	"github.com/hashicorp/go-hclog"
)

func connect(t testing.TB, s *natstest.Servers, lease time.Duration, replicas int) *Conn {
	t.Helper()
	c, err := Connect(Options{URLs: s.URLs(), Name: "test"}, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if err := c.AwaitUp(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Create(ctx, Layout{Replicas: replicas, Lease: lease}); err != nil {
		t.Fatal(err)
	}
	return c
}

func open(t testing.TB, c *Conn, name string) *Bucket {
	t.Helper()
	b, err := c.Open(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestOneOfManyWritesWins: of writers that expect the same revision, one succeeds.
func TestOneOfManyWritesWins(t *testing.T) {
	for _, n := range []int{1, 3} {
		t.Run(fmt.Sprint(n, " servers"), func(t *testing.T) {
			s := natstest.Start(t, n)
			c := connect(t, s, time.Second, n)
			b := open(t, c, Claims)
			// A busy machine's servers elect a leader now and then; a write is tried till then.
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			revision := uint64(0)
			const writers, rounds = 8, 20
			for round := range rounds {
				var wg sync.WaitGroup
				var won, conflicts atomic.Int64
				var next atomic.Uint64
				for w := range writers {
					wg.Go(func() {
						r, err := b.Put(ctx, "device", fmt.Append(nil, round, w), revision)
						switch {
						case err == nil:
							won.Add(1)
							next.Store(r)
						case errors.Is(err, ErrConflict):
							conflicts.Add(1)
						default:
							t.Error(err)
						}
					})
				}
				wg.Wait()
				if won.Load() != 1 || conflicts.Load() != writers-1 {
					t.Fatalf("round %d: %d writers won, %d conflicts", round, won.Load(), conflicts.Load())
				}
				revision = next.Load()
			}
			if err := b.Delete(ctx, "device", revision-1); !errors.Is(err, ErrConflict) {
				t.Fatalf("deleting an old revision: %v, want a conflict", err)
			}
			if err := b.Delete(ctx, "device", revision); err != nil {
				t.Fatal(err)
			}
			if err := b.Delete(ctx, "device", revision); err != nil {
				t.Fatalf("deleting it again: %v", err)
			}
			if _, err := b.Put(ctx, "device", []byte("again"), 0); err != nil {
				t.Fatalf("creating a deleted key: %v", err)
			}
		})
	}
}

// recorder is a Watcher that keeps the values.
type recorder struct {
	mu       sync.Mutex
	values   map[string]Value
	complete chan int // number of values at each Complete
	changed  chan struct{}
}

func newRecorder() *recorder {
	return &recorder{complete: make(chan int, 64), changed: make(chan struct{}, 1)}
}

func (r *recorder) Begin(time.Time) { r.mu.Lock(); r.values = make(map[string]Value); r.mu.Unlock() }

func (r *recorder) Value(key string, v Value) {
	r.mu.Lock()
	r.values[key] = v
	r.mu.Unlock()
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

func (r *recorder) Complete() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.complete <- len(r.values)
}

func (r *recorder) get(key string) Value {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.values[key]
}

// TestWatchSurvivesServers: a watch shows all values again after the servers were gone,
// and the changes that follow.
func TestWatchSurvivesServers(t *testing.T) {
	s := natstest.Start(t, 1)
	c := connect(t, s, time.Second, 1)
	b := open(t, c, Claims)
	r := newRecorder()
	go b.Watch(t.Context(), ">", r)
	if n := <-r.complete; n != 0 {
		t.Fatalf("%d values of an empty bucket", n)
	}
	if _, err := b.Put(t.Context(), "a", []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	s.Stop(0)
	if _, err := b.Put(t.Context(), "b", []byte("1"), 0); err == nil {
		t.Fatal("a write without a server succeeded")
	}
	s.Start(0)
	for n := 0; n != 1; { // a watch may begin anew without a reason
		n = <-r.complete
	}
	if err := c.AwaitUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Put(t.Context(), "b", []byte("2"), 0); err != nil {
		t.Fatal(err)
	}
	for string(r.get("b").Data) != "2" {
		<-r.changed
	}
}

// TestAWatchEndsWithoutAServersAnswer: else a station whose servers have no leader stops
// seconds late.
func TestAWatchEndsWithoutAServersAnswer(t *testing.T) {
	s := natstest.Start(t, 3)
	c, err := Connect(Options{URLs: s.URLs()[:1], Name: "test"}, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.AwaitUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Create(t.Context(), Layout{Replicas: 3, Lease: time.Second}); err != nil {
		t.Fatal(err)
	}
	b, r := open(t, c, Claims), newRecorder()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); b.Watch(ctx, ">", r) }()
	<-r.complete
	s.Stop(1)
	s.Stop(2)
	cancel()
	select {
	case <-ended:
	case <-time.After(callTime - time.Second):
		t.Fatal("the watch waits for the answer")
	}
}

func TestMissingBucketsAreNamed(t *testing.T) {
	s := natstest.Start(t, 1)
	c, err := Connect(Options{URLs: s.URLs(), Name: "test"}, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.AwaitUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Open(t.Context(), Claims); err == nil {
		t.Fatal("a bucket that does not exist was opened")
	} else {
		t.Log(err)
	}
}

// TestTheLeaseOfRunningStationsStays: of two leases, the station with the shorter one
// would bury the other.
func TestTheLeaseOfRunningStationsStays(t *testing.T) {
	c := connect(t, natstest.Start(t, 1), time.Second, 1)
	create := func(lease time.Duration) error {
		_, err := c.Create(t.Context(), Layout{Replicas: 1, Lease: lease})
		return err
	}
	if err := errors.Join(create(time.Minute), create(time.Hour)); err != nil {
		t.Fatalf("while no station runs: %v", err)
	}
	if _, err := open(t, c, Stations).Put(t.Context(), "north", []byte("{}"), 0); err != nil {
		t.Fatal(err)
	}
	if err := create(time.Minute); err == nil || !strings.Contains(err.Error(), "1h0m0s") {
		t.Errorf("another lease: %v", err)
	}
	if err := create(time.Hour); err != nil {
		t.Errorf("the same lease: %v", err)
	}
}

// TestMeasure prints what the design rests on: CALLHOME_MEASURE has a number of keys.
func TestMeasure(t *testing.T) {
	keys, _ := strconv.Atoi(os.Getenv("CALLHOME_MEASURE"))
	if keys == 0 {
		t.Skip("set CALLHOME_MEASURE to a number of keys to measure")
	}
	for _, n := range []int{1, 3} {
		s := natstest.Start(t, n)
		c := connect(t, s, 10*time.Second, n)
		b := open(t, c, Claims)
		value := make([]byte, 400)
		begin := time.Now()
		var wg sync.WaitGroup
		var next atomic.Int64
		const writers = 32
		for range writers {
			wg.Go(func() {
				for i := next.Add(1); i <= int64(keys); i = next.Add(1) {
					if _, err := b.Put(t.Context(), fmt.Sprint("device-", i), value, 0); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		took := time.Since(begin)
		t.Logf("%d servers: %d claims by compare-and-set, %d at a time: %v, %.0f/s", n, keys, writers, took.Round(time.Millisecond), float64(keys)/took.Seconds())
		begin = time.Now()
		r := newRecorder()
		go b.Watch(t.Context(), ">", r)
		got := <-r.complete
		t.Logf("%d servers: a watch of %d keys was complete after %v", n, got, time.Since(begin).Round(time.Millisecond))
		begin = time.Now()
		if _, err := b.Put(t.Context(), "one", value, 0); err != nil {
			t.Fatal(err)
		}
		acknowledged := time.Since(begin)
		for r.get("one").Revision == 0 {
			<-r.changed
		}
		t.Logf("%d servers: one write acknowledged after %v, seen by the watch after %v", n, acknowledged.Round(time.Microsecond), time.Since(begin).Round(time.Microsecond))
		begin = time.Now()
		s.Stop(0)
		if n == 1 {
			s.Start(0)
		}
		for {
			if _, err := b.Put(t.Context(), fmt.Sprint("after-", time.Now().UnixNano()), value, 0); err == nil {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		t.Logf("%d servers: after the loss of server 0 a write succeeded after %v", n, time.Since(begin).Round(time.Millisecond))
		select {
		case got = <-r.complete:
			t.Logf("%d servers: the watch was complete again after %v, %d keys", n, time.Since(begin).Round(time.Millisecond), got)
		case <-time.After(5 * time.Second):
			t.Logf("%d servers: the watch was not interrupted", n)
		}
	}
}

func TestServersAreNamedWithoutPassword(t *testing.T) {
	got := hosts([]string{"nats://ann:s3@cret@192.0.2.1:4222", "192.0.2.2", "tls://[2001:db8::1]:4222"})
	if want := "192.0.2.1:4222, 192.0.2.2, [2001:db8::1]:4222"; got != want {
		t.Errorf("servers are %q, want %q", got, want)
	}
}
