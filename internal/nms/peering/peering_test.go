package peering

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"callhome/internal/nms/nmsproto"
	"callhome/internal/nms/station"
	"callhome/internal/proto"

	"github.com/hashicorp/go-hclog"
)

// cluster is a CA, and the directories of its stations.
type cluster struct {
	t   testing.TB
	ca  *Authority
	dir string
}

func newCluster(t testing.TB) *cluster {
	t.Helper()
	dir := t.TempDir()
	ca, err := OpenAuthority(dir)
	if err != nil {
		t.Fatal(err)
	}
	return &cluster{t, ca, dir}
}

// issue makes a certificate for a station and returns its directory.
func (c *cluster) issue(name string) string {
	c.t.Helper()
	dir := filepath.Join(c.dir, name)
	if _, err := c.ca.Issue(dir, name, nil, time.Hour); err != nil {
		c.t.Fatal(err)
	}
	return dir
}

func (c *cluster) identity(name string) *Identity {
	c.t.Helper()
	return load(c.t, name, c.issue(name))
}

func load(t testing.TB, name, dir string) *Identity {
	t.Helper()
	i, err := Load(name, dir, func(err error) { t.Log("reload:", err) })
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// backend holds device d, whose subsystem is connect.
type backend struct {
	connect func(ctx context.Context, sock station.Duplex) (nmsproto.ConnectResult, error)
	kept    bool
}

func (b backend) Connect(ctx context.Context, device string, sock station.Duplex) (nmsproto.ConnectResult, error) {
	defer sock.Close()
	if device != "d" {
		return nmsproto.ConnectResult{}, proto.StageError(proto.StageSession, "device "+device+" is not connected", proto.ErrorData{})
	}
	return b.connect(ctx, sock)
}

func (backend) Detail(device string) (nmsproto.DeviceDetail, error) {
	if device != "d" {
		return nmsproto.DeviceDetail{}, proto.NewError(proto.CodeNoExists, "there is no device "+device)
	}
	labels := make(map[string]string)
	for i := range 64 {
		labels[fmt.Sprint(i)] = strings.Repeat("x", 1024) // as an entry may have
	}
	return nmsproto.DeviceDetail{Device: nmsproto.Device{ID: device, Labels: labels}, RoundTrip: time.Millisecond}, nil
}

func (b backend) Settle(_ context.Context, device string) (bool, string) {
	return b.kept, device + " is settled"
}

// echo sends back what it gets, then the end, and has a result.
func echo(_ context.Context, sock station.Duplex) (nmsproto.ConnectResult, error) {
	n, err := io.CopyBuffer(struct{ io.Writer }{sock}, struct{ io.Reader }{sock}, make([]byte, 16<<10))
	if err != nil {
		return nmsproto.ConnectResult{}, err
	}
	status := 7
	return nmsproto.ConnectResult{ExitStatus: &status, Stderr: "last words", Sent: uint64(n), Received: uint64(n)}, sock.CloseWrite()
}

// logged is a log that tests read.
type logged struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// holder is a station that answers others.
type holder struct {
	Peer
	server *Server
	log    *logged
	stop   func() // ends it, and waits
}

func serve(t testing.TB, i *Identity, b Backend, known func(string) bool) *holder {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l, err := Listen(ctx, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &holder{Peer: Peer{i.Station(), l.Addr().String()}, log: new(logged)}
	h.server = NewServer(i, b, known, hclog.New(&hclog.LoggerOptions{Output: h.log}))
	done := make(chan error, 1)
	go func() { done <- h.server.Serve(ctx, l) }()
	h.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(h.stop)
	return h
}

// socket is a caller's socket: its own end, and the one that a session gets.
func socket(t testing.TB) (ours, theirs *net.UnixConn) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if ours, err = net.DialUnix("unix", nil, l.Addr().(*net.UnixAddr)); err != nil {
		t.Fatal(err)
	}
	if theirs, err = l.AcceptUnix(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	return ours, theirs
}

type ended struct {
	out nmsproto.ConnectResult
	err error
}

// connect begins a session with device d.
func connect(ctx context.Context, t testing.TB, c *Client, p Peer) (*net.UnixConn, <-chan ended) {
	t.Helper()
	ours, theirs := socket(t)
	result := make(chan ended, 1)
	go func() {
		out, err := c.Connect(ctx, p, "d", Caller{User: "alice", UID: 1000}, theirs)
		result <- ended{out, err}
	}()
	return ours, result
}

func await[T any](t testing.TB, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(time.Minute):
		t.Fatal("nothing within a minute")
		panic("unreachable")
	}
}

func TestASessionKeepsItsBytesItsEndsAndItsResult(t *testing.T) {
	c := newCluster(t)
	h := serve(t, c.identity("b"), backend{connect: echo}, nil)
	for _, size := range []int{0, 1, dataSize, dataSize + 1, 16 << 10, 1 << 20} {
		ours, result := connect(t.Context(), t, NewClient(c.identity("a")), h.Peer)
		text := make([]byte, size)
		for i := range text {
			text[i] = byte(rand.Uint32())
		}
		go func() {
			_, _ = ours.Write(text)
			_ = ours.CloseWrite()
		}()
		got, err := io.ReadAll(ours)
		if err != nil || !bytes.Equal(got, text) {
			t.Errorf("%d bytes: got %d back, %v", size, len(got), err)
		}
		r := await(t, result)
		if r.err != nil || r.out.ExitStatus == nil || *r.out.ExitStatus != 7 || r.out.Stderr != "last words" || r.out.Sent != uint64(size) {
			t.Errorf("%d bytes: got %+v", size, r)
		}
	}
	h.stop()
	for _, want := range []string{"session of another station begins: device=d station=a user=alice uid=1000", "session of another station ended: device=d station=a user=alice uid=1000"} {
		if !strings.Contains(h.log.String(), want) {
			t.Errorf("the log has no %q:\n%s", want, h.log)
		}
	}
}

func TestTheDevicesEndLeavesTheOtherDirectionOpen(t *testing.T) {
	c := newCluster(t)
	got := make(chan string, 1)
	h := serve(t, c.identity("b"), backend{connect: func(_ context.Context, sock station.Duplex) (nmsproto.ConnectResult, error) {
		_, _ = sock.Write([]byte("hello"))
		_ = sock.CloseWrite()
		text, err := io.ReadAll(sock)
		got <- string(text)
		return nmsproto.ConnectResult{}, err
	}}, nil)
	ours, result := connect(t.Context(), t, NewClient(c.identity("a")), h.Peer)
	if text, err := io.ReadAll(ours); err != nil || string(text) != "hello" {
		t.Fatalf("got %q, %v", text, err)
	}
	_, _ = ours.Write([]byte("later"))
	_ = ours.CloseWrite()
	if text := await(t, got); text != "later" {
		t.Errorf("got %q", text)
	}
	if r := await(t, result); r.err != nil {
		t.Error(r.err)
	}
}

func TestTheHoldersErrorIsPassedOn(t *testing.T) {
	c := newCluster(t)
	h := serve(t, c.identity("b"), backend{}, nil)
	_, err := NewClient(c.identity("a")).Open(t.Context(), h.Peer, "e", Caller{})
	var e *proto.Error
	if !errors.As(err, &e) || e.Message != "device e is not connected" || e.Data.Stage != proto.StageSession || !e.Data.Retry {
		t.Errorf("got %+v", err)
	}
}

func TestSettle(t *testing.T) {
	c := newCluster(t)
	client := NewClient(c.identity("a"))
	for _, kept := range []bool{true, false} {
		h := serve(t, c.identity("b"), backend{kept: kept}, nil)
		got, cause, err := client.Settle(t.Context(), h.Peer, "d")
		if got != kept || cause != "d is settled" || err != nil {
			t.Errorf("kept %v: got %v, %q, %v", kept, got, cause, err)
		}
		h.stop()
		if _, _, err := client.Settle(t.Context(), h.Peer, "d"); err == nil || !strings.Contains(err.Error(), "device d of station b: it cannot be reached at 127.0.0.1:") {
			t.Errorf("from a station that is gone: %v", err)
		}
	}
}

func TestDetail(t *testing.T) {
	c := newCluster(t)
	client := NewClient(c.identity("a"))
	h := serve(t, c.identity("b"), backend{}, nil)
	if got, err := client.Detail(t.Context(), h.Peer, "d"); err != nil || got.ID != "d" || got.RoundTrip != time.Millisecond {
		t.Errorf("got %+v, %v", got, err)
	}
	var refused *proto.Error
	if _, err := client.Detail(t.Context(), h.Peer, "e"); !errors.As(err, &refused) || refused.Code != proto.CodeNoExists {
		t.Errorf("another device: %v", err)
	}
	h.stop()
	if _, err := client.Detail(t.Context(), h.Peer, "d"); err == nil {
		t.Error("a station that is gone answers")
	}
}

// until is closed once wait returns, in the background.
func until(wait func()) <-chan struct{} {
	done := make(chan struct{})
	go func() { defer close(done); wait() }()
	return done
}

func TestWhoEndsASession(t *testing.T) {
	c := newCluster(t)
	client := NewClient(c.identity("a"))
	type session struct {
		holder *holder
		ours   *net.UnixConn
		cancel func()
	}
	for name, test := range map[string]struct {
		end  func(session)
		want string
	}{
		"the caller's context":  {func(s session) { s.cancel() }, ""},
		"the caller's socket":   {func(s session) { s.ours.Close() }, ""},
		"the holder's shutdown": {func(s session) { s.holder.stop() }, "device d: context canceled"},
		"a denied certificate": {func(s session) {
			deny(t, filepath.Join(c.dir, "b"), client.identity.now.certificate.Leaf.Raw)
			s.holder.server.Recheck()
		}, "device d of station b: it closed the stream before the result"},
	} {
		t.Run(name, func(t *testing.T) {
			over := make(chan error, 1)
			h := serve(t, c.identity("b"), backend{connect: func(ctx context.Context, sock station.Duplex) (nmsproto.ConnectResult, error) {
				stop := context.AfterFunc(ctx, func() { sock.Close() })
				defer stop()
				_, _ = sock.Write([]byte("x"))
				_, err := io.ReadAll(sock)
				over <- err
				if ctx.Err() != nil {
					return nmsproto.ConnectResult{}, proto.StageError(proto.StageSession, "device d: "+ctx.Err().Error(), proto.ErrorData{})
				}
				return nmsproto.ConnectResult{}, err
			}}, nil)
			defer os.Remove(filepath.Join(c.dir, "b", DeniedFile))
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			ours, result := connect(ctx, t, client, h.Peer)
			if _, err := io.ReadFull(ours, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			done := until(func() { test.end(session{h, ours, cancel}) })
			r := await(t, result)
			if got := fmt.Sprint(r.err); (test.want == "") != (r.err == nil) || !strings.Contains(got, test.want) {
				t.Errorf("got %q, wanted %q", got, test.want)
			}
			await(t, over)
			await(t, done)
		})
	}
}

func deny(t *testing.T, dir string, raw []byte) {
	t.Helper()
	sum := sha256.Sum256(raw)
	text := "# stolen\nsha256 Fingerprint=" + strings.ToUpper(hex.EncodeToString(sum[:])) + "\n"
	if err := os.WriteFile(filepath.Join(dir, DeniedFile), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// A reader that takes nothing delays no other session, and its sender waits. It may pause
// while the session is open, and its last bytes wait for it for some time.
func TestASlowReaderDelaysItselfAlone(t *testing.T) {
	c := newCluster(t)
	var sent atomic.Int64
	h := serve(t, c.identity("b"), backend{connect: func(ctx context.Context, sock station.Duplex) (nmsproto.ConnectResult, error) {
		kind := make([]byte, 1)
		if _, err := io.ReadFull(sock, kind); err != nil {
			return nmsproto.ConnectResult{}, err
		}
		const size = 4 << 20
		for kind[0] == 's' && sent.Load() < size {
			n, err := sock.Write(make([]byte, 64<<10))
			sent.Add(int64(n))
			if err != nil {
				return nmsproto.ConnectResult{}, err
			}
		}
		return nmsproto.ConnectResult{}, sock.CloseWrite()
	}}, nil)
	client := NewClient(c.identity("a"))
	slow, result := connect(t.Context(), t, client, h.Peer)
	if _, err := slow.Write([]byte("s")); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		quick, result := connect(t.Context(), t, client, h.Peer)
		if _, err := quick.Write([]byte("e")); err != nil {
			t.Fatal(err)
		}
		if r := await(t, result); r.err != nil {
			t.Error(r.err)
		}
	}
	if n := sent.Load(); n > 2<<20 {
		t.Errorf("%d bytes went to a caller that reads nothing", n)
	}
	if n, err := io.Copy(io.Discard, slow); n != 4<<20 || err != nil {
		t.Errorf("a caller that reads late got %d bytes, %v", n, err)
	}
	if r := await(t, result); r.err != nil {
		t.Error(r.err)
	}
}

// After a session's end a caller may read nothing for a limited time.
func TestACallerThatReadsNothingIsLeft(t *testing.T) {
	c := newCluster(t)
	h := serve(t, c.identity("b"), backend{connect: func(_ context.Context, sock station.Duplex) (nmsproto.ConnectResult, error) {
		_, _ = sock.Write(make([]byte, window))
		return nmsproto.ConnectResult{Received: window}, nil
	}}, nil)
	client := NewClient(c.identity("a"))
	client.stalled = 500 * time.Millisecond
	ours, theirs := socket(t)
	if err := theirs.SetWriteBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	out, err := client.Connect(t.Context(), h.Peer, "d", Caller{}, theirs)
	if err != nil || out.Received != window {
		t.Errorf("got %+v, %v", out, err)
	}
	if n, _ := io.Copy(io.Discard, ours); n == 0 || n == window {
		t.Errorf("%d bytes were left to read", n)
	}
}

// A station's answers that are no answers are errors, which name the station.
func TestAStationThatDoesNotKeepToTheProtocol(t *testing.T) {
	c := newCluster(t)
	i := c.identity("b")
	client := NewClient(c.identity("a"))
	for answer, want := range map[string]string{
		"":                               "it closed the stream before the result",
		"\x03\x00\x00\x01x":              "a frame of kind 3 in place of a",
		"\x06\x00\x00\x02xx":             "does not keep to the protocol",
		"\x06\x00\x00\x0c{\"result\":1}": "does not keep to the protocol",
		"\x09\x00\x00\x00":               "a frame of kind 9 with 0 bytes",
		"\x06\xff\xff\xff":               "a frame of kind 6 with 16777215 bytes",
		"\x06\x00\x00\x24" + `{"error":{"message":"no\u001b[m x"}}`: "no",
	} {
		l, err := tls.Listen("tcp", "127.0.0.1:0", i.server())
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				f := &frames{Conn: conn}
				if _, err := f.next(maxRequest); err == nil {
					_ = f.message(new(request))
				}
				_, _ = io.WriteString(conn, answer)
				conn.Close()
			}
		}()
		p := Peer{"b", l.Addr().String()}
		_, openErr := client.Open(t.Context(), p, "d", Caller{})
		_, _, settleErr := client.Settle(t.Context(), p, "d")
		for _, err := range []error{openErr, settleErr} {
			if err == nil || !strings.Contains(err.Error(), want) || !errors.As(err, new(*proto.Error)) {
				t.Errorf("%q: got %v", answer, err)
			}
		}
		l.Close()
	}
}

func TestWhoGetsIn(t *testing.T) {
	c, other := newCluster(t), newCluster(t)
	h := serve(t, c.identity("b"), backend{connect: echo}, func(name string) bool { return name != "unknown" })
	denied := c.identity("denied")
	deny(t, filepath.Join(c.dir, "b"), denied.now.certificate.Leaf.Raw)
	two := c.identity("two")
	for name, test := range map[string]struct {
		client *Client
		peer   Peer
		want   string
	}{
		"a member":                      {NewClient(c.identity("a")), h.Peer, ""},
		"another CA's":                  {NewClient(mixed(other.identity("mixed"), c.identity("mixed"))), h.Peer, "it refuses the certificate of this station"},
		"a CA that is not the server's": {NewClient(other.identity("a")), h.Peer, "certificate signed by unknown authority"},
		"a denied certificate":          {NewClient(denied), h.Peer, "it refuses the certificate of this station"},
		"an unknown station":            {NewClient(c.identity("unknown")), h.Peer, `station b knows no station "unknown"`},
		"another's name":                {NewClient(&Identity{station: "a", dir: two.dir, seen: two.seen, now: two.now}), h.Peer, `station b got a request of station "a" with the certificate of another`},
		"a station that is another":     {NewClient(c.identity("a")), Peer{"c", h.Address}, "it cannot be reached"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := test.client.Open(t.Context(), test.peer, "d", Caller{})
			if err == nil {
				s.frames.Close()
			}
			if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, wanted %q", err, test.want)
			}
			if err != nil && !errors.As(err, new(*proto.Error)) {
				t.Errorf("not an error of the API: %T", err)
			}
		})
	}
}

