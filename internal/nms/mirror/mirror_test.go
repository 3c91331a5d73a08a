package mirror

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"callhome/internal/nms/buckets"
	"callhome/internal/nms/natstest"
	"callhome/internal/nms/registry"

	"github.com/hashicorp/go-hclog"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/crypto/ssh"
)

func newKey(t testing.TB) ssh.PublicKey {
	t.Helper()
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func entry(id string, keys ...ssh.PublicKey) *registry.Entry {
	return &registry.Entry{ID: id, HostKeys: keys, User: "admin"}
}

// station is a mirror with its registry.
type station struct {
	*Mirror
	dir    string
	conn   *buckets.Conn
	cancel context.CancelFunc
	done   chan struct{}
}

func join(t testing.TB, s *natstest.Servers, dir string) *station {
	t.Helper()
	conn, err := buckets.Connect(buckets.Options{URLs: s.URLs(), Name: "test"}, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if err := conn.AwaitUp(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Create(ctx, buckets.Layout{Replicas: 1, Lease: 10 * time.Second}); err != nil {
		t.Fatal(err)
	}
	r, _, err := registry.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	m, err := New(dir, r, func(registry.Change, error) {}, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	entries, err := conn.Open(ctx, buckets.Registry)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := conn.Open(ctx, buckets.Keys)
	if err != nil {
		t.Fatal(err)
	}
	st := &station{m, dir, conn, cancel, make(chan struct{})}
	go func() { defer close(st.done); m.Run(ctx, entries, keys) }()
	await(t, "the copy is complete", func() bool { m.mu.Lock(); defer m.mu.Unlock(); return m.complete })
	t.Cleanup(st.leave)
	return st
}

func (s *station) leave() {
	s.cancel()
	<-s.done
	s.conn.Close()
}

func await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not in time: " + what)
		}
	}
}

func (s *station) has(id string) bool {
	_, err := os.Stat(filepath.Join(s.dir, id+".json"))
	return err == nil
}

func TestAChangeIsAtEveryStation(t *testing.T) {
	servers := natstest.Start(t, 1)
	a, b := join(t, servers, t.TempDir()), join(t, servers, t.TempDir())
	key := newKey(t)
	if _, err := a.Add(entry("edge7.example.net", key)); err != nil || a.registry.Entry("edge7.example.net") == nil {
		t.Fatalf("adding a device: %v", err)
	}
	await(t, "the device is in force at the other station", func() bool { return b.registry.Entry("edge7.example.net") != nil })
	if _, err := b.Add(entry("other", key)); err == nil || !strings.Contains(err.Error(), "belongs to device edge7.example.net") {
		t.Fatalf("a second device with the same host key: %v", err)
	}
	if _, err := b.Add(entry("edge7.example.net", newKey(t))); !errors.Is(err, os.ErrExist) {
		t.Fatalf("a second device with the same id: %v", err)
	}
	if _, err := b.Revoke(ssh.FingerprintSHA256(key)); err != nil {
		t.Fatal(err)
	}
	await(t, "the revocation is at the other station", func() bool {
		text, _ := os.ReadFile(filepath.Join(a.dir, registry.RevokedFile))
		return strings.Contains(string(text), ssh.FingerprintSHA256(key))
	})
	if _, err := b.Remove("edge7.example.net"); err != nil || b.registry.Entry("edge7.example.net") != nil {
		t.Fatalf("removing it: %v", err)
	}
	await(t, "it is removed at the other station", func() bool { return !a.has("edge7.example.net") })
	if _, err := b.Remove("edge7.example.net"); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("removing it again: %v", err)
	}
	if _, err := a.Add(entry("other", key)); err != nil {
		t.Fatalf("its host key is not free: %v", err)
	}
}

