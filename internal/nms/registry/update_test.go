package registry

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"callhome/internal/nms/sshtest"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

// later is a clock to which each file was changed long ago.
func later() time.Time { return time.Now().Add(time.Hour) }

func mustOpenLater(t testing.TB, dir string) *Registry {
	t.Helper()
	r, _, err := open(dir, later)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// mustRead expects that f reads so many files.
func (r *Registry) mustRead(t testing.TB, want int, what string, f func()) {
	t.Helper()
	r.reading.Lock()
	before := r.reads
	r.reading.Unlock()
	f()
	r.reading.Lock()
	defer r.reading.Unlock()
	if got := r.reads - before; got != want {
		t.Errorf("%s read %d files, want %d", what, got, want)
	}
}

// fleet writes the entries of n devices.
func fleet(t testing.TB, dir string, n int) {
	t.Helper()
	for i := range n {
		id := fmt.Sprintf("edge%d", i)
		write(t, dir, id+suffix, pinned(id, sshtest.NewSigner(t).PublicKey()))
	}
}

func TestOnlyWhatHasChangedIsRead(t *testing.T) {
	const n = 200
	dir := t.TempDir()
	fleet(t, dir, n)
	r := mustOpenLater(t, dir)
	if r.reads != n {
		t.Errorf("Open read %d files, want %d", r.reads, n)
	}
	r.mustRead(t, 0, "without a change Reload", func() { mustReload(t, r) })
	write(t, dir, "edge7.json", pinned("edge7", sshtest.NewSigner(t).PublicKey()))
	r.mustRead(t, 1, "after a change Reload", func() {
		if c := mustReload(t, r); !slices.Equal(c.Changed, []string{"edge7"}) {
			t.Errorf("change %+v", c)
		}
	})
	if err := os.Chtimes(filepath.Join(dir, "edge8.json"), time.Now(), time.Now()); err != nil {
		t.Fatal(err)
	}
	r.mustRead(t, 1, "after new times Reload", func() {
		if c := mustReload(t, r); c.Any() {
			t.Errorf("change %+v", c)
		}
	})
	r.mustRead(t, 1, "Add", func() {
		if c, err := r.Add(&Entry{ID: "new", HostKeys: []ssh.PublicKey{sshtest.NewSigner(t).PublicKey()}}); err != nil || !slices.Equal(c.Added, []string{"new"}) {
			t.Errorf("%+v, %v", c, err)
		}
	})
	r.mustRead(t, 1, "Revoke", func() {
		if c, err := r.Revoke(r.Entry("edge9").fingerprints()[0]); err != nil || !c.Revoked {
			t.Errorf("%+v, %v", c, err)
		}
	})
	r.mustRead(t, 0, "Remove", func() {
		if c, err := r.Remove("edge9"); err != nil || !slices.Equal(c.Removed, []string{"edge9"}) {
			t.Errorf("%+v, %v", c, err)
		}
	})
	// Watch begins with a check of each file and reads none. Then it reads what has
	// changed, once.
	before := r.reads
	w := watching(t, r)
	w.synced(dir)
	r.mustRead(t, 1, "Watch", func() {
		write(t, dir, ".edge10", pinned("edge10", sshtest.NewSigner(t).PublicKey()))
		if err := os.Rename(filepath.Join(dir, ".edge10"), filepath.Join(dir, "edge10.json")); err != nil {
			t.Fatal(err)
		}
		w.await("a change", func(c Change) bool { return slices.Equal(c.Changed, []string{"edge10"}) })
	})
	w.end()
	if n := r.reads - before; n > 5 { // with those of synced's file
		t.Errorf("Watch read %d files", n)
	}
}

// watched are the reports of a Watch.
type watched struct {
	t       testing.TB
	changes chan Change
	errs    chan error
	end     func()
}

// watching runs Watch. It returns when the directory is watched and was read.
func watching(t testing.TB, r *Registry) *watched {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	w := &watched{t: t, changes: make(chan Change, 64), errs: make(chan error, 64)}
	done := make(chan error, 1)
	go func() {
		done <- r.Watch(ctx, func(c Change, err error) {
			if err != nil {
				w.errs <- err
			} else {
				w.changes <- c
			}
		})
	}()
	w.end = func() {
		t.Helper()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		done <- nil
	}
	t.Cleanup(w.end)
	return w
}

func (w *watched) await(what string, is func(Change) bool) {
	w.t.Helper()
	for {
		select {
		case c := <-w.changes:
			if is(c) {
				return
			}
			w.t.Logf("passed over: %+v", c)
		case <-time.After(20 * time.Second):
			w.t.Fatalf("no report of %s", what)
		}
	}
}

// A change right after the reading can leave each time of the file as it was. It has to
// be read again until its times are certain.
func TestAChangeInTheSameTickIsRead(t *testing.T) {
	dir := t.TempDir()
	one, other := sshtest.NewSigner(t).PublicKey(), sshtest.NewSigner(t).PublicKey()
	write(t, dir, "edge7.json", pinned("edge7", one))
	r := mustOpen(t, dir)
	write(t, dir, "edge7.json", pinned("edge7", other))
	var s unix.Stat_t
	if err := unix.Stat(filepath.Join(dir, "edge7.json"), &s); err != nil {
		t.Fatal(err)
	}
	r.files["edge7.json"].stamp = stampOf(&s) // as if the clock had not advanced
	r.mustRead(t, 1, "Reload", func() { mustReload(t, r) })
	wants(t, r, other, "edge7", "")
	r.now = later
	r.mustRead(t, 1, "Reload later", func() { mustReload(t, r) })
	r.mustRead(t, 0, "Reload once more", func() { mustReload(t, r) })
}

// A new file may have the number, the size and the time of modification of the old one.
func TestANewFileInPlaceOfAnotherIsRead(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "edge7.json")
	when := time.Now().Add(-time.Hour)
	r := mustOpenLater(t, dir)
	for range 20 {
		k := sshtest.NewSigner(t).PublicKey()
		_ = os.Remove(path)
		write(t, dir, "edge7.json", pinned("edge7", k))
		if err := os.Chtimes(path, when, when); err != nil {
			t.Fatal(err)
		}
		mustReload(t, r)
		wants(t, r, k, "edge7", "")
	}
}

