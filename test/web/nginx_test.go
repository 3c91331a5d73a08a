//go:build integration

package web

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"callhome/internal/porttest"
	"callhome/test/docs/markdown"
	"callhome/test/sandbox"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
	"golang.org/x/sys/unix"
)

// proxyName is the name of the page in docs/web.md.
const proxyName = "nms.example.net"

// documented is the block of docs/web.md of that kind which has a text.
func documented(t *testing.T, info, part string) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/web.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range markdown.Blocks("docs/web.md", string(text)) {
		if b.Info == info && strings.Contains(b.Text, part) {
			return b.Text
		}
	}
	t.Fatalf("docs/web.md has no block of %s with %q", info, part)
	return ""
}

// replace replaces a text that must be there.
func replace(t *testing.T, text, from, to string) string {
	t.Helper()
	if !strings.Contains(text, from) {
		t.Fatalf("there is no %q in\n%s", from, text)
	}
	return strings.ReplaceAll(text, from, to)
}

// shared lets other users search the directories above a file of a test.
func shared(t *testing.T, path string) {
	t.Helper()
	for dir := filepath.Dir(path); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// proxiedArgs are the arguments of the unit of docs/web.md, with another socket.
func proxiedArgs(t *testing.T, socket string) []string {
	t.Helper()
	unit := strings.ReplaceAll(documented(t, "ini", "ExecStart="), "\\\n", " ")
	_, line, _ := strings.Cut(unit, "ExecStart=/usr/bin/callhome-nms ")
	line, _, _ = strings.Cut(line, "\n")
	return strings.Fields(replace(t, line, "/run/callhome-web/web.sock", socket))
}

// nginx is a running nginx with the location of docs/web.md, over TLS.
type nginx struct {
	t    *testing.T
	addr string
}

// startNginx starts it in front of a socket; user is that of its workers.
func startNginx(t *testing.T, location, user string) *nginx {
	t.Helper()
	sandbox.Need(t, "nginx", "openssl")
	dir := t.TempDir()
	n := &nginx{t, porttest.Reserve(t, "127.0.0.1").String()}
	users := ""
	for _, name := range []string{"ann", "bob"} {
		out, err := exec.Command("openssl", "passwd", "-6", name+"-secret").Output()
		if err != nil {
			t.Fatal(err)
		}
		users += name + ":" + string(out)
	}
	writeCertificate(t, filepath.Join(dir, "tls.pem"))
	workers := ""
	if os.Getuid() == 0 {
		workers = "user " + user + ";\n"
	}
	config := filepath.Join(dir, "nginx.conf")
	for name, text := range map[string]string{
		filepath.Join(dir, "users"): users,
		// gzip is on in Debian's nginx.conf.
		config: fmt.Sprintf(`daemon off;
pid %[1]s/pid;
error_log %[1]s/error.log info;
%[2]sevents {}
http {
	access_log off;
	gzip on;
	client_body_temp_path %[1]s/body;
	proxy_temp_path %[1]s/proxy;
	fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi;
	scgi_temp_path %[1]s/scgi;
	server {
		listen %[3]s ssl;
		server_name %[4]s;
		ssl_certificate %[1]s/tls.pem;
		ssl_certificate_key %[1]s/tls.pem;
		%[5]s
	}
}
`, dir, workers, n.addr, proxyName, strings.ReplaceAll(location, "/etc/nginx/callhome.users", filepath.Join(dir, "users"))),
	} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	shared(t, config)
	cmd := exec.Command("nginx", "-e", filepath.Join(dir, "error.log"), "-c", config)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(unix.SIGTERM)
		_ = cmd.Wait() // it exits with 0 or by the signal
		if log, _ := os.ReadFile(filepath.Join(dir, "error.log")); t.Failed() {
			t.Logf("the log of nginx:\n%s", log)
		}
	})
	sandbox.Await(t, patience, "nginx", func() error {
		c, err := net.Dial("tcp", n.addr)
		if err == nil {
			c.Close()
		}
		return err
	})
	return n
}