// TestOneKeyIsOneDevices: of stations that register one host key at the same time as
// different devices, one succeeds.
func TestOneKeyIsOneDevices(t *testing.T) {
	servers := natstest.Start(t, 1)
	stations := []*station{join(t, servers, t.TempDir()), join(t, servers, t.TempDir()), join(t, servers, t.TempDir())}
	for round := range 20 {
		key := newKey(t)
		var won atomic.Int64
		var wg sync.WaitGroup
		for i, s := range stations {
			wg.Go(func() {
				if _, err := s.Add(entry(fmt.Sprintf("d%d-%d", round, i), key)); err == nil {
					won.Add(1)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 {
			t.Fatalf("%d stations registered one key", won.Load())
		}
	}
}

// TestAbandonedMarksAreTakenOver: a station died between marking a host key and writing
// the entry.
func TestAbandonedMarksAreTakenOver(t *testing.T) {
	servers := natstest.Start(t, 1)
	a := join(t, servers, t.TempDir())
	key := newKey(t)
	all, _ := marks(entry("never", key))
	if _, err := a.keys.Put(t.Context(), all[0], []byte("never"), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Add(entry("d", key)); err == nil || !strings.Contains(err.Error(), "temporary, retry") {
		t.Fatalf("a mark that another station may be using: %v", err)
	}
	if _, err := a.takeMark(t.Context(), a.entries, a.keys, all[0], "x", "never"); err != nil {
		t.Fatalf("a mark of the same device: %v", err)
	}
}

// TestLocalFilesStay: what only one station has is reported, and neither removed nor
// given to the cluster silently, at the first start and with another bucket.
func TestLocalFilesStay(t *testing.T) {
	servers := natstest.Start(t, 1)
	dir := t.TempDir()
	local, revoked := entry("local", newKey(t)), newKey(t)
	write(t, filepath.Join(dir, "local.json"), local.Format())
	write(t, filepath.Join(dir, registry.RevokedFile), ssh.MarshalAuthorizedKey(revoked))
	a := join(t, servers, dir)
	b := join(t, servers, t.TempDir())
	if f := a.Problems(); len(f) != 1 || f[0].File != "local.json" || b.has("local") {
		t.Fatalf("files that only a has: %v", f)
	}
	if o, err := a.Import(local); err != nil || o != Added {
		t.Fatalf("importing it: %v, %v", o, err)
	}
	if o, err := a.Import(local); err != nil || o != Unchanged {
		t.Fatalf("importing it again: %v, %v", o, err)
	}
	await(t, "it is at the other station", func() bool { return b.has("local") })
	if f := a.Problems(); len(f) != 0 {
		t.Fatalf("files that only a has: %v", f)
	}
	// The first revocation in the cluster takes this station's list along.
	if _, err := a.Revoke(ssh.FingerprintSHA256(newKey(t))); err != nil {
		t.Fatal(err)
	}
	await(t, "the revoked key is at the other station", func() bool {
		text, _ := os.ReadFile(filepath.Join(b.dir, registry.RevokedFile))
		return strings.Contains(string(text), strings.TrimSpace(string(ssh.MarshalAuthorizedKey(revoked))))
	})
	// Another station joins with a revoked key of its own.
	third, alone := t.TempDir(), newKey(t)
	write(t, filepath.Join(third, registry.RevokedFile), ssh.MarshalAuthorizedKey(alone))
	join(t, servers, third)
	await(t, "its revoked key is at the others", func() bool {
		text, _ := os.ReadFile(filepath.Join(b.dir, registry.RevokedFile))
		return strings.Contains(string(text), strings.TrimSpace(string(ssh.MarshalAuthorizedKey(alone))))
	})
	// The bucket is lost, and created anew without an entry: nothing is removed.
	a.leave()
	fresh := natstest.Start(t, 1)
	a = join(t, fresh, dir)
	if f := a.Problems(); len(f) != 1 || !a.has("local") {
		t.Fatalf("with a new bucket, files that only a has: %v", f)
	}
}

// TestRemovedWhileAway: a station that was away removes what was removed meanwhile, and
// only that.
func TestRemovedWhileAway(t *testing.T) {
	servers := natstest.Start(t, 1)
	dir := t.TempDir()
	a, b := join(t, servers, dir), join(t, servers, t.TempDir())
	for _, id := range []string{"one", "two"} {
		if _, err := a.Add(entry(id, newKey(t))); err != nil {
			t.Fatal(err)
		}
	}
	a.leave()
	if _, err := b.Remove("one"); err == nil {
		t.Log("b has removed one")
	} else {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "mine.json"), entry("mine", newKey(t)).Format())
	a = join(t, servers, dir)
	await(t, "one is removed", func() bool { return !a.has("one") })
	if !a.has("two") || !a.has("mine") {
		t.Fatal("a file was removed that the cluster has, or never had")
	}
}

// TestAnEmptiedBucketRemovesNothing: somebody purged the bucket.
func TestAnEmptiedBucketRemovesNothing(t *testing.T) {
	servers := natstest.Start(t, 1)
	dir := t.TempDir()
	a := join(t, servers, dir)
	if _, err := a.Add(entry("one", newKey(t))); err != nil {
		t.Fatal(err)
	}
	a.leave()
	nc, err := nats.Connect(servers.URLs()[0])
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), "KV_"+buckets.Registry)
	if err == nil {
		err = stream.Purge(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	a = join(t, servers, dir)
	if !a.has("one") {
		t.Fatal("the entry is removed")
	}
}

func (s *station) revoked(key ssh.PublicKey) bool {
	text, _ := os.ReadFile(filepath.Join(s.dir, registry.RevokedFile))
	return strings.Contains(string(text), strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))) || strings.Contains(string(text), ssh.FingerprintSHA256(key))
}

// TestNoRevocationIsLost: the bucket has no list when a station joins that has one, a
// list in it is removed, or is replaced by one that cannot be read.
func TestNoRevocationIsLost(t *testing.T) {
	servers := natstest.Start(t, 1)
	dir, key, later := t.TempDir(), newKey(t), newKey(t)
	write(t, filepath.Join(dir, registry.RevokedFile), ssh.MarshalAuthorizedKey(key))
	a, b := join(t, servers, dir), join(t, servers, t.TempDir())
	if _, err := b.Revoke(ssh.FingerprintSHA256(later)); err != nil {
		t.Fatal(err)
	}
	for _, s := range []*station{a, b} {
		await(t, "each station has both revocations", func() bool { return s.revoked(key) && s.revoked(later) })
	}
	v, err := b.entries.Get(t.Context(), revokedKey)
	if err == nil {
		_, err = b.entries.Put(t.Context(), revokedKey, []byte("garbage\n"), v.Revision)
	}
	if err != nil {
		t.Fatal(err)
	}
	passed := func(id string) { // what was written before is known everywhere
		t.Helper()
		if _, err := b.Add(entry(id, newKey(t))); err != nil {
			t.Fatal(err)
		}
		await(t, "a further entry is at the other station", func() bool { return a.has(id) })
	}
	passed("one")
	if !a.revoked(key) || !b.revoked(later) {
		t.Error("a list that cannot be read has replaced one that can")
	}
	if v, err = b.entries.Get(t.Context(), revokedKey); err == nil {
		err = b.entries.Delete(t.Context(), revokedKey, v.Revision)
	}
	if err != nil {
		t.Fatal(err)
	}
	passed("two")
	if !a.revoked(key) || !b.revoked(later) {
		t.Error("a list that was removed from the bucket is removed here")
	}
	a.leave()
	a = join(t, servers, dir)
	c := join(t, servers, t.TempDir())
	if !a.revoked(key) || !c.revoked(key) || !c.revoked(later) {
		t.Error("the next station that joins does not bring the list back")
	}
}

// TestARevocationByHandIsNotLost: the list is made while the station runs, and another
// station's revocation comes then.
func TestARevocationByHandIsNotLost(t *testing.T) {
	servers := natstest.Start(t, 1)
	a, b := join(t, servers, t.TempDir()), join(t, servers, t.TempDir())
	key, later := newKey(t), newKey(t)
	write(t, filepath.Join(a.dir, registry.RevokedFile), ssh.MarshalAuthorizedKey(key))
	if _, err := b.Revoke(ssh.FingerprintSHA256(later)); err != nil {
		t.Fatal(err)
	}
	for _, s := range []*station{a, b} {
		await(t, "each station has both revocations", func() bool { return s.revoked(key) && s.revoked(later) })
	}
	// Another station was first with its list: this one knows of none yet.
	third := newKey(t)
	write(t, filepath.Join(a.dir, registry.RevokedFile), ssh.MarshalAuthorizedKey(third))
	a.mu.Lock()
	v, ok := a.revoke(buckets.Value{})
	a.mu.Unlock()
	if text := string(v.Data); !ok || !strings.Contains(text, ssh.FingerprintSHA256(later)) || !strings.Contains(text, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(third)))) {
		t.Errorf("the list of both is %q, %v", text, ok)
	}
}

