//go:build integration

package web

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"callhome/internal/nms/sshtest"
	"callhome/test/sandbox"
	"callhome/test/skips"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// complaints collects what the browser reports: violations of the policy, failed
// scripts.
func (b *browser) complaints() func() []string {
	var mu sync.Mutex
	var all []string
	ctx, cancel := context.WithCancel(b.ctx)
	b.t.Cleanup(cancel)
	messages := chromedp.Console(ctx)
	go func() {
		for m, err := range messages {
			if err != nil {
				return
			}
			if m.Source != "network" { // an answer such as 403 is one
				mu.Lock()
				all = append(all, m.Text)
				mu.Unlock()
			}
		}
	}()
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return all
	}
}

func TestAnOperatorWatchesAndAdopts(t *testing.T) {
	edge7 := newDevice(t)
	s := newStation(t, func(registry string) {
		entry(t, registry, "edge7", edge7.key.PublicKey(), `, "labels": {"site": "west"}`)
	})
	link := s.page()
	b := newBrowser(t)
	complaints := b.complaints()

	b.open(link)
	b.await("Lost devices", true)
	if text := b.text(); !strings.Contains(text, "0\n● connected") || strings.Contains(text, "link=") {
		t.Errorf("the overview is\n%s", text)
	}
	// It follows the station without being loaded again.
	evaluate[bool](b, `window.sameDocument = true`)
	edge7.calls(s)
	b.await("1\n● connected", true)
	edge7.hangUp()
	b.await("1\n▲ lost", true)
	b.await("the device closed the connection", true)
	edge7.calls(s)
	b.await("No device is lost.", true)
	if !evaluate[bool](b, `window.sameDocument === true`) {
		t.Error("the page was loaded again")
	}

	// An unknown device is adopted with the fingerprint of the device itself.
	unknown := newDevice(t)
	unknown.version = `SSH-2.0-<img/src=x/onerror=alert(1)>`
	unknown.calls(s)
	b.open(root(link) + "/unknown")
	b.await(unknown.fingerprint(), true)
	b.await(unknown.version, true)
	if evaluate[int](b, `document.images.length`) > 0 {
		t.Error("the text of a device became an element")
	}
	b.do(click("a.button"), chromedp.WaitVisible(chromedp.CSS("#fingerprint")))
	if strings.Contains(b.text(), unknown.fingerprint()) {
		t.Error("the form shows the fingerprint that the operator has to bring")
	}
	b.do(enter("#fingerprint", edge7.fingerprint()), enter("#id", "edge9"), enter("#labels", "site=east"), chromedp.Submit(chromedp.CSS("#fingerprint")))
	b.await("The fingerprint is not that of this host key", true)
	b.do(enter("#fingerprint", "256 "+unknown.fingerprint()+" root@edge9 (ED25519)"), chromedp.Submit(chromedp.CSS("#fingerprint")))
	b.await("The device is registered.", true)
	b.await("never seen", true)
	unknown.calls(s)
	b.await("connected", true)

	// What a device is asked is read only, and shown as text.
	b.do(enter("#filter", `<interfaces xmlns="urn:ietf:params:xml:ns:yang:ietf-interfaces"/>`), click(`button[value="config"]`))
	b.await("<description>uplink &lt;core&gt;</description>", true)
	b.await("3 capabilities", true)

	// The list is searched and sorted.
	b.open(root(link) + "/devices")
	b.do(enter("#q", "site=east"), chromedp.Submit(chromedp.CSS("#q")))
	b.await("1–1 of 1 device that match", true)
	if text := b.text(); strings.Contains(text, "edge7") {
		t.Errorf("the search finds\n%s", text)
	}

	// A link works once, and for its time.
	b.open(link)
	b.await("This link was used or has expired.", true)
	b.open(s.page("--link-time", "1ms"))
	b.await("This link was used or has expired.", true)
	b.open(root(link))
	b.await("Last events", true)
	b.do(click("button.plain"))
	b.await("You are logged out.", true)
	b.open(root(link))
	b.await("Open the link that callhome-nms web printed.", true)
	if all := complaints(); len(all) > 0 {
		t.Errorf("the browser complains: %q", all)
	}
}

// root is the address of the page without the link.
func root(link string) string {
	address, _, _ := strings.Cut(link, "/login")
	return address
}

