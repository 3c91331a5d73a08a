package web

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"callhome/internal/nms/control"
	"callhome/internal/nms/netconf"
	"callhome/internal/nms/nmsproto"
)

// Limits of a NETCONF session. A device chooses the length of its messages.
const (
	maxAsked    = 4 // at a time
	netconfTime = 30 * time.Second
	closeTime   = 2 * time.Second
	maxReply    = 4 << 20
	maxShown    = 1 << 20 // bytes of a reply on the page
)

// change is a record with what differs from the one before.
type change struct {
	nmsproto.Record
	NewKey, NewSoftware bool
}

// question is what the form asks of a device.
type question struct {
	Datastore string
	Filter    string // the elements of a subtree filter
	Config    bool   // ask for the configuration, not only for the capabilities
}

// answer is what the device answered.
type answer struct {
	question
	Capabilities []string
	XML          string
	Cut          bool     // XML is a part of the reply
	Errors       []string // of the reply
	Problem      string   // what failed
	Took         time.Duration
}

func (s *Server) device(w http.ResponseWriter, r *http.Request, u *user) {
	s.showDevice(w, r, u, nil)
}

func (s *Server) showDevice(w http.ResponseWriter, r *http.Request, u *user, a *answer) {
	var d nmsproto.DeviceDetail
	if err := s.call(r.Context(), nmsproto.MethodDevice, nmsproto.DeviceParams{Device: r.PathValue("id")}, &d); err != nil {
		s.failed(w, u, statusOf(err), err)
		return
	}
	s.show(w, r, view{Title: d.ID, Active: "/devices", User: u, Part: "/devices/" + url.PathEscape(d.ID), Notice: done[r.URL.Query().Get("done")],
		Live: deviceFacts(u.fleet, d), After: section("ask", "NETCONF", asking(u, d.ID, a), a.node())})
}

func deviceFacts(f *snapshot, d nmsproto.DeviceDetail) node {
	var begun, lastError, roundTrip, keys, cas node
	if d.Since != nil {
		begun = list{moment(*d.Since), plain(", " + since(*d.Since))}
	}
	if d.LastError != "" {
		lastError = el("span", class("error"), plain(d.LastError+", "+ago(timeOf(d.ErrorTime))))
	}
	if d.RoundTrip > 0 {
		roundTrip = plain(trip(d.RoundTrip) + ", of the last keepalive")
	}
	for _, list := range []struct {
		to   *node
		from []string
	}{{&keys, d.HostKeys}, {&cas, d.CAs}} {
		if len(list.from) > 0 {
			*list.to = each(list.from, func(k string) node { return el("div", code(k)) })
		}
	}
	address, state := "Last address", stateName(d.State)+" since"
	if d.State == nmsproto.Connected {
		address = "Address"
	}
	return list{
		trouble(f), el("p", class("crumb"), link("/devices", "Devices")), el("h1", plain(d.ID+" "), stateMark(d.State)),
		facts(
			fact{state, begun}, fact{"Station", ifText(d.Station)}, fact{address, ifText(d.Address)}, fact{"Software", ifText(d.Software)},
			fact{"Host key shown", ifCode(d.HostKey)}, fact{"Certificate", ifText(d.Certificate)}, fact{"Registered keys", keys}, fact{"Registered CAs", cas},
			fact{"Logged in as", ifText(d.User)}, fact{"Round trip", roundTrip}, fact{"Sessions", plain(strconv.Itoa(d.Sessions) + " open")},
			fact{"Logins", plain(number(d.Calls) + " since the station's start")}, fact{"Labels", ifLabels(d.Labels)}, fact{"Last error", lastError},
		),
		historyOf(d), sessionsOf(d.SessionLog),
	}
}

func ifCode(text string) node {
	if text == "" {
		return nil
	}
	return code(text)
}

func ifLabels(l map[string]string) node {
	if len(l) == 0 {
		return nil
	}
	return labelList(l)
}