// mixed has the certificate of one identity and the CA of another.
func mixed(certificate, ca *Identity) *Identity {
	m := *ca.now
	m.certificate = certificate.now.certificate
	return &Identity{station: ca.station, dir: ca.dir, seen: ca.seen, now: &m}
}

// A station's certificate with other names, a wildcard's say, is not another station's.
func TestAStationShowsItsName(t *testing.T) {
	c := newCluster(t)
	dir := c.issue("b")
	i := load(t, "b", dir)
	h := serve(t, i, backend{connect: echo}, nil)
	i.station = "c" // answers for a name that its certificate has not
	_, err := NewClient(c.identity("a")).Open(t.Context(), Peer{"c", h.Address}, "d", Caller{})
	if err == nil || !strings.Contains(err.Error(), "certificate is valid for b, not c") {
		t.Errorf("got %v", err)
	}
	if _, err := Load("c", dir, nil); err == nil || !strings.Contains(err.Error(), "is of b, and this is station c") {
		t.Errorf("got %v", err)
	}
}

// A peer without knowledge of the cluster learns no name, and its connection ends soon.
func TestAnOutsiderLearnsNothing(t *testing.T) {
	c := newCluster(t)
	h := serve(t, c.identity("b"), backend{connect: echo}, nil)
	for _, name := range []string{"", "a", "b.example"} {
		var got int
		conn, err := tls.Dial("tcp", h.Address, &tls.Config{ServerName: name, InsecureSkipVerify: true, VerifyConnection: func(s tls.ConnectionState) error {
			got = len(s.PeerCertificates)
			return nil
		}})
		if err == nil {
			conn.Close()
		}
		if err == nil || got > 0 {
			t.Errorf("a client that asks for %q got %d certificates, %v", name, got, err)
		}
	}
	conn, err := tls.Dial("tcp", h.Address, &tls.Config{ServerName: "b", InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12})
	if err == nil {
		conn.Close()
		t.Error("TLS 1.2 is accepted")
	}
}