func TestUnknownDevicesAreRefusedAndForgotten(t *testing.T) {
	s := newStation(t, nil)
	one, two := newDevice(t), newDevice(t)
	one.calls(s)
	two.calls(s)
	s.awaitUnknown(2)
	b := newBrowser(t)
	b.open(s.page())
	b.await("Last events", true)
	b.do(click(`a[href="/unknown"]`))
	for _, step := range []struct {
		d      *device
		action string
	}{{one, "refuse"}, {two, "forget"}} {
		details := fmt.Sprintf(`document.getElementById("%s-%s")`, step.action, step.d.fingerprint())
		b.await(step.d.fingerprint(), true)
		evaluate[chromedp.Void](b, details+`.querySelector("summary").click()`)
		evaluate[chromedp.Void](b, details+`.querySelector("button").click()`)
		b.await(step.d.fingerprint(), false)
	}
	text, err := os.ReadFile(filepath.Join(s.registry, "revoked_keys"))
	if err != nil || !strings.Contains(string(text), one.fingerprint()) || strings.Contains(string(text), two.fingerprint()) {
		t.Errorf("revoked are %q, %v", text, err)
	}
	one.calls(s)
	two.calls(s)
	b.await(two.fingerprint(), true)
	b.await(one.fingerprint(), false)
}

func TestAReaderHasNoButtons(t *testing.T) {
	edge7 := newDevice(t)
	s := newStation(t, func(registry string) { entry(t, registry, "edge7", edge7.key.PublicKey(), "") })
	unknown := newDevice(t)
	unknown.calls(s)
	edge7.calls(s)
	s.awaitUnknown(1)
	reader, operator := s.proxied("bob"), s.proxied("ann", "--operator", "ann")
	b := newBrowser(t)
	for address, want := range map[string]int{reader: 0, operator: 5} {
		buttons := 0
		for _, path := range []string{"/", "/devices", "/unknown", "/devices/edge7"} {
			b.open(address + path)
			buttons += evaluate[int](b, `document.querySelectorAll("main button, main a.button").length - document.querySelectorAll("form.filter button").length`)
		}
		if buttons != want {
			t.Errorf("%s has %d buttons, want %d", address, buttons, want)
		}
	}
	// The server refuses what the page does not offer.
	b.open(reader + "/unknown")
	b.await("bob may only read", true)
	status := evaluate[int](b, fmt.Sprintf(`fetch("/unknown/forget", {method: "POST", headers: {"Content-Type": "application/x-www-form-urlencoded"},
		body: new URLSearchParams({token: "x", key: %q})}).then(r => r.status)`, unknown.fingerprint()))
	if status != http.StatusForbidden || len(s.list().Unknown) != 1 {
		t.Errorf("the request is answered with %d, %d devices are left", status, len(s.list().Unknown))
	}
	// It follows the station through the proxy, too.
	edge7.hangUp()
	b.await("Live: follows the station.", true)
}

// Whoever runs the page may do there what the daemon lets that user do.
func TestAMemberOfTheReadGroupMayOnlyRead(t *testing.T) {
	if os.Getuid() != 0 {
		skips.Story(t, "only root can run the page as another user")
	}
	const nobody = 65534
	group, err := user.LookupGroupId(strconv.Itoa(nobody))
	if err != nil {
		t.Fatal(err)
	}
	s := newStation(t, nil, "--read-group", group.Name)
	s.as = &syscall.Credential{Uid: nobody, Gid: nobody}
	for dir := filepath.Dir(s.socket); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	unknown := newDevice(t)
	unknown.calls(s)
	s.awaitUnknown(1)
	b := newBrowser(t)
	link := s.page()
	b.open(link)
	b.await("may only read", true)
	b.open(root(link) + "/unknown")
	b.await(unknown.fingerprint(), true)
	if n := evaluate[int](b, `document.querySelectorAll("main button, main a.button").length`); n > 0 {
		t.Errorf("the page has %d buttons", n)
	}
	status := evaluate[int](b, fmt.Sprintf(`fetch("/unknown/forget", {method: "POST", headers: {"Content-Type": "application/x-www-form-urlencoded"},
		body: new URLSearchParams({token: document.querySelector("[name=token]").value, key: %q})}).then(r => r.status)`, unknown.fingerprint()))
	if status != http.StatusForbidden || len(s.list().Unknown) != 1 {
		t.Errorf("the request is answered with %d, %d devices are left", status, len(s.list().Unknown))
	}
}