// TestTheSameDeviceTwice: of two stations that register one device at the same time, the
// one that fails leaves the host key to the other.
func TestTheSameDeviceTwice(t *testing.T) {
	servers := natstest.Start(t, 1)
	a, b := join(t, servers, t.TempDir()), join(t, servers, t.TempDir())
	key := newKey(t)
	if _, err := a.Add(entry("d", key)); err != nil {
		t.Fatal(err)
	}
	second := entry("d", key)
	second.User = "root"
	if _, err := b.Add(second); !errors.Is(err, os.ErrExist) {
		t.Fatalf("the same device at another station: %v", err)
	}
	if _, err := b.Add(entry("other", key)); err == nil || !strings.Contains(err.Error(), "belongs to device d") {
		t.Fatalf("its host key as that of another device: %v", err)
	}
}

// TestAWatchThatIsBehindRemovesNothing: a watch begins at a server that has not got the
// last writes yet.
func TestAWatchThatIsBehindRemovesNothing(t *testing.T) {
	servers := natstest.Start(t, 1)
	a := join(t, servers, t.TempDir())
	for _, id := range []string{"one", "two"} {
		if _, err := a.Add(entry(id, newKey(t))); err != nil {
			t.Fatal(err)
		}
	}
	v, err := a.entries.Get(t.Context(), buckets.KeyOf("one"))
	if err != nil {
		t.Fatal(err)
	}
	changed := &registry.Entry{ID: "one", HostKeys: []ssh.PublicKey{newKey(t)}, User: "changed"}
	if o, err := a.Import(changed); err != nil || o != Changed {
		t.Fatalf("%v, %v", o, err)
	}
	f := (*entriesWatch)(a.Mirror)
	f.Begin(a.entries.Created)
	f.Value(buckets.KeyOf("one"), v) // the former entry, and nothing of two
	f.Complete()
	text, _ := os.ReadFile(filepath.Join(a.dir, "one.json"))
	if string(text) != string(changed.Format()) {
		t.Errorf("one is as it was before:\n%s", text)
	}
	if !a.has("two") {
		t.Error("two is removed")
	}
}