func historyOf(d nmsproto.DeviceDetail) node {
	missing := when(d.HistoryError != "", el("p", class("notice"), plain("The history at station "+d.Station+" is missing: "+d.HistoryError)))
	if len(d.History) == 0 {
		return section("history", "History", missing, when(missing == nil, empty("Nothing has happened since the station's start.")))
	}
	changed := func(is bool) node { return when(is, el("strong", class("new"), plain(" changed"))) }
	var rows list
	for _, c := range changes(d.History) {
		var times node
		if c.Times > 1 {
			times = note(fmt.Sprintf("%d times since %s", c.Times, date(c.First)))
		}
		rows = append(rows, el("tr", el("td", class("time"), moment(c.Time)), el("td", plain(eventName(c.Event)), times), cell("", c.Address), cell("wide", c.Cause),
			el("td", plain(strings.TrimPrefix(c.Software, sshPrefix)), changed(c.NewSoftware)), el("td", code(short(c.HostKey)), changed(c.NewKey))))
	}
	return section("history", "History", missing, table("", "history", []column{{name: "Time"}, {name: "Event"}, {name: "From"}, {name: "Cause", class: "wide"}, {name: "Software"}, {name: "Host key"}}, rows))
}

func sessionsOf(all []nmsproto.SessionRecord) node {
	if len(all) == 0 {
		return nil
	}
	var rows list
	for _, r := range all {
		rows = append(rows, el("tr", el("td", class("time"), moment(r.Begin)), cell("time", age(r.End.Sub(r.Begin))), cell("n", byteCount(r.Sent)), cell("n", byteCount(r.Received)), cell("wide", r.Error)))
	}
	return section("sessions", "Last sessions", table("", "sessions", []column{{name: "Begin"}, {name: "Length"}, {name: "To the device", class: "n"}, {name: "From the device", class: "n"}, {name: "Error", class: "wide"}}, rows))
}

// asking is the form that asks a device's NETCONF server.
func asking(u *user, device string, a *answer) node {
	if !u.May {
		return empty("Sessions with devices need more than the right to read.")
	}
	var q question
	if a != nil {
		q = a.question
	}
	var options list
	for _, d := range datastores {
		options = append(options, el("option", when(d == q.Datastore, attr("selected", "selected")), plain(d)))
	}
	return el("form", class("form"), attr("method", "post"), attr("action", "/devices/"+url.PathEscape(device)+"/netconf#answer"), hidden(tokenField, u.Token),
		field("datastore", "Configuration", el("select", anchor("datastore"), attr("name", "datastore"), options)),
		field("filter", "Subtree filter (optional)", el("textarea", anchor("filter"), attr("name", "filter"), attr("rows", "3"), attr("spellcheck", "false"), aria("describedby", "filter-help"), plain("\n"+q.Filter)),
			el("p", anchor("filter-help"), class("help"), plain("Elements, such as "), code(`<interfaces xmlns="urn:ietf:params:xml:ns:yang:ietf-interfaces"/>`), plain(". Nothing is changed on the device."))),
		el("div", class("actions"), el("button", attr("name", "ask"), attr("value", "config"), plain("Show the configuration")), el("button", class("second"), attr("name", "ask"), attr("value", "capabilities"), plain("Show the capabilities"))))
}

// node is what a device answered; nil: it was not asked.
func (a *answer) node() node {
	if a == nil {
		return nil
	}
	out := list{anchor("answer"), attr("tabindex", "-1")}
	if a.Problem != "" {
		out = append(out, problem("Failed:", a.Problem))
	}
	if len(a.Capabilities) > 0 {
		title := "Capabilities"
		if a.Config {
			title = "Configuration " + a.Datastore
		}
		out = append(out, el("h3", plain(title), note("answered in "+trip(a.Took))))
	}
	for _, e := range a.Errors {
		out = append(out, problem("The device:", e))
	}
	if a.XML != "" {
		out = append(out, el("pre", class("xml"), attr("tabindex", "0"), attr("role", "region"), aria("label", "Reply of the device"), plain("\n"+a.XML)))
	}
	if a.Cut {
		out = append(out, el("p", class("notice"), plain("Only the first MiB of the reply is shown. Use a filter.")))
	}
	if len(a.Capabilities) > 0 {
		out = append(out, el("details", anchor("capabilities"), when(!a.Config, attr("open", "open")), el("summary", plain(count(len(a.Capabilities), "capability", "capabilities"))),
			el("ul", class("list"), each(a.Capabilities, func(c string) node { return el("li", code(c)) }))))
	}
	return el("div", out)
}

