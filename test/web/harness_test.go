//go:build integration

package web

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"callhome/internal/nms/control"
	"callhome/internal/nms/nmsproto"
	"callhome/internal/nms/sshtest"
	"callhome/internal/porttest"
	"callhome/test/sandbox"
	"callhome/test/skips"

	"github.com/chromedp/chromedp"
	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

const patience = 30 * time.Second

// program is callhome-nms, built once.
var program string

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(func() int {
		if !sandbox.Listing() {
			dir, err := os.MkdirTemp("", "callhome-web-")
			if err != nil {
				fmt.Println(err)
				return 1
			}
			defer os.RemoveAll(dir)
			if err := os.Chmod(dir, 0o755); err != nil { // another user runs it, too
				fmt.Println(err)
				return 1
			}
			if program, err = build(dir); err != nil {
				fmt.Println(err)
				return 1
			}
		}
		code := m.Run()
		skips.Print(os.Stdout)
		return code
	}())
}

func build(dir string) (string, error) {
	if given := os.Getenv("CALLHOME_BIN_DIR"); given != "" {
		return filepath.Join(given, "callhome-nms"), nil
	}
	path := filepath.Join(dir, "callhome-nms")
	cmd := exec.Command("go", "build", "-trimpath", "-o", path, "callhome/cmd/callhome-nms")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return path, cmd.Run()
}

// station is callhome-nms serve.
type station struct {
	t        *testing.T
	addr     string
	socket   string
	registry string
	user     ssh.PublicKey       // whose key it logs in with
	web      int                 // the PID of its page
	as       *syscall.Credential // of the page; nil: the test's
	args     []string
	pid      int
}

// newStation starts a daemon whose registry is filled before.
func newStation(t *testing.T, fill func(registry string), args ...string) *station {
	t.Helper()
	dir := t.TempDir()
	s := &station{t: t, socket: filepath.Join(dir, "s"), registry: filepath.Join(dir, "devices"), addr: porttest.Reserve(t, "127.0.0.1").String()}
	if err := os.Mkdir(s.registry, 0o755); err != nil {
		t.Fatal(err)
	}
	if fill != nil {
		fill(s.registry)
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(dir, "key")
	if err := os.WriteFile(key, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	if s.user, err = ssh.NewPublicKey(public); err != nil {
		t.Fatal(err)
	}
	s.args = append([]string{"serve", "--listen", s.addr, "--registry", s.registry, "--socket", s.socket, "--device-sockets", "", "--group", "", "--user", "netconf", "--key-file", key}, args...)
	s.begin()
	return s
}

// begin starts the daemon.
func (s *station) begin() {
	s.t.Helper()
	s.pid, _ = start(s.t, s.args...)
	sandbox.Await(s.t, patience, "the daemon", func() error { return s.call(nmsproto.MethodStatus, nil, nil) })
}

// end ends the daemon, for another begin.
func (s *station) end() {
	s.t.Helper()
	if err := unix.Kill(s.pid, unix.SIGTERM); err != nil {
		s.t.Fatal(err)
	}
	sandbox.Await(s.t, patience, "the daemon's end", func() error {
		conn, err := net.Dial("tcp", s.addr)
		if err != nil {
			return nil
		}
		conn.Close()
		return errors.New("it listens")
	})
}

// start starts callhome-nms, and ends it with the test. It returns its PID and output.
func start(t *testing.T, args ...string) (pid int, out io.Reader) {
	t.Helper()
	return startAs(t, nil, args...)
}

// startAs is start as another user.
func startAs(t *testing.T, user *syscall.Credential, args ...string) (pid int, out io.Reader) {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: user}
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = log
	out, err = cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(unix.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("callhome-nms %s: %v", args[0], err)
		}
		if text, _ := os.ReadFile(log.Name()); t.Failed() {
			t.Logf("the log of callhome-nms %s:\n%s", args[0], text)
		}
	})
	return cmd.Process.Pid, out
}