// TestAnotherBucketRemovesNothing: a bucket is created anew while a station runs, and an
// entry is written before the others are imported.
func TestAnotherBucketRemovesNothing(t *testing.T) {
	servers := natstest.Start(t, 1)
	a := join(t, servers, t.TempDir())
	for _, id := range []string{"one", "two"} {
		if _, err := a.Add(entry(id, newKey(t))); err != nil {
			t.Fatal(err)
		}
	}
	nc, err := nats.Connect(servers.URLs()[0])
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err == nil {
		err = js.DeleteStream(t.Context(), "KV_"+buckets.Registry)
	}
	if err == nil {
		_, err = a.conn.Create(t.Context(), buckets.Layout{Replicas: 1, Lease: 10 * time.Second})
	}
	if err != nil {
		t.Fatal(err)
	}
	other := &registry.Entry{ID: "one", HostKeys: []ssh.PublicKey{newKey(t)}, User: "other"}
	revision, err := a.entries.Put(t.Context(), buckets.KeyOf("one"), other.Format(), 0)
	if err != nil {
		t.Fatal(err)
	}
	is, err := js.Stream(t.Context(), "KV_"+buckets.Registry)
	if err != nil {
		t.Fatal(err)
	}
	f := (*entriesWatch)(a.Mirror) // as when the watch begins anew
	f.Begin(is.CachedInfo().Created)
	f.Value(buckets.KeyOf("one"), buckets.Value{Data: other.Format(), Revision: revision})
	f.Complete()
	text, _ := os.ReadFile(filepath.Join(a.dir, "one.json"))
	if string(text) != string(other.Format()) {
		t.Errorf("one is that of the former bucket:\n%s", text)
	}
	if p := a.Problems(); !a.has("two") || len(p) != 1 || p[0].File != "two.json" {
		t.Errorf("two is removed, or not listed: %v", p)
	}
}