// changes marks the records, the newest first, that have another key or software than
// the one before.
func changes(records []nmsproto.Record) []change {
	out := make([]change, len(records))
	for i, r := range records {
		out[i].Record = r
		for _, before := range records[i+1:] {
			if before.HostKey != "" && r.HostKey != "" {
				out[i].NewKey = r.HostKey != before.HostKey
				out[i].NewSoftware = r.Software != before.Software
				break
			}
		}
	}
	return out
}

// netconf asks a device's NETCONF server for its capabilities, or for its configuration.
func (s *Server) netconf(w http.ResponseWriter, r *http.Request, u *user) {
	a := &answer{question: question{r.PostFormValue("datastore"), r.PostFormValue("filter"), r.PostFormValue("ask") == "config"}}
	request, err := a.request()
	if err == nil {
		err = s.ask(r.Context(), r.PathValue("id"), request, a)
	}
	action := "capabilities"
	if a.Config {
		action = "get-config"
	}
	s.log(u, action, err, "device", r.PathValue("id"))
	if err != nil {
		a.Problem = sentence(err)
	}
	s.showDevice(w, r, u, a)
}

// datastores are the configurations that can be read.
var datastores = []string{"running", "candidate", "startup"}

// request returns the operation, "" for the capabilities alone. It reads only: the
// filter is whole elements, so it cannot end the operation and begin another one.
func (q question) request() (string, error) {
	if !q.Config {
		return "", nil
	}
	if !slices.Contains(datastores, q.Datastore) {
		return "", fmt.Errorf("%.40q is not a configuration: expected running, candidate or startup", q.Datastore)
	}
	filter := ""
	if strings.TrimSpace(q.Filter) != "" {
		content, _, err := netconf.Content([]byte(q.Filter))
		if err != nil {
			return "", fmt.Errorf("the filter is not whole XML elements: %w", err)
		}
		filter = `<filter type="subtree">` + string(content) + "</filter>"
	}
	return "<get-config><source><" + q.Datastore + "/></source>" + filter + "</get-config>", nil
}

var errAsking = errors.New("other requests to devices are under way; retry when they have ended")

// ask opens a NETCONF session through the daemon, and sends a request.
func (s *Server) ask(ctx context.Context, device, request string, a *answer) error {
	select {
	case s.devices <- struct{}{}:
		defer func() { <-s.devices }()
	default:
		return errAsking
	}
	begun := time.Now()
	ctx, cancel := context.WithTimeout(ctx, netconfTime)
	defer cancel()
	stream, err := control.Open(ctx, s.options.Socket, device)
	if err != nil {
		return err
	}
	session, err := netconf.Open(ctx, &explained{stream}, netconf.Options{MaxMessage: maxReply})
	if err != nil {
		return err
	}
	defer session.Close()
	a.Capabilities = session.Capabilities
	if request != "" {
		reply, err := session.Do(ctx, []byte(request))
		if err != nil {
			return err
		}
		a.take(reply)
	}
	a.Took = time.Since(begun)
	ending, done := context.WithTimeout(ctx, closeTime)
	defer done()
	_, _ = session.Do(ending, []byte("<close-session/>")) // Close follows
	return nil
}

// take takes a reply for the page.
func (a *answer) take(reply *netconf.Reply) {
	for _, e := range reply.Errors {
		a.Errors = append(a.Errors, e.Error())
	}
	var out bounded
	_ = netconf.Pretty(&out, reply.Raw) // text that is not XML is shown as it came
	a.XML, a.Cut = strings.ToValidUTF8(out.String(), "\ufffd"), out.cut
}

// bounded keeps the first maxShown bytes.
type bounded struct {
	bytes.Buffer
	cut bool
}

// Write implements io.Writer.
func (b *bounded) Write(p []byte) (int, error) {
	if left := maxShown - b.Len(); len(p) > left {
		b.cut = true
		_, _ = b.Buffer.Write(p[:left]) // never fails
		return left, io.ErrShortWrite
	}
	return b.Buffer.Write(p)
}

// explained returns the daemon's reason at the end of a stream.
type explained struct{ *control.Stream }

// Read implements io.Reader.
func (e *explained) Read(p []byte) (int, error) {
	n, err := e.Stream.Read(p)
	if errors.Is(err, io.EOF) {
		if _, why := e.Wait(); why != nil {
			return n, why
		}
	}
	return n, err
}