// What a reader finds while a file is rewritten is corrected by the next Reload.
func TestAFileThatChangesWhileItIsReadIsReadAgain(t *testing.T) {
	dir := t.TempDir()
	keys := []ssh.PublicKey{sshtest.NewSigner(t).PublicKey(), sshtest.NewSigner(t).PublicKey()}
	r := mustOpen(t, dir)
	for n := range 50 {
		k := keys[n%2]
		done := make(chan bool)
		go func() {
			defer close(done)
			for range 5 {
				_ = os.WriteFile(filepath.Join(dir, "edge7.json"), []byte(pinned("edge7", keys[0])), 0o600)
				_ = os.WriteFile(filepath.Join(dir, "edge7.json"), []byte(pinned("edge7", k)), 0o600)
			}
		}()
		for writing := true; writing; {
			select {
			case <-done:
				writing = false
			default:
				mustReload(t, r)
			}
		}
		mustReload(t, r)
		wants(t, r, k, "edge7", "")
	}
}

func TestFilesCanExchangeTheirKeys(t *testing.T) {
	dir := t.TempDir()
	ids := []string{"a", "b", "c"}
	var keys []ssh.PublicKey
	for _, id := range ids {
		keys = append(keys, sshtest.NewSigner(t).PublicKey())
		write(t, dir, id+suffix, pinned(id, keys[len(keys)-1]))
	}
	r := mustOpen(t, dir)
	for n := range ids {
		write(t, dir, ids[n]+suffix, pinned(ids[n], keys[(n+1)%len(ids)]))
	}
	if c := mustReload(t, r); !slices.Equal(c.Changed, ids) || len(r.Problems()) != 0 {
		t.Errorf("change %+v, problems %v", c, r.Problems())
	}
	for n, id := range ids {
		wants(t, r, keys[(n+1)%len(ids)], id, "")
	}
	// A new file cannot have the key that an invalid exchange would leave.
	write(t, dir, "a.json", pinned("a", keys[0])) // c's
	write(t, dir, "0.json", pinned("0", keys[1])) // a's
	mustReload(t, r)
	wants(t, r, keys[1], "a", "")
	wants(t, r, keys[0], "c", "")
	if got := r.Problems(); len(got) != 2 || !strings.Contains(got[0].Error, "belongs to device a") || !strings.Contains(got[1].Error, "belongs to device c") {
		t.Errorf("problems %v", got)
	}
}

