//go:build integration

package web

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"maps"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"callhome/internal/nms/control"
	"callhome/internal/nms/nmsproto"
	nms "callhome/internal/nms/station"
	"callhome/internal/rpc"
	"callhome/test/skips"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/hashicorp/go-hclog"
)

// scene is a daemon's API with a fleet that has a past: three stations, lost devices,
// unknown ones.
type scene struct {
	control.Backend // methods that the page does not call here

	now    time.Time
	list   nmsproto.DeviceList
	events []nmsproto.Event
}

func newScene() *scene {
	s := &scene{now: time.Now().UTC()}
	dice := rand.New(rand.NewPCG(7, 7))
	sites := []string{"berlin", "hamburg", "munich", "paris", "vienna"}
	software := []string{"SSH-2.0-OpenSSH_9.2p1", "SSH-2.0-OpenSSH_9.6", "SSH-2.0-OpenSSH_10.0"}
	causes := []string{"no answer to a keepalive within 15s", "the device closed the connection", "read: connection reset by peer"}
	for i := range 480 {
		site := sites[i%len(sites)]
		d := nmsproto.Device{
			ID: fmt.Sprintf("%s-cell-%03d", site, i/len(sites)+1), State: nmsproto.Connected, Station: fmt.Sprintf("nms-%c", 'a'+rune(i%3)),
			Labels:  map[string]string{"site": site, "model": []string{"o-ru-200", "o-ru-400"}[i%2]},
			Address: fmt.Sprintf("10.%d.%d.%d:%d", 20+i%len(sites), i/250, 1+i%250, 40000+dice.IntN(20000)), Software: software[dice.IntN(len(software))],
			HostKey: key(dice), User: "netconf", Calls: 1 + uint64(dice.IntN(4)), Sessions: max(0, dice.IntN(6)-4),
		}
		since := s.now.Add(-time.Duration(dice.ExpFloat64() * float64(20*time.Hour))).Add(-time.Minute)
		switch {
		case i%53 == 7:
			since = s.now.Add(-time.Duration(dice.IntN(40000)+60) * time.Second)
			d.State, d.Sessions, d.LastError, d.ErrorTime = nmsproto.Lost, 0, causes[dice.IntN(len(causes))], &since
		case i%97 == 11:
			d = nmsproto.Device{ID: d.ID, State: nmsproto.NeverSeen, Labels: d.Labels}
		}
		if d.State != nmsproto.NeverSeen {
			d.Since = &since
		}
		s.list.Devices = append(s.list.Devices, d)
	}
	for i := range 3 {
		s.list.Unknown = append(s.list.Unknown, nmsproto.Unknown{
			HostKey: key(dice), Address: fmt.Sprintf("10.31.0.%d:%d", 20+i, 50000+dice.IntN(9999)), Software: software[i], Calls: uint64(3 + 4*i), Station: "nms-b",
			First: s.now.Add(-time.Duration(i+1) * time.Hour), Last: s.now.Add(-time.Duration(70*i+14) * time.Second), Pause: time.Duration(i+1) * time.Minute,
		})
	}
	for i, n := 0, 0; n < 14; i++ {
		d := s.list.Devices[(i*53+7)%len(s.list.Devices)]
		at := s.now.Add(-time.Duration(14-n) * 97 * time.Second)
		e := nmsproto.Event{Time: at, Event: nmsproto.EventUp, Device: d.ID, Address: d.Address}
		if d.State == nmsproto.Lost {
			e.Event, e.Cause = nmsproto.EventDown, d.LastError
		}
		if n%5 == 4 {
			e = nmsproto.Event{Time: at, Event: nmsproto.EventUnknown, Address: s.list.Unknown[0].Address, Cause: "no device has this host key"}
		}
		s.events = append(s.events, e)
		n++
	}
	return s
}

func key(dice *rand.Rand) string {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	var b strings.Builder
	for range 43 {
		b.WriteByte(letters[dice.IntN(len(letters))])
	}
	return "SHA256:" + b.String()
}

// The methods of the daemon.

func (s *scene) List() nmsproto.DeviceList { return s.list }

func (s *scene) Status() nmsproto.Status {
	out := nmsproto.Status{Version: "0.2.0", Since: s.now.Add(-9 * 24 * time.Hour), Devices: make(map[nmsproto.State]int), Station: "nms-a"}
	connected := make(map[string]int)
	for _, d := range s.list.Devices {
		out.Devices[d.State]++
		if d.State == nmsproto.Connected {
			connected[d.Station]++
		}
	}
	for i, name := range []string{"nms-a", "nms-b", "nms-c"} {
		out.Stations = append(out.Stations, nmsproto.Station{Name: name, Address: fmt.Sprintf("10.0.0.%d:4335", i+1), Version: "0.2.0", Since: out.Since,
			Seen: time.Now().Add(-time.Duration(i) * time.Second), Alive: true, Connected: connected[name], Sessions: 3 + 5*i, Unauthenticated: i})
	}
	return out
}

