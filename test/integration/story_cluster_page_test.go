//go:build integration

package integration

import (
	"bufio"
	"context"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"callhome/test/sandbox"

	"golang.org/x/crypto/ssh"
)

// page is callhome-nms web of a station, in a browser without a window.
type page struct {
	t     *testing.T
	root  string
	token string // of the last page with a form
	http.Client
}

func (m *member) OpenPage() *page {
	t := m.of.t
	t.Helper()
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binDir+"/callhome-nms", "web", "--socket", m.socket)
	cmd.Stdout = in
	start(t, "callhome-nms web", cmd)
	in.Close()
	defer out.Close()
	link, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("callhome-nms web printed no link: %v", err)
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	p := &page{t: t, Client: http.Client{Jar: jar}}
	p.root, _, _ = strings.Cut(link, "/login")
	p.get(strings.TrimPrefix(strings.TrimSpace(link), p.root))
	return p
}

// text is the page at a path without its markup.
func (p *page) text(out *http.Response, err error) string {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
	defer out.Body.Close()
	body, err := io.ReadAll(out.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	if token := pageToken.FindSubmatch(body); token != nil {
		p.token = string(token[1])
	}
	return strings.Join(strings.Fields(html.UnescapeString(markup.ReplaceAllString(string(body), " "))), " ")
}

var (
	pageToken = regexp.MustCompile(`name="token" value="([^"]+)"`)
	markup    = regexp.MustCompile(`<[^>]*>`)
)

func (p *page) get(path string) string { p.t.Helper(); return p.text(p.Get(p.root + path)) }

// post sends a form.
func (p *page) post(path string, form url.Values) string {
	p.t.Helper()
	form.Set("token", p.token)
	return p.text(p.PostForm(p.root+path, form))
}

// await waits until the page at a path has a text.
func (p *page) await(path, part string) (text string) {
	p.t.Helper()
	sandbox.Await(p.t, 3*patience, fmt.Sprintf("%q on %s", part, path), func() error {
		if text = p.get(path); !strings.Contains(text, part) {
			return fmt.Errorf("it is: %s", text)
		}
		return nil
	})
	return text
}

// The page of one station shows and reads devices at the other one, adopts and refuses
// unknown devices that called it, and follows its changes.
func TestAClusterHasOnePage(t *testing.T) {
	t.Parallel()
	c := newStations(t, "north", "south")
	devices := newStandIns(t, 2, c.nms)
	for _, d := range devices.servers {
		d.Netconf = netconfStandIn()
	}
	c.StartAll(devices)
	south := c.of("south")
	calls, hangUp := context.WithCancel(t.Context())
	defer hangUp()
	devices.keepCalling(calls, south.addr)
	c.AwaitHeld(3*patience, 2)

	p := c.of("north").OpenPage()
	p.await("/", "south ● alive 2 ")
	p.await("/devices?station=south", "1–2 of 2 devices that match")
	contains(t, "a device at south", p.await("/devices/d0", "Go SHA256:"), "connected since", "Station south", "History Time Event")
	contains(t, "its configuration", p.post("/devices/d0/netconf", url.Values{"ask": {"config"}, "datastore": {"running"}}), "<location></location>", "1 capability")
	p.await("/devices/d0", "Last sessions")

	unknown := newStandIns(t, 2, c.nms)
	unknown.KeepCalling(south.addr)
	for i, action := range []string{"adopt", "refuse"} {
		key, err := ssh.ParsePublicKey(mustKey(t, unknown.keys[i]))
		if err != nil {
			t.Fatal(err)
		}
		f := ssh.FingerprintSHA256(key)
		contains(t, "an unknown device", p.await("/unknown", f), "Station south")
		if after := p.post("/unknown/"+action, url.Values{"key": {f}, "fingerprint": {f}, "id": {"new"}}); strings.Contains(after, "Failed") || action == "refuse" && strings.Contains(after, f) {
			t.Errorf("after %s the page is: %s", action, after)
		}
	}
	p.await("/devices/new", "connected since")
	hangUp()
	p.await("/devices/d1", "lost since")
	p.await("/", "2 ▲ lost")
}