// After any changes each index agrees with the entries, each file is in force or has a
// problem, and no connection that may have lost its device is overlooked.
func TestUpdatesAgreeWithTheFiles(t *testing.T) {
	var keys, cas []ssh.Signer
	for range 6 {
		keys, cas = append(keys, sshtest.NewSigner(t)), append(cas, sshtest.NewSigner(t))
	}
	cas = cas[:2]
	principals := []string{"p0", "p1", "p2"}
	shown := []ssh.PublicKey{}
	for _, k := range keys {
		shown = append(shown, k.PublicKey(), certificate(t, cas[0], k, func(c *ssh.Certificate) { c.ValidPrincipals = principals[:1] }),
			certificate(t, cas[1], k, func(c *ssh.Certificate) { c.ValidPrincipals = principals[1:] }))
	}
	random := rand.New(rand.NewPCG(1, 2))
	dir := t.TempDir()
	r := mustOpen(t, dir)
	line := func(all []ssh.Signer) string { return sshtest.Line(all[random.IntN(len(all))].PublicKey()) }
	for step := range 500 {
		for range 1 + random.IntN(3) {
			id := string(rune('a' + random.IntN(6)))
			path := filepath.Join(dir, id+suffix)
			switch random.IntN(6) {
			case 0:
				_ = os.Remove(path)
			case 1:
				write(t, dir, id+suffix, "{")
			case 2:
				write(t, dir, id+suffix, fmt.Sprintf(`{"id": %q, "cas": [%q], "principals": [%q]}`, id, line(cas), principals[random.IntN(3)]))
			case 3:
				var list string
				for range random.IntN(2) {
					list += line(slices.Concat(keys, cas)) + "\n"
				}
				write(t, dir, RevokedFile, list)
			default:
				write(t, dir, id+suffix, fmt.Sprintf(`{"id": %q, "host-keys": [%q, %q]}`, id, line(keys), line(keys)))
			}
		}
		before := lookups(r, shown)
		c := mustReload(t, r)
		for n, id := range lookups(r, shown) {
			plain := shown[n]
			if cert, ok := plain.(*ssh.Certificate); ok {
				plain = cert.Key
			}
			if was := before[n]; was != "" && was != id && !concerns(c, was, ssh.FingerprintSHA256(plain), shown[n]) {
				t.Fatalf("step %d: key %d was %s's and is %q's, and the change %+v does not concern it", step, n, was, id, c)
			}
		}
		agrees(t, r, dir)
		if t.Failed() {
			t.Fatalf("in step %d", step)
		}
	}
}

// concerns is what a station asks of a change.
func concerns(c Change, id, fingerprint string, key ssh.PublicKey) bool {
	for device := range c.Devices(slices.Values([]string{id})) {
		if device == id {
			return c.Concerns(id, fingerprint, key)
		}
	}
	return false
}

func lookups(r *Registry, keys []ssh.PublicKey) []string {
	out := make([]string, len(keys))
	for n, k := range keys {
		if e, err := r.Lookup(k, noon); err == nil {
			out[n] = e.ID
		}
	}
	return out
}

func agrees(t *testing.T, r *Registry, dir string) {
	t.Helper()
	fresh := &Registry{entries: make(map[string]*Entry), byKey: make(map[string]string), byName: make(map[caName]string), cas: make(map[string]int)}
	for _, e := range r.Entries() {
		if err := fresh.put(e); err != nil {
			t.Error(err)
		}
	}
	if !maps.Equal(r.byKey, fresh.byKey) || !maps.Equal(r.byName, fresh.byName) || !maps.Equal(r.cas, fresh.cas) {
		t.Errorf("the indices are %v, %v, %v, want %v, %v, %v", r.byKey, r.byName, r.cas, fresh.byKey, fresh.byName, fresh.cas)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"+suffix))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		id, _ := idOf(filepath.Base(path))
		problem := r.problem(id + suffix)
		want, err := Parse(text)
		switch e := r.Entry(id); {
		case problem == "" && (e == nil || err != nil || !reflect.DeepEqual(e, want)):
			t.Errorf("%s has no problem; in force is %+v, want %+v, %v", id, e, want, err)
		case problem != "" && err == nil: // a conflict
			r.drop(e)
			if conflict := r.put(want); conflict == nil {
				t.Errorf("%s is not in force without a conflict: %s", id, problem)
				r.drop(want)
			}
			if e != nil {
				_ = r.put(e)
			}
		}
	}
	if n := len(r.Entries()); n > len(files) {
		t.Errorf("%d entries of %d files", n, len(files))
	}
}

// A directory that is replaced by another one is watched and read from then on, however
// long it was away.
func TestAReplacedDirectoryIsWatched(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "devices")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	fleet(t, dir, 2)
	r := mustOpenLater(t, dir)
	r.retry = time.Millisecond
	w := watching(t, r)
	w.synced(dir)
	if err := os.Rename(dir, dir+".old"); err != nil {
		t.Fatal(err)
	}
	for range 3 { // it tries again by itself
		select {
		case err := <-w.errs:
			if !strings.Contains(err.Error(), "watching the registry") {
				t.Error(err)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("no report that the directory is gone")
		}
	}
	if n := r.Len(); n != 2 {
		t.Errorf("%d entries are in force, want 2", n)
	}
	if p := r.Problems(); len(p) == 0 || p[0].File != dir || !strings.Contains(p[0].Error, "no such file") || r.Lost() == "" {
		t.Errorf("the problems are %+v, lost %q", p, r.Lost())
	}
	if err := os.Mkdir(dir+".new", 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, dir+".new", "a.json", pinned("a", sshtest.NewSigner(t).PublicKey()))
	if err := os.Rename(dir+".new", dir); err != nil {
		t.Fatal(err)
	}
	w.await("the new directory", func(c Change) bool { return len(c.Removed) == 2 && slices.Equal(c.Added, []string{"a"}) })
	write(t, dir, "b.json", pinned("b", sshtest.NewSigner(t).PublicKey()))
	w.await("a change in it", func(c Change) bool { return slices.Equal(c.Added, []string{"b"}) })
	if p := r.Problems(); len(p) != 0 || r.Lost() != "" {
		t.Errorf("the problems are %+v, lost %q", p, r.Lost())
	}
}