func (s *scene) History() nmsproto.History {
	dice := rand.New(rand.NewPCG(3, 3))
	out := nmsproto.History{End: s.now.Truncate(time.Minute).Add(time.Minute)}
	count := func(i, n, burst int) nmsproto.Count {
		c := nmsproto.Count{Logins: dice.IntN(n), Losses: dice.IntN(n)}
		if away := float64(i - burst); away >= -1 && away < 8 {
			c.Losses += int(40 * math.Exp(-2*math.Abs(away)))
			c.Logins += int(36 * math.Exp(-math.Abs(away-2)))
		}
		return c
	}
	for i := range 60 {
		c := count(i, 3, 38)
		c.Refused = dice.IntN(2)
		out.Minutes = append(out.Minutes, c)
	}
	for i := range 96 {
		out.Quarters = append(out.Quarters, count(i, 9, 61))
	}
	return out
}

func (s *scene) DetailFor(_ context.Context, id string) (out nmsproto.DeviceDetail, err error) {
	for _, d := range s.list.Devices {
		if d.ID == id {
			out.Device = d
		}
	}
	if out.ID == "" || out.Since == nil {
		return out, errors.New("there is no such device")
	}
	since := *out.Since
	record := func(ago time.Duration, event, cause, software string, times int) nmsproto.Record {
		at := since.Add(-ago)
		return nmsproto.Record{Time: at, First: at.Add(-time.Duration(times-1) * time.Minute), Times: times, Event: event, Address: out.Address, Cause: cause, Software: software, HostKey: out.HostKey}
	}
	const old = "SSH-2.0-OpenSSH_9.2p1"
	out.RoundTrip, out.HostKeys = 23410*time.Microsecond, []string{out.HostKey}
	out.History = []nmsproto.Record{
		record(0, nmsproto.EventUp, "", "SSH-2.0-OpenSSH_9.6", 1),
		record(9*time.Minute, nmsproto.EventRefused, "login failed: unable to authenticate, no supported methods remain", "SSH-2.0-OpenSSH_9.6", 6),
		record(16*time.Minute, nmsproto.EventDown, "the device closed the connection", old, 1),
		record(27*time.Hour, nmsproto.EventUp, "", old, 1),
		record(27*time.Hour+time.Minute, nmsproto.EventDown, "no answer to a keepalive within 15s", old, 1),
		record(80*time.Hour, nmsproto.EventUp, "", old, 1),
	}
	out.SessionLog = []nmsproto.SessionRecord{
		{Begin: since.Add(3 * time.Minute), End: since.Add(4 * time.Minute), Sent: 1841, Received: 48_311},
		{Begin: since.Add(time.Minute), End: since.Add(61 * time.Second), Sent: 902, Received: 5120},
	}
	return out, nil
}

func (s *scene) Subscribe() ([]nmsproto.Event, <-chan nmsproto.Event, func()) {
	return s.events, make(chan nmsproto.Event), func() {}
}

// Connect is the NETCONF server of every device.
func (s *scene) Connect(_ context.Context, _ string, sock nms.Duplex) (nmsproto.ConnectResult, error) {
	defer sock.Close()
	answer(sock)
	return nmsproto.ConnectResult{}, nil
}

// serve serves the scene's API, and returns its socket.
func (s *scene) serve(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	access := rpc.Access{Full: []uint32{uint32(os.Getgid())}}
	go func() { _ = control.NewServer(s, access, hclog.NewNullLogger()).Serve(l) }()
	t.Cleanup(func() { l.Close() })
	return path
}

// look is how a browser shows a page.
type look struct {
	name   string
	width  int64
	height int64
	dark   bool
}

var looks = []look{{"light", 1180, 700, false}, {"dark", 1180, 700, true}, {"narrow", 390, 780, false}}

func (b *browser) as(l look) {
	b.t.Helper()
	scheme := "light"
	if l.dark {
		scheme = "dark"
	}
	b.do(chromedp.EmulateViewport(l.width, l.height))
	if _, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}}); err != nil {
		b.t.Fatal(err)
	}
}

// picturesEnv names the directory that the pictures of the documents are written to.
const picturesEnv = "CALLHOME_PICTURES"

