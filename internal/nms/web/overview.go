package web

import (
	"fmt"
	"net/http"
	"strconv"
	"time"

	"callhome/internal/nms/nmsproto"
)

// How much the overview lists.
const (
	overviewLost   = 10
	overviewEvents = 15
	quarter        = 15 * time.Minute
)

// overview is the first page.
func (s *Server) overview(w http.ResponseWriter, r *http.Request, u *user) {
	s.show(w, r, view{Title: "Overview", Active: "/", User: u, Part: r.URL.RequestURI(), Live: overview(u.fleet)})
}

func overview(f *snapshot) node {
	hour := newChart("hour", "Last hour, by minute", f.History.Minutes, f.History.End, time.Minute, 10*time.Minute)
	day := newChart("day", "Last day, by quarter of an hour", f.History.Quarters, f.History.End.Add(quarter-1).Truncate(quarter), quarter, 4*time.Hour)
	at := "" // what the cluster does not share
	if f.Status.Station != "" {
		at = " at " + f.Status.Station
	}
	var tiles list
	for _, state := range []nmsproto.State{nmsproto.Connected, nmsproto.Lost, nmsproto.NeverSeen} {
		tiles = append(tiles, tile(string(state), query{State: string(state), Sort: "id"}.URL(), marks[state], stateName(state), f.Status.Devices[state]))
	}
	tiles = append(tiles, tile("unknown", "/unknown", "?", "unknown", len(f.Unknown)), tile("refused", "#events", "✕", "calls refused"+at+", last hour", hour.Refused))
	return list{
		el("h1", plain("Overview")), trouble(f),
		el("ul", class("tiles"), tiles),
		section("lines", "Logins and losses"+at,
			el("p", class("legend"), el("span", class("key logins")), plain(" logins, above the line"), el("span", class("key losses")), plain(" losses, below the line")),
			el("div", class("charts"), hour.node(), day.node())),
		stations(f.Status.Stations), longestLost(f), lastEvents(f, at), problems(f.Problems),
	}
}

// tile is a number that leads to a list.
func tile(kind, to, sign, name string, n int) node {
	return el("li", el("a", class("tile "+kind), attr("href", to), el("span", class("figure"), plain(number(n))), plain(" "),
		el("span", class("what"), el("span", aria("hidden", "true"), plain(sign)), plain(" "+name))))
}

func stations(all []nmsproto.Station) node {
	if len(all) == 0 {
		return nil
	}
	var rows list
	for _, s := range all {
		state := mark("lost", marks[nmsproto.Lost], "lost")
		if s.Alive {
			state = mark("connected", marks[nmsproto.Connected], "alive")
		}
		rows = append(rows, el("tr", rowHead(link(query{Station: s.Name, Sort: "id"}.URL(), s.Name)), el("td", state), cell("n", number(s.Connected)), cell("n", number(s.Sessions)),
			cell("n", number(s.Unauthenticated)), cell("", s.Address), cell("", s.Version), cell("", ago(s.Seen))))
	}
	return section("stations", "Stations", table("", "stations", []column{{name: "Station"}, {name: "State"}, {name: "Devices", class: "n"}, {name: "Sessions", class: "n"},
		{name: "Unauthenticated", class: "n"}, {name: "Address"}, {name: "Version"}, {name: "Last heartbeat"}}, rows))
}

func longestLost(f *snapshot) node {
	all := f.longestLost(overviewLost)
	if len(all) == 0 {
		return section("lost", "Lost devices", empty("No device is lost."))
	}
	var rows list
	for _, d := range all {
		rows = append(rows, el("tr", rowHead(deviceLink(d.ID)), cell("time", since(timeOf(d.Since))), cell("", d.Address), cell("wide", d.LastError)))
	}
	return section("lost", "Lost devices, the longest first", table("", "lost", []column{{name: "Device"}, {name: "For"}, {name: "Last address"}, {name: "Why", class: "wide"}}, rows),
		el("p", class("more"), link(query{State: string(nmsproto.Lost), Sort: "since"}.URL(), "All lost devices")))
}

func lastEvents(f *snapshot, at string) node {
	if len(f.Events) == 0 {
		return section("events", "Last events"+at, empty("No event yet."))
	}
	var rows list
	for _, e := range f.Events[:min(len(f.Events), overviewEvents)] {
		cause := e.Cause
		if e.Unsaid > 0 {
			cause += fmt.Sprintf(" (%d more before)", e.Unsaid)
		}
		rows = append(rows, el("tr", el("td", class("time"), moment(e.Time)), cell("time", eventName(e.Event)), el("td", deviceLink(e.Device)), cell("", e.Address), cell("wide", cause)))
	}
	return section("events", "Last events"+at, table("", "events", []column{{name: "Time"}, {name: "Event"}, {name: "Device"}, {name: "Address"}, {name: "Cause", class: "wide"}}, rows))
}

func problems(all []nmsproto.Problem) node {
	if len(all) == 0 {
		return nil
	}
	var list []fact
	for _, p := range all {
		list = append(list, fact{p.File, plain(p.Error)})
	}
	return section("problems", "Files of the registry that are not in force", facts(list...))
}

// node is the chart, with its numbers as a table.
func (c *chart) node() node {
	at := func(n int) string { return strconv.Itoa(n) }
	lines := list{
		el("line", class("axis"), attr("x1", at(chartMargin)), attr("x2", at(chartWidth)), attr("y1", at(chartHalf)), attr("y2", at(chartHalf))),
		el("text", class("tick end"), attr("x", at(chartMargin-6)), attr("y", "16"), plain(number(c.Most))),
		el("text", class("tick end"), attr("x", at(chartMargin-6)), attr("y", at(chartHalf+4)), plain("0")),
	}
	for _, b := range c.Bars {
		lines = append(lines, el("rect", class(b.Kind), attr("x", b.X), attr("y", b.Y), attr("width", b.Width), attr("height", b.Height), el("title", plain(b.Title))))
	}
	for _, m := range c.Marks {
		lines = append(lines, el("text", class("tick"), attr("x", m.X), attr("y", at(2*chartHalf+chartFoot-4)), plain(m.Text)))
	}
	var rows list
	for _, l := range c.Rows {
		rows = append(rows, el("tr", rowHead(plain(l.Time)), cell("n", number(l.Logins)), cell("n", number(l.Losses)), cell("n", number(l.Refused))))
	}
	numbers := empty("Nothing happened.")
	if len(rows) > 0 {
		numbers = el("div", class("low"), table(c.Title, "", []column{{name: "From"}, {name: "Logins", class: "n"}, {name: "Losses", class: "n"}, {name: "Calls refused", class: "n"}}, rows))
	}
	sum := fmt.Sprintf("%s: %s, %s", c.Title, count(c.Logins, "login", "logins"), count(c.Losses, "loss", "losses"))
	return el("figure", class("chart"), el("figcaption", plain(sum)),
		el("svg", attr("viewBox", fmt.Sprintf("0 0 %d %d", chartWidth, 2*chartHalf+chartFoot)), attr("role", "img"), aria("label", sum+". The numbers follow."), lines),
		el("details", anchor(c.ID+"-numbers"), el("summary", plain("The numbers")), numbers))
}
