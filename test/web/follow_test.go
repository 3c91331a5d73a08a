//go:build integration

package web

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"callhome/test/sandbox"

	"github.com/chromedp/chromedp"
)

// The page says that the daemon is away, and follows it when it is back; the navigation
// counts the unknown devices on every page.
func TestThePageFollowsARestartedDaemon(t *testing.T) {
	edge7 := newDevice(t)
	s := newStation(t, func(registry string) { entry(t, registry, "edge7", edge7.key.PublicKey(), "") })
	link := s.page()
	b := newBrowser(t)
	b.open(link)
	b.await("Last events", true)
	b.open(root(link) + "/devices")
	b.await("never seen", true)
	evaluate[bool](b, `window.sameDocument = true`)
	s.end()
	b.await("The daemon does not answer:", true)
	s.begin()
	b.await("The daemon does not answer:", false)
	b.await("Live: follows the station.", true)
	edge7.calls(s)
	b.await("● connected", true)
	unknown := newDevice(t)
	unknown.calls(s)
	b.await("Unknown 1", true)
	if !evaluate[bool](b, `window.sameDocument === true`) {
		t.Error("the page was loaded again")
	}
	// After an action, the focus is on what it did, and a screen reader reads that.
	b.open(root(link) + "/unknown/adopt?key=" + strings.ReplaceAll(unknown.fingerprint(), "+", "%2B"))
	b.do(enter("#fingerprint", edge7.fingerprint()), enter("#id", "edge9"), chromedp.Submit(chromedp.CSS("#fingerprint")))
	b.awaitFocus("The fingerprint is not that of this host key")
	b.do(enter("#fingerprint", unknown.fingerprint()), chromedp.Submit(chromedp.CSS("#fingerprint")))
	b.awaitFocus("The device is registered.")
}

// awaitFocus waits until the element with a text has the focus.
func (b *browser) awaitFocus(part string) {
	b.t.Helper()
	sandbox.Await(b.t, patience, fmt.Sprintf("the focus on %q", part), func() error {
		text, err := chromedp.Run(b.ctx, chromedp.Evaluate[string](`document.activeElement ? document.activeElement.tagName + " " + document.activeElement.innerText : ""`))
		if err != nil {
			return err
		}
		if strings.HasPrefix(text, "BODY") || !strings.Contains(text, part) {
			return fmt.Errorf("it is on %.200s", text)
		}
		return nil
	})
}

// A link of another site leads to the page, but its browser sends no cookie along.
func TestALinkOfAnotherSiteLeadsToThePage(t *testing.T) {
	s := newStation(t, nil)
	link := s.page()
	b := newBrowser(t)
	b.open(link)
	b.await("Last events", true)
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, `<a href="%s/devices?state=lost">the ticket</a>`, root(link))
	}))
	defer other.Close()
	b.open(strings.Replace(other.URL, "127.0.0.1", "localhost", 1))
	b.do(click("a"))
	b.await("Not logged in", true)
	b.do(click("main a"))
	b.await("No device matches.", true)
}