// TestAnUndoneRevocationStaysUndone: a station that was away has the key in its copy, and
// does not bring it back. A list that is no copy may have a revocation of its own: it does.
func TestAnUndoneRevocationStaysUndone(t *testing.T) {
	servers := natstest.Start(t, 1)
	dir, key, other := t.TempDir(), newKey(t), newKey(t)
	a, b := join(t, servers, t.TempDir()), join(t, servers, dir)
	for _, k := range []ssh.PublicKey{key, other} {
		if _, err := a.Revoke(ssh.FingerprintSHA256(k)); err != nil {
			t.Fatal(err)
		}
	}
	await(t, "the keys are revoked at the other station", func() bool { return b.revoked(key) && b.revoked(other) })
	b.leave()
	c := join(t, servers, t.TempDir())
	for _, k := range []ssh.PublicKey{key, other} { // at last the list is empty, and no less a list
		if _, err := a.Unrevoke(ssh.FingerprintSHA256(k)); err != nil {
			t.Fatal(err)
		}
		if slices.Contains(a.registry.Revoked(), ssh.FingerprintSHA256(k)) {
			t.Error("the revocation is in force where it was undone")
		}
	}
	if _, err := a.Unrevoke(ssh.FingerprintSHA256(key)); !errors.Is(err, registry.ErrNotRevoked) {
		t.Errorf("undoing it again: %v", err)
	}
	await(t, "it is undone at a station that runs", func() bool { return !c.revoked(key) && !c.revoked(other) })
	b = join(t, servers, dir)
	await(t, "it is undone at the station that was away", func() bool { return !b.revoked(key) && !b.revoked(other) })
	if v, err := a.entries.Get(t.Context(), revokedKey); err != nil || v.Revision == 0 || len(v.Data) != 0 {
		t.Errorf("the cluster's list is %q, revision %d, %v", v.Data, v.Revision, err)
	}
	fresh := t.TempDir()
	write(t, filepath.Join(fresh, registry.RevokedFile), ssh.MarshalAuthorizedKey(key))
	join(t, servers, fresh)
	await(t, "a list that is no copy is added", func() bool { return a.revoked(key) && b.revoked(key) })
}

