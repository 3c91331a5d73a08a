package web

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"callhome/internal/nms/control"
	"callhome/internal/nms/nmsproto"
	"callhome/internal/nms/station"
	"callhome/internal/proto"
	"callhome/internal/rpc"

	"github.com/hashicorp/go-hclog"
)

// daemonStub is a station's API without a station.
type daemonStub struct {
	control.Backend // methods that the page does not call

	mu     sync.Mutex
	list   nmsproto.DeviceList
	detail nmsproto.DeviceDetail
	calls  []string
	err    error
	events chan nmsproto.Event
}

func (b *daemonStub) note(call string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calls = append(b.calls, call)
	return b.err
}

func (b *daemonStub) List() nmsproto.DeviceList {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.list
}

func (b *daemonStub) DetailFor(_ context.Context, id string) (nmsproto.DeviceDetail, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.detail.ID != id {
		return b.detail, proto.NewError(proto.CodeNoExists, fmt.Sprintf("there is no device %q", id))
	}
	return b.detail, nil
}

func (b *daemonStub) History() nmsproto.History {
	return nmsproto.History{End: time.Now(), Minutes: []nmsproto.Count{{Logins: 3, Losses: 1, Refused: 2}}, Quarters: []nmsproto.Count{{Logins: 3}}}
}

func (b *daemonStub) Adopt(p nmsproto.AdoptParams, _ bool) (nmsproto.Adopted, error) {
	return nmsproto.Adopted{}, b.note(fmt.Sprintf("adopt %s as %s %s %v", p.HostKey, p.ID, p.User, p.Labels))
}
func (b *daemonStub) Revoke(p nmsproto.RevokeParams) (nmsproto.Revoked, error) {
	return nmsproto.Revoked{}, b.note("revoke " + p.Key)
}
func (b *daemonStub) Forget(p nmsproto.ForgetParams) error { return b.note("forget " + p.HostKey) }

// Connect is a NETCONF server: it sends a hello, and answers each request with it.
func (b *daemonStub) Connect(_ context.Context, device string, sock station.Duplex) (nmsproto.ConnectResult, error) {
	defer sock.Close()
	if device != "edge7" {
		return nmsproto.ConnectResult{}, proto.NewError(proto.CodeNoExists, "there is no device "+device)
	}
	_, _ = io.WriteString(sock, `<hello xmlns="urn:ietf:params:xml:ns:netconf:base:1.0"><capabilities><capability>urn:ietf:params:netconf:base:1.0</capability><capability>urn:x?&lt;script&gt;</capability></capabilities><session-id>7</session-id></hello>]]>]]>`)
	var text strings.Builder
	part := make([]byte, 4096)
	for id := 1; ; {
		n, err := sock.Read(part)
		if err != nil {
			return nmsproto.ConnectResult{}, nil
		}
		text.Write(part[:n])
		if i := strings.Index(text.String(), "<rpc"); i >= 0 && strings.HasSuffix(text.String(), "]]>]]>") {
			request := strings.TrimSuffix(text.String()[i:], "]]>]]>")
			text.Reset()
			_ = b.note(request)
			_, _ = fmt.Fprintf(sock, `<rpc-reply xmlns="urn:ietf:params:xml:ns:netconf:base:1.0" message-id="%d"><data><name>&lt;b&gt;</name></data></rpc-reply>]]>]]>`, id)
			id++
		}
	}
}

func (b *daemonStub) Subscribe() ([]nmsproto.Event, <-chan nmsproto.Event, func()) {
	return []nmsproto.Event{{Event: nmsproto.EventUp, Device: "edge7", Time: time.Now(), Cause: "<i>"}}, b.events, func() {}
}
func (b *daemonStub) Status() nmsproto.Status {
	return nmsproto.Status{Version: "1.2.3", Devices: map[nmsproto.State]int{nmsproto.Connected: 1, nmsproto.Lost: 1}}
}

const hostile = `<script>alert(1)</script>"'`

var strange = nmsproto.Unknown{HostKey: "SHA256:" + strings.Repeat("k", 43), Address: "192.0.2.9:1", Software: "SSH-2.0-" + hostile, Certificate: hostile, Calls: 3, First: time.Now(), Last: time.Now()}