// writeCertificate writes a certificate of proxyName with its key.
func writeCertificate(t *testing.T, path string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: proxyName}, DNSNames: []string{proxyName}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	text := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})...)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// ask sends a request as a user, "" for none.
func (n *nginx) ask(user, method, path string, form url.Values, change func(*http.Request)) *http.Response {
	n.t.Helper()
	r, err := http.NewRequestWithContext(n.t.Context(), method, "https://"+proxyName+path, strings.NewReader(form.Encode()))
	if err != nil {
		n.t.Fatal(err)
	}
	if user != "" {
		r.SetBasicAuth(user, user+"-secret")
	}
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if change != nil {
		change(r)
	}
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", n.addr)
		},
	}
	n.t.Cleanup(transport.CloseIdleConnections)
	out, err := transport.RoundTrip(r)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { out.Body.Close() })
	return out
}

// answer is ask for a page.
func (n *nginx) answer(user, method, path string, form url.Values, change func(*http.Request)) (status int, body string) {
	n.t.Helper()
	out := n.ask(user, method, path, form, change)
	text, err := io.ReadAll(out.Body)
	if err != nil {
		n.t.Fatal(err)
	}
	return out.StatusCode, string(text)
}

// browser is a browser that finds nginx by the name of the document.
func (n *nginx) browser() *browser {
	n.t.Helper()
	return newBrowser(n.t, chromedp.Flag("host-resolver-rules", "MAP "+proxyName+":443 "+n.addr), chromedp.Flag("ignore-certificate-errors", true))
}

// awaitSocket waits until callhome-nms web listens.
func awaitSocket(t *testing.T, path string) {
	t.Helper()
	sandbox.Await(t, patience, "the socket", func() error {
		_, err := os.Stat(path)
		return err
	})
}

var formToken = regexp.MustCompile(`name="token" value="([^"]+)"`)

// The unit and the location of docs/web.md, with the real nginx.
func TestNginxNamesTheUsers(t *testing.T) {
	edge7 := newDevice(t)
	s := newStation(t, func(registry string) { entry(t, registry, "edge7", edge7.key.PublicKey(), "") })
	edge7.calls(s)
	unknown := newDevice(t)
	unknown.calls(s)
	s.awaitUnknown(1)
	socket := filepath.Join(t.TempDir(), "web.sock")
	start(t, append(proxiedArgs(t, socket), "--socket", s.socket)...)
	awaitSocket(t, socket)
	shared(t, socket)
	location := replace(t, documented(t, "nginx", "location"), "/run/callhome-web/web.sock", socket)
	n := startNginx(t, location, "www-data")

	if status, _ := n.answer("", http.MethodGet, "/", nil, nil); status != http.StatusUnauthorized {
		t.Errorf("without a user: %d", status)
	}
	// A header of the browser is replaced, in whatever form it comes.
	for _, name := range []string{"X-Remote-User", "x-remote-user", "X_Remote_User"} {
		forged := func(r *http.Request) { r.Header[name] = []string{"ann", "ann"} }
		if status, _ := n.answer("", http.MethodGet, "/", nil, forged); status != http.StatusUnauthorized {
			t.Errorf("without a user, with %s: %d", name, status)
		}
		if status, body := n.answer("bob", http.MethodGet, "/unknown", nil, forged); status != http.StatusOK || !strings.Contains(body, "may only read") || strings.Contains(body, "ann") {
			t.Errorf("bob with %s: %d\n%s", name, status, body)
		}
	}
	if status, _ := n.answer("ann", http.MethodGet, "/", nil, func(r *http.Request) { r.Host = "evil.example" }); status != http.StatusMisdirectedRequest {
		t.Errorf("by another name: %d", status)
	}
	if status, body := n.answer("bob", http.MethodPost, "/unknown/forget", url.Values{"key": {unknown.fingerprint()}}, nil); status != http.StatusForbidden {
		t.Errorf("bob acts: %d\n%s", status, body)
	}

	// Events come at once, not when nginx has a buffer full of them.
	limited, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	live := n.ask("bob", http.MethodGet, "/live", nil, func(r *http.Request) { *r = *r.WithContext(limited) })
	lines := bufio.NewScanner(live.Body)
	next := func() string {
		t.Helper()
		for lines.Scan() {
			if number, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				return number
			}
		}
		t.Fatalf("the stream has ended: %v", lines.Err())
		return ""
	}
	before := next()
	edge7.hangUp()
	if after := next(); after == before {
		t.Errorf("after %s comes %s", before, after)
	}

	// An operator's form, from the page and from elsewhere.
	_, body := n.answer("ann", http.MethodGet, "/unknown", nil, nil)
	token := formToken.FindStringSubmatch(body)
	if token == nil {
		t.Fatalf("ann has no form:\n%s", body)
	}
	form := url.Values{"key": {unknown.fingerprint()}, "token": token[1:]}
	for name, change := range map[string]func(*http.Request){
		"another origin": func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") },
		"http":           func(r *http.Request) { r.Header.Set("Origin", "http://"+proxyName+":8080") },
		"another site":   func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") },
	} {
		if status, _ := n.answer("ann", http.MethodPost, "/unknown/forget", form, change); status != http.StatusForbidden || len(s.list().Unknown) != 1 {
			t.Errorf("%s: %d", name, status)
		}
	}
	out := n.ask("ann", http.MethodPost, "/unknown/forget", form, func(r *http.Request) { r.Header.Set("Origin", "https://"+proxyName) })
	if to := out.Header.Get("Location"); out.StatusCode != http.StatusSeeOther || to != "/unknown?done=forgot" && to != "https://"+proxyName+"/unknown?done=forgot" || len(s.list().Unknown) > 0 {
		t.Errorf("the page's form: %d to %q", out.StatusCode, to)
	}

	// A proxy of another user than the unit's is not served.
	if os.Getuid() == 0 {
		if status, _ := startNginx(t, location, "nobody nogroup").answer("ann", http.MethodGet, "/", nil, nil); status != http.StatusBadGateway {
			t.Errorf("the proxy of another user: %d", status)
		}
	}

	// A browser follows the station.
	b := n.browser()
	complaints := b.complaints()
	b.open("https://ann:ann-secret@" + proxyName + "/")
	b.await("1\n▲ lost", true)
	evaluate[bool](b, `window.sameDocument = true`)
	edge7.calls(s)
	b.await("1\n● connected", true)
	b.await("Live: follows the station.", true)
	if !evaluate[bool](b, `window.sameDocument === true`) {
		t.Error("the page was loaded again")
	}
	b.open("https://" + proxyName + "/devices/edge7")
	b.do(click(`button[value="config"]`))
	b.await("<description>uplink &lt;core&gt;</description>", true)
	if all := complaints(); len(all) > 0 {
		t.Errorf("the browser complains: %q", all)
	}
}