// TestAChangeThatCannotBeWrittenIsTriedAgain, and listed until then: a full disk must not
// keep a revocation out for long.
func TestAChangeThatCannotBeWrittenIsTriedAgain(t *testing.T) {
	servers := natstest.Start(t, 1)
	a, b := join(t, servers, t.TempDir()), join(t, servers, t.TempDir())
	for _, name := range []string{"edge7.json", registry.RevokedFile} { // no file replaces a directory
		if err := os.MkdirAll(filepath.Join(b.dir, name, "in the way"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	key := newKey(t)
	if _, err := a.Add(entry("edge7", newKey(t))); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Revoke(ssh.FingerprintSHA256(key)); err != nil {
		t.Fatal(err)
	}
	await(t, "both are listed", func() bool {
		p := b.Problems()
		return len(p) == 2 && p[0].File == "edge7.json" && p[1].File == registry.RevokedFile && strings.Contains(p[0].Error, "cannot be written")
	})
	for what, again := range map[string]string{"the same key": ssh.FingerprintSHA256(key), "another key": ssh.FingerprintSHA256(newKey(t))} {
		if _, err := b.Revoke(again); err == nil || !strings.Contains(err.Error(), "this station cannot write") {
			t.Errorf("revoking %s where it is not in force: %v", what, err)
		}
	}
	for _, p := range b.Problems() {
		if err := os.RemoveAll(filepath.Join(b.dir, p.File)); err != nil {
			t.Fatal(err)
		}
	}
	await(t, "both are in force", func() bool {
		return len(b.Problems()) == 0 && b.registry.Entry("edge7") != nil && len(b.registry.Revoked()) == 2
	})
}

// TestTheStateSurvivesAFullDisk: a line of the state could not be written, or only a part.
func TestTheStateSurvivesAFullDisk(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, stateName)
	s, err := openState(path)
	if err == nil {
		err = errors.Join(s.reset("bucket"), s.add("one.json"))
	}
	if err != nil {
		t.Fatal(err)
	}
	whole, _ := os.ReadFile(path)
	if err := os.Remove(path); err != nil { // so that an append fails
		t.Fatal(err)
	}
	if err := s.add("two.json"); err == nil || s.has("two.json") {
		t.Fatalf("a file is a copy that is not recorded as one: %v", err)
	}
	write(t, path, append(whole, "+tw"...))
	if err := s.add("two.json"); err != nil {
		t.Fatal(err)
	}
	inTheWay := filepath.Join(dir, ".new-"+stateName) // so that the file is not written anew
	if err := os.Mkdir(inTheWay, 0o700); err != nil {
		t.Fatal(err)
	}
	start, err := openState(path)
	if err != nil || !start.has("two.json") {
		t.Fatalf("a station does not start: %v", err)
	}
	if err := start.add("three.json"); err == nil {
		t.Fatal("a line was added to a file that may be torn")
	}
	if err := os.Remove(inTheWay); err != nil {
		t.Fatal(err)
	}
	again, err := openState(path)
	if err != nil || !again.has("one.json") || !again.has("two.json") || len(again.names()) != 2 {
		t.Fatalf("read again, the copies are %v, %v", again.names(), err)
	}
}

func write(t testing.TB, path string, text []byte) {
	t.Helper()
	if err := os.WriteFile(path, text, 0o640); err != nil {
		t.Fatal(err)
	}
}

// TestMeasure prints what an import and a station's first copy cost: CALLHOME_MEASURE has
// the number of entries.
func TestMeasure(t *testing.T) {
	n, _ := strconv.Atoi(os.Getenv("CALLHOME_MEASURE"))
	if n == 0 {
		t.Skip("set CALLHOME_MEASURE to a number of entries to measure")
	}
	servers := natstest.Start(t, 1)
	a := join(t, servers, t.TempDir())
	begin := time.Now()
	var wg sync.WaitGroup
	next := make(chan int)
	for range 16 {
		wg.Go(func() {
			for i := range next {
				if _, err := a.Import(entry(fmt.Sprint("device-", i), newKey(t))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
	t.Logf("%d entries imported in %v", n, time.Since(begin).Round(time.Millisecond))
	begin = time.Now()
	dir := t.TempDir()
	b := join(t, servers, dir)
	t.Logf("another station has a copy after %v", time.Since(begin).Round(time.Millisecond))
	if _, err := b.registry.Reload(); err != nil {
		t.Fatal(err)
	}
	begin = time.Now()
	if _, err := a.Add(entry("one-more", newKey(t))); err != nil {
		t.Fatal(err)
	}
	added := time.Since(begin)
	await(t, "it is in force at the other station", func() bool { return b.registry.Entry("one-more") != nil })
	t.Logf("one more is added in %v, and in force at the other station after %v", added.Round(time.Microsecond), time.Since(begin).Round(time.Microsecond))
	b.leave()
	begin = time.Now()
	join(t, servers, dir)
	t.Logf("started again, the other station has compared its copy after %v", time.Since(begin).Round(time.Millisecond))
}