// A crowd that sends nothing keeps no station out: the oldest connections give way.
func TestACrowdKeepsNoStationOut(t *testing.T) {
	c := newCluster(t)
	h := serve(t, c.identity("b"), backend{kept: true}, nil)
	client := NewClient(c.identity("a"))
	crowd := make([]net.Conn, 4*maxGreeting)
	for i := range crowd {
		var err error
		if crowd[i], err = net.Dial("tcp", h.Address); err != nil {
			t.Fatal(err)
		}
		defer crowd[i].Close()
	}
	if _, err := crowd[0].Read(make([]byte, 1)); err == nil {
		t.Error("the first of the crowd got an answer")
	}
	if kept, _, err := client.Settle(t.Context(), h.Peer, "d"); err != nil || !kept {
		t.Errorf("got %v, %v", kept, err)
	}
	h.stop() // ends the rest at once
}

func TestFilesAreReadAgain(t *testing.T) {
	c := newCluster(t)
	dir := c.issue("a")
	var failures []error
	i, err := Load("a", dir, func(err error) { failures = append(failures, err) })
	if err != nil {
		t.Fatal(err)
	}
	first := i.current().certificate.Leaf.SerialNumber
	keyFile := filepath.Join(dir, KeyFile)
	key, err := os.ReadFile(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	// A certificate whose key has not come yet.
	c.issue("a")
	renewed, err := os.ReadFile(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, keyFile, key)
	if got := i.current().certificate.Leaf.SerialNumber; got.Cmp(first) != 0 || len(failures) != 1 {
		t.Errorf("a half of a pair is in force, or not reported: %v", failures)
	}
	writeFile(t, keyFile, renewed)
	if got := i.current().certificate.Leaf.SerialNumber; got.Cmp(first) == 0 || len(failures) != 1 {
		t.Errorf("the renewed certificate is not in force: %v", failures)
	}
	if until := time.Until(i.Expires()); until <= 0 || until > time.Hour {
		t.Errorf("it expires in %v", until)
	}
	writeFile(t, filepath.Join(dir, DeniedFile), []byte("AB:CD\n"))
	if i.current(); len(failures) != 2 || !strings.Contains(failures[1].Error(), `"AB:CD" is not a SHA-256 fingerprint`) {
		t.Errorf("got %v", failures)
	}
}

// TestAStationWithAnExpiredCertificateStarts: it serves its own devices, and its requests
// are refused.
func TestAStationWithAnExpiredCertificateStarts(t *testing.T) {
	c := newCluster(t)
	h := serve(t, c.identity("b"), backend{connect: echo}, nil)
	dir := c.issue("a")
	if _, err := c.ca.Issue(dir, "a", nil, -time.Minute); err != nil {
		t.Fatal(err)
	}
	i := load(t, "a", dir)
	if time.Until(i.Expires()) > 0 {
		t.Error("it has not expired")
	}
	if _, _, err := NewClient(i).Settle(t.Context(), h.Peer, "d"); err == nil || !strings.Contains(err.Error(), "expired") {
		t.Errorf("its request: %v", err)
	}
}

// Connect opens a session and relays it, as package cluster does.
func (c *Client) Connect(ctx context.Context, p Peer, device string, who Caller, sock station.Duplex) (nmsproto.ConnectResult, error) {
	s, err := c.Open(ctx, p, device, who)
	if err != nil {
		sock.Close()
		return nmsproto.ConnectResult{}, err
	}
	return s.Relay(ctx, sock)
}

// writeFile writes a file whose time of change differs from the former one's.
func writeFile(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	later := time.Now().Add(time.Duration(1+rand.IntN(1e6)) * time.Second)
	if err := os.Chtimes(path, later, later); err != nil {
		t.Fatal(err)
	}
}

func TestAnAuthorityStays(t *testing.T) {
	c := newCluster(t)
	again, err := OpenAuthority(c.dir)
	if err != nil {
		t.Fatal(err)
	}
	if !c.ca.New() || again.New() || !again.Expires().Equal(c.ca.Expires()) {
		t.Error("it is created again")
	}
	dir := filepath.Join(c.dir, "a")
	expires, err := again.Issue(dir, "a", []string{"a.example.net", "192.0.2.1"}, 100*365*24*time.Hour)
	if err != nil || expires.After(again.Expires()) {
		t.Errorf("a certificate outlives its CA: %v, %v", expires, err)
	}
	leaf := load(t, "a", dir).now.certificate.Leaf
	if err := errors.Join(leaf.VerifyHostname("a.example.net"), leaf.VerifyHostname("192.0.2.1")); err != nil {
		t.Error(err)
	}
	if hosts, got, ok := Issued(dir); !ok || !got.Equal(leaf.NotAfter) || !slices.Equal(hosts, []string{"a.example.net", "192.0.2.1"}) {
		t.Errorf("it expires %v, %v", got, ok)
	}
	for path, want := range map[string]os.FileMode{filepath.Join(c.dir, CAKeyFile): 0o600, filepath.Join(dir, KeyFile): 0o600, dir: 0o700 | os.ModeDir} {
		if info, err := os.Stat(path); err != nil || info.Mode() != want {
			t.Errorf("%s has mode %v, %v", path, info.Mode(), err)
		}
	}
	for _, name := range []string{"", "A", "a.b", "*", "-a", "a_b", strings.Repeat("a", 64)} {
		if _, err := again.Issue(dir, name, nil, time.Hour); err == nil {
			t.Errorf("%q is a station", name)
		}
	}
	for _, host := range []string{"b", "*.example", "", "B.example", "a..b"} {
		if CheckNames("a", []string{host}) == nil {
			t.Errorf("%q is a host", host)
		}
	}
	if err := os.Remove(filepath.Join(c.dir, CAKeyFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenAuthority(c.dir); err == nil || !strings.Contains(err.Error(), "cannot sign without its key") {
		t.Errorf("without its key: %v", err)
	}
}

// memory is a connection whose peer's bytes are there already.
type memory struct {
	net.Conn
	in io.Reader
}

func (m memory) Read(p []byte) (int, error)  { return m.in.Read(p) }
func (m memory) Write(p []byte) (int, error) { return len(p), nil }

// FuzzFrames reads any bytes as the frames of a session, and as a request or a result.
func FuzzFrames(f *testing.F) {
	f.Add([]byte("\x01\x00\x00\x02{}"))
	f.Add([]byte("\x03\x00\x00\x01x\x05\x00\x00\x00\x06\x00\x00\x0d{\"result\":{}}"))
	f.Add([]byte("\x02\x00\x00\x00\x03\xff\xff\xff"))
	f.Add([]byte("\x04\x00\x00\x04\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, in []byte) {
		s := newStream(&frames{Conn: memory{in: bytes.NewReader(in)}})
		if s.receive() == nil {
			_ = s.result(new(nmsproto.ConnectResult))
		}
		if n := s.inbox.Len(); n > len(in) || n > window || s.credit > window {
			t.Errorf("%d bytes of %d, credit %d", n, len(in), s.credit)
		}
		m := &frames{Conn: memory{in: bytes.NewReader(in)}}
		if k, err := m.next(maxRequest); err == nil && k == frameRequest {
			_ = m.message(new(request))
		}
	})
}

// BenchmarkOpen is a session from dial to its result, both ends.
func BenchmarkOpen(b *testing.B) {
	c := newCluster(b)
	h := serve(b, c.identity("b"), backend{kept: true}, nil)
	client := NewClient(c.identity("a"))
	for b.Loop() {
		if _, _, err := client.Settle(b.Context(), h.Peer, "d"); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkBytes is what a session's bytes cost, both directions and both ends.
func BenchmarkBytes(b *testing.B) {
	c := newCluster(b)
	h := serve(b, c.identity("b"), backend{connect: echo}, nil)
	ours, _ := connect(b.Context(), b, NewClient(c.identity("a")), h.Peer)
	text := make([]byte, 16<<10)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if _, err := ours.Write(text); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(ours, text); err != nil {
			b.Fatal(err)
		}
	}
}