func TestARequestOfAnotherSiteIsRefused(t *testing.T) {
	s := newStation(t, nil)
	unknown := newDevice(t)
	unknown.calls(s)
	s.awaitUnknown(1)
	link := s.page()
	b := newBrowser(t)
	b.open(link)
	b.await("Lost devices", true)
	// The other site is on this machine, too: at another address, and at the same
	// address but another port, to which browsers send the same cookies.
	address := strings.TrimPrefix(root(link), "http://")
	host, _, _ := net.SplitHostPort(address)
	for _, at := range []string{"127.0.0.1:0", host + ":0"} {
		other := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			fmt.Fprintf(w, `<form method="post" action="%s/unknown/forget"><input name="key" value="%s"><button>x</button></form>`, root(link), unknown.fingerprint())
		}))
		l, err := net.Listen("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		other.Listener.Close()
		other.Listener = l
		other.Start()
		b.open(other.URL)
		b.do(click("button"))
		b.await("Not permitted", true)
		other.Close()
	}
	if n := len(s.list().Unknown); n != 1 {
		t.Errorf("%d unknown devices are left", n)
	}
	// A name that was made to resolve to the page.
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, root(link), nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = "evil.example"
	out, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	out.Body.Close()
	if out.StatusCode != http.StatusMisdirectedRequest {
		t.Errorf("another name is answered with %d", out.StatusCode)
	}
}

func TestItWorksWithoutScript(t *testing.T) {
	edge7 := newDevice(t)
	s := newStation(t, func(registry string) { entry(t, registry, "edge7", edge7.key.PublicKey(), "") })
	unknown := newDevice(t)
	unknown.calls(s)
	s.awaitUnknown(1)
	link := s.page()
	b := newBrowser(t)
	if _, err := chromedp.Call(b.ctx, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true}); err != nil {
		t.Fatal(err)
	}
	b.open(link)
	b.await("As of the time when the page was loaded.", true)
	edge7.calls(s)
	sandbox.Await(t, patience, "edge7 on the page", func() error {
		b.open(root(link) + "/devices?state=connected")
		if text := b.text(); !strings.Contains(text, "edge7") {
			return errors.New(text)
		}
		return nil
	})
	b.open(root(link) + "/unknown")
	b.do(click("a.button"), enter("#fingerprint", unknown.fingerprint()), enter("#id", "edge9"), click("form.form button"))
	b.await("The device is registered.", true)
}

// fleet is a registry of n devices.
func fleet(t *testing.T, n int) func(registry string) {
	return func(registry string) {
		for i := range n {
			entry(t, registry, fmt.Sprintf("edge%05d", i), sshtest.NewSigner(t).PublicKey(), fmt.Sprintf(`, "labels": {"site": "s%02d"}`, i%50))
		}
	}
}

// The pages stay quick with 20,000 devices; the figures of one device are beside them.
func TestTwentyThousandDevicesAreUsable(t *testing.T) {
	const many = 20000
	paints := make(map[int][]float64)
	for _, n := range []int{1, many} {
		s := newStation(t, fleet(t, n))
		link := s.page()
		b := newBrowser(t)
		b.open(link)
		b.await("Lost devices", true)
		last := fmt.Sprintf("edge%05d", n-1)
		for _, path := range []string{"/", "/devices", "/devices?q=" + last, "/devices?sort=since&order=down", "/devices?label=site%3Ds49&page=3", "/devices/" + last} {
			var best timing
			for range 5 {
				b.open(root(link) + path)
				now := evaluate[timing](b, firstPaint)
				if best.Paint == 0 || now.Paint < best.Paint {
					best = now
				}
			}
			t.Logf("%5d devices, %-40s answer %4.0f ms, first paint %4.0f ms, %4.0f KB", n, path, best.Answer, best.Paint, best.Bytes/1000)
			paints[n] = append(paints[n], best.Paint)
		}
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.web))
		if err != nil {
			t.Error(err)
		}
		for line := range strings.Lines(string(status)) {
			if strings.HasPrefix(line, "VmRSS") || strings.HasPrefix(line, "VmHWM") {
				t.Logf("%5d devices, callhome-nms web: %s", n, strings.TrimSpace(line))
			}
		}
		if text := b.text(); !strings.Contains(text, last) {
			t.Errorf("the page of %s is\n%s", last, text)
		}
	}
	for i, paint := range paints[many] {
		if limit := 10*paints[1][i] + 1000; paint > limit {
			t.Errorf("page %d is painted after %.0f ms, of one device after %.0f ms", i, paint, paints[1][i])
		}
	}
}

type timing struct{ Answer, Paint, Bytes float64 }

const firstPaint = `new Promise(resolve => {
	const done = list => {
		const e = list.find(e => e.name === "first-contentful-paint"), n = performance.getEntriesByType("navigation")[0];
		if (e) resolve({Answer: n.responseEnd - n.requestStart, Paint: e.startTime, Bytes: n.decodedBodySize});
	};
	new PerformanceObserver(list => done(list.getEntries())).observe({type: "paint", buffered: true});
})`