func newStub() *daemonStub {
	ago := time.Now().Add(-time.Hour)
	edge7 := nmsproto.Device{ID: "edge7", State: nmsproto.Connected, Since: &ago, Address: "192.0.2.1:40000", Software: "SSH-2.0-" + hostile, Labels: map[string]string{"site": hostile}, HostKey: strange.HostKey}
	edge8 := nmsproto.Device{ID: "edge8", State: nmsproto.Lost, Since: &ago, LastError: hostile, ErrorTime: &ago}
	record := nmsproto.Record{Time: ago, First: ago, Times: 3, Event: nmsproto.EventRefused, Cause: hostile, Software: hostile, HostKey: strange.HostKey}
	return &daemonStub{
		list:   nmsproto.DeviceList{Devices: []nmsproto.Device{edge7, edge8}, Unknown: []nmsproto.Unknown{strange}, Problems: []nmsproto.Problem{{File: "x.json", Error: hostile}}},
		detail: nmsproto.DeviceDetail{Device: edge7, RoundTrip: 1234 * time.Microsecond, HostKeys: []string{strange.HostKey}, History: []nmsproto.Record{record}, SessionLog: []nmsproto.SessionRecord{{Begin: ago, End: ago.Add(time.Second), Error: hostile}}},
		events: make(chan nmsproto.Event),
	}
}

// site is a page with its daemon.
type site struct {
	t testing.TB
	*httptest.Server
	page   *Server
	daemon *daemonStub
	client *http.Client
}