func (s *station) call(method string, params, result any) error {
	c, err := control.Dial(s.socket)
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Call(s.t.Context(), method, params, result)
}

func (s *station) list() (l nmsproto.DeviceList) {
	s.t.Helper()
	if err := s.call(nmsproto.MethodDevices, nil, &l); err != nil {
		s.t.Fatal(err)
	}
	return l
}

func (s *station) awaitUnknown(n int) {
	s.t.Helper()
	sandbox.Await(s.t, patience, "unknown devices", func() error {
		if got := len(s.list().Unknown); got != n {
			return fmt.Errorf("there are %d", got)
		}
		return nil
	})
}

// entry writes a device's entry.
func entry(t *testing.T, registry, id string, key ssh.PublicKey, more string) {
	t.Helper()
	text := fmt.Sprintf("{\"id\": %q, \"host-keys\": [%q]%s}\n", id, sshtest.Line(key), more)
	if err := os.WriteFile(filepath.Join(registry, id+".json"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// device is a stand-in for a device.
type device struct {
	t       *testing.T
	key     ssh.Signer
	version string
	mu      sync.Mutex
	conn    net.Conn
}

func newDevice(t *testing.T) *device {
	t.Helper()
	return &device{t: t, key: sshtest.NewSigner(t), version: "SSH-2.0-OpenSSH_9.2"}
}

func (d *device) fingerprint() string { return ssh.FingerprintSHA256(d.key.PublicKey()) }

// calls makes the device call home, and go on with its connection until hangUp.
func (d *device) calls(s *station) {
	d.t.Helper()
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		d.t.Fatal(err)
	}
	d.mu.Lock()
	d.conn = conn
	d.mu.Unlock()
	config := sshtest.LetIn(d.key, s.user)
	config.ServerVersion = d.version
	server := &sshtest.Server{Config: config, Netconf: netconf}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		server.Serve(conn)
	}()
	d.t.Cleanup(func() {
		d.hangUp()
		<-ended
	})
}

func (d *device) hangUp() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conn != nil {
		d.conn.Close()
	}
}

// netconf is a NETCONF server with one configuration.
func netconf(c ssh.Channel) uint32 {
	answer(c)
	return 0
}

// answer is that server on any stream.
func answer(c io.ReadWriter) {
	const end = "]]>]]>"
	_, _ = io.WriteString(c, `<?xml version="1.0"?><hello xmlns="urn:ietf:params:xml:ns:netconf:base:1.0"><capabilities>`+
		`<capability>urn:ietf:params:netconf:base:1.0</capability><capability>urn:ietf:params:netconf:capability:candidate:1.0</capability>`+
		`<capability>urn:ietf:params:xml:ns:yang:ietf-interfaces?module=ietf-interfaces&amp;revision=2018-02-20</capability></capabilities><session-id>1</session-id></hello>`+end)
	in := bufio.NewReader(c)
	for id := 1; ; id++ {
		var request strings.Builder
		for !strings.HasSuffix(request.String(), end) {
			b, err := in.ReadByte()
			if err != nil {
				return
			}
			request.WriteByte(b)
		}
		if strings.Contains(request.String(), "<hello") {
			id--
			continue
		}
		body := "<ok/>"
		if strings.Contains(request.String(), "<get-config>") {
			body = `<data><interfaces xmlns="urn:ietf:params:xml:ns:yang:ietf-interfaces"><interface><name>eth0</name><description>uplink &lt;core&gt;</description><enabled>true</enabled></interface>` +
				`<interface><name>eth1</name><enabled>false</enabled></interface></interfaces></data>`
		}
		_, _ = fmt.Fprintf(c, `<rpc-reply xmlns="urn:ietf:params:xml:ns:netconf:base:1.0" message-id="%d">%s</rpc-reply>%s`, id, body, end)
		if strings.Contains(request.String(), "<close-session") {
			return
		}
	}
}