// Without --trust-user-header users log in with the link, whose cookie is for https only.
func TestNginxForwardsToThePageWithALink(t *testing.T) {
	s := newStation(t, nil)
	unknown := newDevice(t)
	unknown.calls(s)
	s.awaitUnknown(1)
	socket := filepath.Join(t.TempDir(), "web.sock")
	link := s.page("--listen", "unix:"+socket, "--proxy-user", "www-data", "--url", "https://"+proxyName+"/")
	shared(t, socket)
	location := replace(t, documented(t, "nginx", "location"), "/run/callhome-web/web.sock", socket)
	without := regexp.MustCompile(`(?m)^ *(auth_basic|proxy_set_header X-Remote-User).*\n`)
	n := startNginx(t, without.ReplaceAllString(location, ""), "www-data")
	if !strings.HasPrefix(link, "https://"+proxyName+"/login?") {
		t.Fatalf("the link is %s", link)
	}
	b := n.browser()
	b.open(link)
	b.await("Last events", true)
	kept, err := chromedp.Call(b.ctx, network.GetCookies, network.GetCookiesParams{})
	if err != nil {
		t.Fatal(err)
	}
	if len(kept.Cookies) != 1 || !kept.Cookies[0].Secure || !kept.Cookies[0].HTTPOnly || !strings.HasPrefix(kept.Cookies[0].Name, "__Host-") {
		t.Errorf("the browser keeps %+v", kept.Cookies)
	}
	b.do(click(`a[href="/unknown"]`))
	details := fmt.Sprintf(`document.getElementById("forget-%s")`, unknown.fingerprint())
	b.await(unknown.fingerprint(), true)
	b.await("Live: follows the station.", true)
	evaluate[chromedp.Void](b, details+`.querySelector("summary").click()`)
	evaluate[chromedp.Void](b, details+`.querySelector("button").click()`)
	b.await(unknown.fingerprint(), false)
	sandbox.Await(t, patience, "the page", func() error {
		if all := s.list().Unknown; len(all) > 0 {
			return errors.New("the device is not forgotten")
		}
		return nil
	})
	out := n.ask("", http.MethodGet, strings.TrimPrefix(link, "https://"+proxyName), nil, nil)
	if out.StatusCode != http.StatusForbidden {
		t.Errorf("the link again: %d", out.StatusCode)
	}
}