func newSite(t testing.TB, change func(*Options)) *site {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	b := newStub()
	go func() { _ = control.NewServer(b, full, hclog.NewNullLogger()).Serve(l) }()
	t.Cleanup(func() { l.Close() })
	o := Options{Socket: socket, User: "operator", LinkTime: time.Minute, Log: hclog.NewNullLogger()}
	if change != nil {
		change(&o)
	}
	s := New(o)
	if o.Header == "" && o.User == "reader" {
		dial := s.fleet.dial
		s.fleet.dial = func() (daemonClient, error) {
			c, err := dial()
			return reader{c}, err
		}
	}
	go s.fleet.run(s.ctx)
	t.Cleanup(s.end)
	server := httptest.NewServer(s.handler)
	t.Cleanup(server.Close)
	jar := &cookies{}
	return &site{t, server, s, b, &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// cookies is a jar that sends all cookies everywhere.
type cookies struct{ all []*http.Cookie }

func (c *cookies) SetCookies(_ *url.URL, all []*http.Cookie) { c.all = append(c.all, all...) }
func (c *cookies) Cookies(*url.URL) []*http.Cookie           { return c.all }

// full is access to every method.
var full = rpc.Access{Full: []uint32{uint32(os.Getgid())}}

// reader is the daemon's client of a user who may only read. (Root may call all.)
type reader struct{ daemonClient }

func (c reader) Call(ctx context.Context, method string, params, result any) error {
	err := c.daemonClient.Call(ctx, method, params, result)
	if status, ok := result.(*nmsproto.Status); ok {
		status.Access = nmsproto.AccessRead
	}
	return err
}

// set changes the daemon.
func (s *site) set(change func(*daemonStub)) {
	s.daemon.mu.Lock()
	defer s.daemon.mu.Unlock()
	change(s.daemon)
}

// forget forgets what was called.
func (s *site) forget() { s.set(func(b *daemonStub) { b.calls = nil }) }

func (s *site) login() *site {
	s.t.Helper()
	link, _ := s.page.Link(strings.TrimPrefix(s.URL, "http://"))
	if status, _ := s.get(strings.TrimPrefix(link, s.URL)); status != http.StatusOK {
		s.t.Fatalf("the link is answered with %d", status)
	}
	return s
}

func (s *site) do(r *http.Request) (status int, body string, answer *http.Response) {
	s.t.Helper()
	out, err := s.client.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer out.Body.Close()
	text, err := io.ReadAll(out.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return out.StatusCode, string(text), out
}

func (s *site) request(method, path string, form url.Values) *http.Request {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.URL+path, strings.NewReader(form.Encode()))
	if err != nil {
		s.t.Fatal(err)
	}
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	return r
}

func (s *site) get(path string) (int, string) {
	s.t.Helper()
	status, body, _ := s.do(s.request(http.MethodGet, path, nil))
	return status, body
}

var tokens = regexp.MustCompile(`name="token" value="([^"]+)"`)

// post sends a form with the session's token.
func (s *site) post(path string, form url.Values) (int, string, *http.Response) {
	s.t.Helper()
	_, body := s.get("/")
	if found := tokens.FindStringSubmatch(body); found != nil {
		form.Set("token", found[1])
	}
	return s.do(s.request(http.MethodPost, path, form))
}

func (s *site) called() []string {
	s.daemon.mu.Lock()
	defer s.daemon.mu.Unlock()
	return s.daemon.calls
}

func TestNothingIsShownWithoutALink(t *testing.T) {
	s := newSite(t, nil)
	for _, path := range []string{"/", "/devices", "/devices/edge7", "/unknown", "/unknown/adopt", "/live", "/nothing"} {
		if status, body := s.get(path); status != http.StatusUnauthorized || strings.Contains(body, "192.0.2.1") {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	for _, path := range []string{"/login", "/login?link=", "/login?link=x"} {
		if status, _ := s.get(path); status != http.StatusForbidden {
			t.Errorf("%s: %d", path, status)
		}
	}
}

func TestALinkWorksOnceAndExpires(t *testing.T) {
	s := newSite(t, nil)
	link, _ := s.page.Link("h")
	_, path, _ := strings.Cut(link, "http://h")
	status, _, answer := s.do(s.request(http.MethodGet, path, nil))
	cookie := answer.Header.Get("Set-Cookie")
	if status != http.StatusOK || !strings.Contains(cookie, "HttpOnly") || !strings.Contains(cookie, "SameSite=Strict") {
		t.Errorf("%d with %q", status, cookie)
	}
	if status, _ := s.get("/"); status != http.StatusOK {
		t.Errorf("the page: %d", status)
	}
	if status, _ := s.get(path); status != http.StatusForbidden {
		t.Errorf("the same link again: %d", status)
	}
	link, _ = s.page.Link("h")
	_, path, _ = strings.Cut(link, "http://h")
	if status, _, _ := s.do(s.request(http.MethodHead, path, nil)); status != http.StatusForbidden {
		t.Errorf("HEAD: %d", status)
	}
	if status, _ := s.get(path); status != http.StatusOK {
		t.Errorf("the link after HEAD: %d", status)
	}
	if other := newUsers(s.page.options); other.cookie == s.page.users.cookie {
		t.Errorf("two pages have the cookie %s", other.cookie)
	}
	now := time.Now()
	secret, until := s.page.users.newLink(now)
	if _, ok := s.page.users.enter(secret, until); ok {
		t.Error("an expired link is valid")
	}
	old, _ := s.page.users.newLink(now)
	secret, _ = s.page.users.newLink(now)
	if _, ok := s.page.users.enter(old, now); ok {
		t.Error("a link is valid after the next one")
	}
	cookieValue, ok := s.page.users.enter(secret, now)
	r := s.request(http.MethodGet, "/", nil)
	r.AddCookie(&http.Cookie{Name: s.page.users.cookie, Value: cookieValue})
	if !ok || s.page.users.of(r, now) == nil || s.page.users.of(r, now.Add(sessionTime)) != nil {
		t.Error("a session does not end in time")
	}
	for range 2 * maxSessions {
		secret, _ := s.page.users.newLink(now)
		s.page.users.enter(secret, now)
	}
	if n := len(s.page.users.sessions); n != maxSessions {
		t.Errorf("%d sessions", n)
	}
}

func TestLogoutEndsTheSession(t *testing.T) {
	s := newSite(t, nil).login()
	if status, _, _ := s.post("/logout", url.Values{}); status != http.StatusOK {
		t.Errorf("got %d", status)
	}
	if status, _ := s.get("/"); status != http.StatusUnauthorized {
		t.Errorf("the old cookie: %d", status)
	}
}

// Whatever a device, a caller or a file says is text on every page.
func TestTextOfDevicesIsText(t *testing.T) {
	s := newSite(t, nil).login()
	for _, path := range []string{"/", "/devices", "/devices?q=" + url.QueryEscape(hostile), "/devices?label=" + url.QueryEscape(hostile), "/devices/edge7", "/unknown", "/unknown/adopt?key=" + strange.HostKey, "/devices/" + url.PathEscape(hostile)} {
		_, body := s.get(path)
		if strings.Contains(body, "<script>alert") || strings.Contains(body, "<i>") || !strings.Contains(body, "alert(1)") {
			t.Errorf("%s:\n%s", path, body)
		}
	}
	_, body, _ := s.post("/devices/edge7/netconf", url.Values{"ask": {"config"}, "datastore": {"running"}})
	if strings.Contains(body, "<b>") || !strings.Contains(body, "&amp;lt;b&amp;gt;") || strings.Contains(body, "urn:x?<script>") || !strings.Contains(body, "urn:x?&lt;script&gt;") {
		t.Errorf("the reply:\n%s", body)
	}
}

func TestEveryAnswerHasTheHeaders(t *testing.T) {
	s := newSite(t, nil).login()
	for _, path := range []string{"/", "/login", "/static/x/style.css", "/nothing", "/devices/none"} {
		_, body, answer := s.do(s.request(http.MethodGet, path, nil))
		csp := answer.Header.Get("Content-Security-Policy")
		if !strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") || answer.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %v", path, answer.Header)
		}
		if strings.Contains(body, " style=") || strings.Contains(body, " onclick") {
			t.Errorf("%s has what its policy forbids", path)
		}
	}
}

func TestARequestOfAnotherSiteIsRefused(t *testing.T) {
	s := newSite(t, nil).login()
	for name, change := range map[string]func(*http.Request){
		"no token":                func(*http.Request) {},
		"a wrong token":           func(r *http.Request) { r.Body = io.NopCloser(strings.NewReader("token=x")); r.ContentLength = 7 },
		"another origin":          func(r *http.Request) { r.Header.Set("Origin", "http://evil.example") },
		"another site":            func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") },
		"a rebound name":          func(r *http.Request) { r.Host = "evil.example" },
		"a rebound name and port": func(r *http.Request) { r.Host = "127.0.0.1.evil.example:80" },
	} {
		r := s.request(http.MethodPost, "/unknown/forget", url.Values{"key": {strange.HostKey}})
		change(r)
		if status, _, _ := s.do(r); status != http.StatusForbidden && status != http.StatusMisdirectedRequest {
			t.Errorf("%s: %d", name, status)
		}
	}
	if calls := s.called(); len(calls) > 0 {
		t.Errorf("the daemon was called: %v", calls)
	}
	for _, tt := range []struct {
		site, mode, dest string
		status           int
	}{
		{"cross-site", "no-cors", "image", http.StatusForbidden}, {"same-site", "cors", "empty", http.StatusForbidden}, {"cross-site", "navigate", "iframe", http.StatusForbidden},
		{"cross-site", "navigate", "document", http.StatusOK}, {"same-origin", "cors", "empty", http.StatusOK}, {"none", "navigate", "document", http.StatusOK},
	} {
		r := s.request(http.MethodGet, "/devices?q=x", nil)
		for name, value := range map[string]string{"Sec-Fetch-Site": tt.site, "Sec-Fetch-Mode": tt.mode, "Sec-Fetch-Dest": tt.dest} {
			r.Header.Set(name, value)
		}
		if status, _, _ := s.do(r); status != tt.status {
			t.Errorf("%+v: %d", tt, status)
		}
	}
	proxied := &Server{options: Options{URL: &url.URL{Scheme: "https", Host: "nms.example:8443"}}}
	for host, want := range map[string]bool{"nms.example": true, "NMS.example:8443": true, "127.0.0.1": false, "nms.example.evil": false, "": false} {
		if got := proxied.knownHost(host); got != want {
			t.Errorf("%q for %v: %v", host, proxied.options.URL, got)
		}
	}
	for _, host := range []string{"127.0.0.1:1", "localhost:8334", "[::1]:1", "127.3.4.5", "LOCALHOST"} {
		if !s.page.knownHost(host) {
			t.Errorf("%s is refused", host)
		}
	}
}

func TestAdoptNeedsTheFingerprint(t *testing.T) {
	s := newSite(t, nil).login()
	form := url.Values{"key": {strange.HostKey}, "id": {"edge9"}, "labels": {"site=west\r\nmodel=x=1\r\n"}, "fingerprint": {"SHA256:" + strings.Repeat("x", 43)}}
	status, body, _ := s.post("/unknown/adopt", form)
	if status != http.StatusUnprocessableEntity || !strings.Contains(body, "The fingerprint is not that") || !strings.Contains(body, `value="edge9"`) || len(s.called()) > 0 {
		t.Errorf("another fingerprint: %d %v\n%s", status, s.called(), body)
	}
	form.Set("fingerprint", " 256 "+strange.HostKey+" root@edge9 (ED25519)\n")
	status, _, answer := s.post("/unknown/adopt", form)
	if calls := s.called(); status != http.StatusSeeOther || answer.Header.Get("Location") != "/devices/edge9?done=adopted" || len(calls) != 1 || calls[0] != "adopt "+strange.HostKey+" as edge9  map[model:x=1 site:west]" {
		t.Errorf("%d, %v, %v", status, answer.Header, calls)
	}
	s.set(func(b *daemonStub) {
		b.err = proto.NewError(proto.CodeAccessDenied, "the device would learn the station's own password")
	})
	if status, body, _ := s.post("/unknown/adopt", form); status != http.StatusForbidden || !strings.Contains(body, "The device would learn") {
		t.Errorf("the daemon refuses: %d\n%s", status, body)
	}
	form.Set("labels", "x")
	if status, _, _ := s.post("/unknown/adopt", form); status != http.StatusUnprocessableEntity {
		t.Errorf("a wrong label: %d", status)
	}
	form.Set("key", "edge7")
	if status, _, _ := s.post("/unknown/adopt", form); status != http.StatusNotFound {
		t.Errorf("a key that did not call: %d", status)
	}
}

func TestSameFingerprint(t *testing.T) {
	const f = "SHA256:abc"
	for text, want := range map[string]bool{
		f: true, "abc": true, " " + f + "\n": true, "256 " + f + " root@x (ED25519)": true,
		"": false, "SHA256:": false, "SHA256:ab": false, "SHA256:abd": false, f + " SHA256:abd": false, "256 root@x": false, "ABC": false,
	} {
		if got := sameFingerprint(text, f); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func TestRefuseAndForget(t *testing.T) {
	s := newSite(t, nil).login()
	for action, want := range map[string]string{"refuse": "revoke ", "forget": "forget "} {
		s.forget()
		status, _, _ := s.post("/unknown/"+action, url.Values{"key": {strange.HostKey}})
		if calls := s.called(); status != http.StatusSeeOther || len(calls) != 1 || calls[0] != want+strange.HostKey {
			t.Errorf("%s: %d %v", action, status, calls)
		}
		// The daemon revokes the keys of a device by its id.
		if status, _, _ := s.post("/unknown/"+action, url.Values{"key": {"edge7"}}); status != http.StatusNotFound {
			t.Errorf("%s of a device: %d", action, status)
		}
	}
}

func TestAReaderHasNoButtonsAndMayNotAct(t *testing.T) {
	s := newSite(t, func(o *Options) { o.Header, o.Operators = "X-User", []string{"ann"} })
	as := func(name string) {
		s.client.Transport = transport(func(r *http.Request) (*http.Response, error) {
			if name != "" {
				r.Header.Set("X-User", name)
			}
			return http.DefaultTransport.RoundTrip(r)
		})
	}
	as("")
	if status, _ := s.get("/"); status != http.StatusForbidden {
		t.Errorf("without the header: %d", status)
	}
	for _, bad := range []string{"a,ann", "a\tb", "ann\u00a0", "\u3000ann", "\u202eann", strings.Repeat("x", 200)} {
		as(bad)
		if status, _ := s.get("/"); status != http.StatusForbidden {
			t.Errorf("the user %q: %d", bad, status)
		}
	}
	as("bob")
	for _, path := range []string{"/unknown", "/devices/edge7"} {
		if status, body := s.get(path); status != http.StatusOK || strings.Contains(body, "<button") || !strings.Contains(body, "may only read") {
			t.Errorf("%s: %d\n%s", path, status, body)
		}
	}
	posts := map[string]url.Values{"/unknown/adopt": {"key": {strange.HostKey}, "fingerprint": {strange.HostKey}, "id": {"x"}}, "/unknown/refuse": {"key": {strange.HostKey}}, "/unknown/forget": {"key": {strange.HostKey}}, "/devices/edge7/netconf": {"ask": {"config"}}}
	for path, form := range posts {
		form.Set("token", s.page.users.token("user", "bob"))
		if status, body, _ := s.post(path, form); status != http.StatusForbidden || !strings.Contains(body, "You may only read.") {
			t.Errorf("%s: %d\n%s", path, status, body)
		}
	}
	if status, _ := s.get("/unknown/adopt?key=" + strange.HostKey); status != http.StatusForbidden || len(s.called()) > 0 {
		t.Errorf("the form: %d, calls %v", status, s.called())
	}
	as("ann")
	if status, _, _ := s.do(s.request(http.MethodPost, "/unknown/forget", url.Values{"key": {strange.HostKey}, "token": {s.page.users.token("user", "ann")}})); status != http.StatusSeeOther || len(s.called()) != 1 {
		t.Errorf("an operator: %d, calls %v", status, s.called())
	}
	// A token is of one user.
	s.forget()
	form := url.Values{"key": {strange.HostKey}, "token": {s.page.users.token("user", "bob")}}
	if status, _, _ := s.do(s.request(http.MethodPost, "/unknown/forget", form)); status != http.StatusForbidden || len(s.called()) > 0 {
		t.Errorf("another user's token: %d, calls %v", status, s.called())
	}
}

type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestAReaderOfTheDaemonMayOnlyReadHere(t *testing.T) {
	s := newSite(t, func(o *Options) { o.User = "reader" }).login()
	if _, body := s.get("/unknown"); strings.Count(body, "<button") != 1 {
		t.Errorf("it has buttons:\n%s", body)
	}
	if status, _, _ := s.post("/unknown/forget", url.Values{"key": {strange.HostKey}}); status != http.StatusForbidden || len(s.called()) > 0 {
		t.Errorf("got %d", status)
	}
}

// A filter is whole elements, so it cannot add an operation.
func TestOnlyReadingOperationsAreSent(t *testing.T) {
	s := newSite(t, nil).login()
	for _, tt := range []struct{ datastore, filter, sent string }{
		{"running", "", `<get-config><source><running/></source></get-config>`},
		{"candidate", ` <a xmlns="urn:a"/><b/> `, `<get-config><source><candidate/></source><filter type="subtree"><a xmlns="urn:a"/><b/></filter></get-config>`},
		{"running", "</filter></get-config><edit-config/><get-config><filter>", ""},
		{"running", "<a/></filter>", ""},
		{"running", "<a>", ""},
		{"running", "text", ""},
		{"running/><edit-config", "", ""},
		{"", "", ""},
	} {
		s.forget()
		_, body, _ := s.post("/devices/edge7/netconf", url.Values{"ask": {"config"}, "datastore": {tt.datastore}, "filter": {tt.filter}})
		calls := s.called()
		if tt.sent == "" && (len(calls) > 0 || !strings.Contains(body, "Failed:")) || tt.sent != "" && (len(calls) == 0 || !strings.Contains(calls[0], tt.sent)) {
			t.Errorf("%+v: sent %v\n%s", tt, calls, body)
		}
	}
	s.forget()
	if _, body, _ := s.post("/devices/edge7/netconf", url.Values{"ask": {"capabilities"}}); !strings.Contains(body, "2 capabilities") {
		t.Errorf("the capabilities:\n%s", body)
	}
	for _, c := range s.called() {
		if !strings.Contains(c, "<close-session/>") {
			t.Errorf("sent %s", c)
		}
	}
}

// The script loads a part of a page when the fleet changes.
func TestAStreamNamesEachCopyOfTheFleet(t *testing.T) {
	s := newSite(t, nil).login()
	s.get("/")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := s.client.Do(s.request(http.MethodGet, "/live", nil).WithContext(ctx))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Body.Close()
	if out.Header.Get("Content-Type") != "text/event-stream" {
		t.Errorf("got %v", out.Header)
	}
	lines := bufio.NewScanner(out.Body)
	copied := func() string { // the line that names the next copy
		t.Helper()
		for lines.Scan() {
			if strings.HasPrefix(lines.Text(), "data: ") {
				return lines.Text()
			}
		}
		t.Fatalf("the stream has ended: %v", lines.Err())
		return ""
	}
	last := copied()
	s.set(func(b *daemonStub) {
		b.list.Devices = []nmsproto.Device{{ID: "edge70"}}
	})
	s.daemon.events <- nmsproto.Event{Event: nmsproto.EventUp, Device: "edge70"}
	for body := ""; !strings.Contains(body, "edge70"); { // a copy that began before that may come first
		next := copied()
		if next == last {
			t.Errorf("%q twice", next)
		}
		last = next
		r := s.request(http.MethodGet, "/devices", nil)
		r.Header.Set(partHeader, "live")
		if _, body, _ = s.do(r); strings.Contains(body, "<html") || strings.Contains(body, "<form") {
			t.Errorf("the part:\n%s", body)
		}
	}
}

func TestStreamsAreBounded(t *testing.T) {
	var s streams
	for range maxStreamsPerUser {
		if !s.enter("ann") {
			t.Fatal("too few")
		}
	}
	if s.enter("ann") {
		t.Error("one too many of a user")
	}
	for i := 0; s.enter(fmt.Sprint(i)); i++ {
	}
	if s.all != maxStreams {
		t.Errorf("%d of all", s.all)
	}
	s.leave("ann")
	if !s.enter("ann") {
		t.Error("a place is not free again")
	}
}

func TestADaemonThatEndsIsShown(t *testing.T) {
	s := newSite(t, func(o *Options) { o.Socket += "-none" }).login()
	if status, body := s.get("/"); status != http.StatusOK || !strings.Contains(body, "The daemon does not answer:") || strings.Contains(body, "0001") {
		t.Errorf("%d\n%s", status, body)
	}
	if status, body := s.get("/devices/edge7"); status != http.StatusBadGateway || !strings.Contains(body, "does not run") {
		t.Errorf("%d\n%s", status, body)
	}
}

func TestADeviceThatWasAdoptedIsNotRefused(t *testing.T) {
	s := newSite(t, nil).login()
	_, body := s.get("/unknown")
	s.set(func(b *daemonStub) { b.list.Unknown = nil })
	form := url.Values{"key": {strange.HostKey}, "token": {tokens.FindStringSubmatch(body)[1]}}
	if status, _, _ := s.do(s.request(http.MethodPost, "/unknown/refuse", form)); status != http.StatusNotFound || len(s.called()) > 0 {
		t.Errorf("got %d, calls %v", status, s.called())
	}
}

// Each station of a cluster has its own list of unknown devices.
func TestADeviceIsForgottenWhereItCalled(t *testing.T) {
	u := &user{May: true, fleet: &snapshot{Status: nmsproto.Status{Station: "nms-a"}}}
	for station, want := range map[string]bool{"nms-a": true, "nms-b": false} {
		d := strange
		d.Station = station
		u.fleet.Unknown = []nmsproto.Unknown{d}
		if got := strings.Contains(written(unknown(u)), "/unknown/forget"); got != want {
			t.Errorf("%s: %v", station, got)
		}
	}
}

func TestAPanicIsLogged(t *testing.T) {
	var log bytes.Buffer
	s := New(Options{Log: hclog.New(&hclog.LoggerOptions{Output: &log, Level: hclog.Info}), Header: "X-User"})
	s.fleet = nil
	func() {
		defer func() {
			if p := recover(); p != http.ErrAbortHandler {
				t.Errorf("the panic is %v", p)
			}
		}()
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/devices", nil)
		r.Header.Set("X-User", "ann")
		s.handler.ServeHTTP(httptest.NewRecorder(), r)
	}()
	if !strings.Contains(log.String(), `request="GET /devices"`) || !strings.Contains(log.String(), "user.go") {
		t.Errorf("logged %s", log.String())
	}
}