// synced waits until the directory is watched.
func (w *watched) synced(dir string) {
	w.t.Helper()
	write(w.t, dir, "synced.json", "{")
	w.await("a file", func(c Change) bool { return len(c.Problems) == 1 })
	if err := os.Remove(filepath.Join(dir, "synced.json")); err != nil {
		w.t.Fatal(err)
	}
}

// A file that cannot be read is tried again by itself: no event of the directory tells
// that it can.
func TestAnUnreadableFileIsTriedAgain(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	target := filepath.Join(elsewhere, "edge7.json")
	if err := os.Symlink(target, target); err != nil { // a loop: ELOOP
		t.Fatal(err)
	}
	if err := os.Symlink(target, filepath.Join(dir, "edge7.json")); err != nil {
		t.Fatal(err)
	}
	r := mustOpen(t, dir)
	if p := r.Problems(); len(p) != 1 || !strings.Contains(p[0].Error, unix.ELOOP.Error()) {
		t.Fatalf("problems %v", p)
	}
	r.retry = time.Millisecond
	w := watching(t, r)
	write(t, elsewhere, "next", pinned("edge7", sshtest.NewSigner(t).PublicKey()))
	if err := os.Rename(filepath.Join(elsewhere, "next"), target); err != nil {
		t.Fatal(err)
	}
	for r.Entry("edge7") == nil {
		select {
		case <-w.changes:
		case <-time.After(20 * time.Second):
			t.Fatal("it is not tried again")
		}
	}
	if p := r.Problems(); len(p) != 0 {
		t.Errorf("problems %v", p)
	}
}

// Entries may be links through one that is exchanged, as Kubernetes mounts a ConfigMap.
func TestAnExchangedLinkIsFollowed(t *testing.T) {
	dir := t.TempDir()
	for n := range 2 {
		part := fmt.Sprintf("..%d", n)
		if err := os.Mkdir(filepath.Join(dir, part), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, part), "edge7.json", pinned("edge7", sshtest.NewSigner(t).PublicKey()))
	}
	for link, to := range map[string]string{"..data": "..0", "..next": "..1", "edge7.json": "..data/edge7.json"} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	r := mustOpenLater(t, dir)
	w := watching(t, r)
	w.synced(dir)
	if err := os.Rename(filepath.Join(dir, "..next"), filepath.Join(dir, "..data")); err != nil {
		t.Fatal(err)
	}
	w.await("the exchange", func(c Change) bool { return slices.Equal(c.Changed, []string{"edge7"}) })
}

// BenchmarkFleet has a registry of 20,000 devices. Of what it does, cpu-ms/op is the
// processor time; syncing files takes longer.
func BenchmarkFleet(b *testing.B) {
	dir := b.TempDir()
	fleet(b, dir, 20000)
	r, _, err := open(dir, later)
	if err != nil {
		b.Fatal(err)
	}
	signers := []ssh.PublicKey{sshtest.NewSigner(b).PublicKey(), sshtest.NewSigner(b).PublicKey()}
	for _, bb := range []struct {
		name string
		op   func(n int) error
	}{
		{"Add and Remove", func(int) error {
			_, err := r.Add(&Entry{ID: "new", HostKeys: signers[:1]})
			if err == nil {
				_, err = r.Remove("new")
			}
			return err
		}},
		{"one change as Watch reads it", func(n int) error {
			write(b, dir, "edge7.json", pinned("edge7", signers[n%2]))
			_, err := r.Read("edge7.json")
			return err
		}},
		{"a check of each file", func(int) error {
			_, err := r.Reload()
			return err
		}},
		{"Open", func(int) error {
			_, _, err := Open(dir)
			return err
		}},
	} {
		b.Run(bb.name, func(b *testing.B) {
			runtime.GC()
			before := used(b)
			for n := range b.N {
				if err := bb.op(n); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(used(b)-before)/float64(b.N)/1e6, "cpu-ms/op")
		})
	}
}

// used is the processor time of this process.
func used(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