// Each page, light, dark and on a narrow screen, has no fault that axe finds; with
// CALLHOME_PICTURES=docs/pictures the test makes the pictures of docs/web.md.
func TestThePagesAreAccessible(t *testing.T) {
	axe, reason := axeSource(t)
	s := newScene()
	device := s.list.Devices[21].ID
	st := &station{t: t, socket: s.serve(t)}
	link := st.page()
	b := newBrowser(t)
	b.open(link)
	b.await("Stations", true)
	type show struct {
		name, path, first string // first: text that must be there
		act               func() // after the page is loaded
	}
	pages := []show{
		{"overview", "/", "Last events", nil},
		{"devices", "/devices", "1–100 of 480 devices", nil},
		{"search", "/devices?q=vienna+9.6&state=connected&sort=since", "that match", nil},
		{"unknown", "/unknown", "Refuse…", nil},
		{"adopt", "/unknown/adopt?key=" + strings.ReplaceAll(s.list.Unknown[0].HostKey, "+", "%2B"), "Fingerprint, as the device", nil},
		{"device", "/devices/" + device, "History", nil},
		{"configuration", "/devices/" + device, "History", func() {
			b.do(click(`button[value="config"]`))
			b.await("uplink", true)
		}},
		{"failed", "/nothing", "There is no such page.", nil},
		{"refused", "/login?link=x", "This link was used", nil},
	}
	for _, l := range looks {
		b.as(l)
		for _, p := range pages {
			b.open(root(link) + p.path)
			b.await(p.first, true)
			if p.act != nil {
				p.act()
			}
			if width := evaluate[int64](b, `document.documentElement.scrollWidth`); width > l.width {
				t.Errorf("%s, %s: the page is %d pixels wide", p.name, l.name, width)
			}
			b.picture(l, p.name)
			if axe == "" {
				continue
			}
			evaluate[chromedp.Void](b, axe)
			for _, fault := range evaluate[[]string](b, `axe.run().then(r => r.violations.map(v => v.id + ": " + v.help + ": " + v.nodes.map(n => n.html.slice(0, 200)).join(" | ")))`) {
				t.Errorf("%s, %s: %s", p.name, l.name, fault)
			}
		}
	}
	if axe == "" {
		skips.Story(t, reason)
	}
}

// picture writes a picture of the window for the documents.
func (b *browser) picture(l look, page string) {
	b.t.Helper()
	dir := os.Getenv(picturesEnv)
	wanted := map[string]string{"overview light": "overview", "devices light": "devices", "unknown light": "unknown", "adopt light": "adopt", "device dark": "device", "configuration light": "configuration", "overview narrow": "narrow"}
	name := wanted[page+" "+l.name]
	if name == "" && dir != "all" {
		return
	}
	switch {
	case dir == "":
		return
	case dir == "all": // every page, for one who works on them
		dir, name = os.TempDir(), "callhome-web-"+page+"-"+l.name
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), small(b.t, run(b, chromedp.CaptureScreenshot())), 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// small returns a picture with its 255 most frequent colours, in a third of the bytes.
func small(t *testing.T, data []byte) []byte {
	t.Helper()
	full, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	area := full.Bounds()
	times := make(map[color.Color]int)
	for y := area.Min.Y; y < area.Max.Y; y++ {
		for x := area.Min.X; x < area.Max.X; x++ {
			times[full.At(x, y)]++
		}
	}
	colours := slices.SortedFunc(maps.Keys(times), func(a, b color.Color) int { return times[b] - times[a] })
	out := image.NewPaletted(area, colours[:min(len(colours), 255)])
	draw.Draw(out, area, full, area.Min, draw.Src)
	var b bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&b, out); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// axeVersion is of axe-core, which finds faults of accessibility.
const axeVersion = "4.14.1"

// axeSource fetches axe from npm, or returns why it cannot.
func axeSource(t *testing.T) (source, reason string) {
	t.Helper()
	if _, err := exec.LookPath("npm"); err != nil {
		return "", "accessibility was not checked: no npm on this machine"
	}
	dir := t.TempDir()
	pack := exec.Command("npm", "pack", "--silent", "axe-core@"+axeVersion)
	pack.Dir = dir
	out, err := pack.CombinedOutput()
	if err != nil {
		return "", fmt.Sprintf("accessibility was not checked: npm pack axe-core: %v: %.200s", err, out)
	}
	unpack := exec.Command("tar", "-xzf", strings.TrimSpace(string(out)), "package/axe.min.js")
	unpack.Dir = dir
	if out, err := unpack.CombinedOutput(); err != nil {
		t.Fatalf("unpacking axe-core: %v: %s", err, out)
	}
	text, err := os.ReadFile(filepath.Join(dir, "package", "axe.min.js"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text), ""
}