// page is callhome-nms web, and a link to it.
func (s *station) page(args ...string) (link string) {
	s.t.Helper()
	pid, printed := startAs(s.t, s.as, append([]string{"web", "--socket", s.socket}, args...)...)
	s.web = pid
	out := bufio.NewScanner(printed)
	if !out.Scan() {
		s.t.Fatal("callhome-nms web printed no link")
	}
	return out.Text()
}

// proxied is callhome-nms web behind a reverse proxy that names a user; it returns the
// proxy's address.
func (s *station) proxied(user string, args ...string) string {
	s.t.Helper()
	path := filepath.Join(s.t.TempDir(), "web")
	start(s.t, append([]string{"web", "--socket", s.socket, "--listen", "unix:" + path, "--trust-user-header", "X-Remote-User"}, args...)...)
	sandbox.Await(s.t, patience, "the socket", func() error {
		_, err := os.Stat(path)
		return err
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: l.Addr().String()})
			r.Out.Host = r.In.Host
			r.Out.Header.Set("X-Remote-User", user)
		},
		FlushInterval: -1,
		Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		}},
	}
	server := &http.Server{Handler: proxy, ReadHeaderTimeout: patience}
	go func() { _ = server.Serve(l) }()
	s.t.Cleanup(func() { server.Close() })
	return "http://" + l.Addr().String()
}

// browser is one window.
type browser struct {
	t   *testing.T
	ctx context.Context
}

func newBrowser(t *testing.T, options ...chromedp.ExecAllocatorOption) *browser {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		skips.Story(t, "no chromium on this machine: install the package chromium")
	}
	all := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.WindowSize(1280, 900), chromedp.Flag("hide-scrollbars", true))
	allocator, stop := chromedp.NewExecAllocator(t.Context(), append(all, options...)...)
	ctx, cancel := chromedp.NewContext(allocator)
	t.Cleanup(func() {
		cancel()
		stop()
	})
	b := &browser{t, ctx}
	if err := chromedp.Do(ctx, chromedp.Navigate("about:blank")); err != nil {
		t.Fatal(err)
	}
	return b
}

// step is an action.
type step = chromedp.Action[chromedp.Void]

// do runs actions, each within patience.
func (b *browser) do(all ...step) {
	b.t.Helper()
	for _, a := range all {
		run(b, a)
	}
}

// run runs an action within patience, and returns its result.
func run[T any](b *browser, a chromedp.Action[T]) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	out, err := chromedp.Run(ctx, a)
	if err != nil {
		text, _ := chromedp.Run(b.ctx, chromedp.Evaluate[string](visible))
		b.t.Fatalf("%v; the page:\n%s", err, text)
	}
	return out
}

// visible is the visible text of the page.
const visible = `document.body ? document.body.innerText : ""`

func (b *browser) open(address string) {
	b.t.Helper()
	b.do(chromedp.Navigate(address))
}

func (b *browser) text() string {
	b.t.Helper()
	return evaluate[string](b, visible)
}

func evaluate[T any](b *browser, script string) T {
	b.t.Helper()
	return run(b, chromedp.Evaluate[T](script, chromedp.EvalAwaitPromise))
}

func click(css string) step { return chromedp.Click(chromedp.CSS(css)) }

// enter replaces the content of an input.
func enter(css, text string) step {
	return chromedp.Steps(chromedp.WaitVisible(chromedp.CSS(css)), chromedp.Evaluate[chromedp.Void](fmt.Sprintf(`document.querySelector(%q).value = ""`, css)), chromedp.SendKeys(chromedp.CSS(css), text))
}

// await waits until the page shows a text, or not any more.
func (b *browser) await(part string, shown bool) {
	b.t.Helper()
	sandbox.Await(b.t, patience, fmt.Sprintf("the page with %q: %v", part, shown), func() error {
		text, err := chromedp.Run(b.ctx, chromedp.Evaluate[string](visible))
		if err != nil {
			return err
		}
		if strings.Contains(text, part) != shown {
			return fmt.Errorf("it shows:\n%s", text)
		}
		return nil
	})
}
