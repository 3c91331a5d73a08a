package web

import (
	"fmt"
	"net/http"
	"strings"

	"callhome/internal/nms/nmsproto"
)

// list is the page with the devices.
func (s *Server) list(w http.ResponseWriter, r *http.Request, u *user) {
	f := u.fleet.find(readQuery(r.URL.Query()))
	s.show(w, r, view{Title: "Devices", Active: "/devices", User: u, Part: r.URL.RequestURI(), Before: list{el("h1", plain("Devices")), filter(u.fleet, f.Query)}, Live: deviceList(u.fleet, f)})
}

// filter is the form that says which devices are listed.
func filter(f *snapshot, q query) node {
	choice := func(name, title, value string, values []string, show func(string) string) node {
		options := list{el("option", attr("value", ""), plain("any"))}
		for _, v := range values {
			options = append(options, el("option", attr("value", v), when(v == value, attr("selected", "selected")), plain(show(v))))
		}
		return field(name, title, el("select", anchor(name), attr("name", name), options))
	}
	version := func(s string) string { return strings.TrimPrefix(s, sshPrefix) }
	same := func(s string) string { return s }
	var states []string
	for _, s := range nmsproto.States {
		states = append(states, string(s))
	}
	var known list
	for _, l := range f.Labels {
		known = append(known, el("option", attr("value", l)))
	}
	return el("form", class("filter"), attr("method", "get"), attr("action", "/devices"), attr("role", "search"), aria("label", "Devices"),
		el("div", class("field grow"), el("label", attr("for", "q"), plain("Search")),
			el("input", anchor("q"), attr("type", "search"), attr("name", "q"), attr("value", q.Text), attr("placeholder", "id, address, label, software, key, error"), attr("autocomplete", "off"))),
		choice("state", "State", q.State, states, func(s string) string { return stateName(nmsproto.State(s)) }),
		field("label", "Label", el("input", anchor("label"), attr("name", "label"), attr("value", q.Label), attr("list", "labels"), attr("placeholder", "name[=value]"), attr("autocomplete", "off")), el("datalist", anchor("labels"), known)),
		choice("software", "Software", q.Software, f.Software, version),
		when(len(f.Stations) > 0, choice("station", "Station", q.Station, f.Stations, same)),
		when(q.Sort != "id", hidden("sort", q.Sort)), when(q.Down, hidden("order", "down")),
		el("div", class("field act"), el("button", plain("Show")), when(q.Filtered(), link("/devices", "Clear"))))
}

// field is a labelled part of a form.
func field(id, title string, children ...node) node {
	return el("div", class("field"), el("label", attr("for", id), plain(title)), list(children))
}

// sshPrefix begins each software version; the table leaves it out.
const sshPrefix = "SSH-2.0-"

// deviceList is the table of one page.
func deviceList(s *snapshot, f found) node {
	q := f.Query
	sum := "No device is registered."
	switch {
	case f.Total > 0 && q.Filtered():
		sum = fmt.Sprintf("%s–%s of %s that match", number(f.First), number(f.Last), count(f.Total, "device", "devices"))
	case f.Total > 0:
		sum = fmt.Sprintf("%s–%s of %s", number(f.First), number(f.Last), count(f.Total, "device", "devices"))
	case q.Filtered():
		sum = "No device matches."
	}
	out := list{trouble(s), el("p", class("sum"), attr("role", "status"), plain(sum))}
	if f.Total == 0 {
		return out
	}
	many := len(s.Stations) > 0
	var head list
	for _, c := range []struct{ key, name, class string }{
		{"id", "Device", ""}, {"state", "State", ""}, {"since", "For", ""}, {"address", "Address", "m"}, {"sessions", "Sessions", "n m"}, {"error", "Last error", "m"},
		{"software", "Software", "l"}, {"station", "Station", "m"}, {"", "Labels", "w"},
	} {
		switch order := q.sorted(c.key); {
		case c.key == "station" && !many:
		case c.key == "":
			head = append(head, el("th", attr("scope", "col"), class(c.class), plain(c.name)))
		default:
			head = append(head, el("th", attr("scope", "col"), class(c.class), when(order != "", aria("sort", order)), link(q.By(c.key).URL(), c.name)))
		}
	}
	var rows list
	for _, d := range f.Rows {
		lasts := ""
		if d.Since != nil {
			lasts = since(*d.Since)
		}
		rows = append(rows, el("tr", rowHead(deviceLink(d.ID)), el("td", stateMark(d.State)), cell("time", lasts), cell("m", d.Address), cell("n m", number(d.Sessions)), cell("m error", d.LastError), cell("l", strings.TrimPrefix(d.Software, sshPrefix)),
			when(many, cell("m", d.Station)), el("td", class("w"), labelList(d.Labels))))
	}
	out = append(out, el("div", class("scroll"), attr("tabindex", "0"), attr("role", "region"), aria("label", "Devices"), el("table", el("thead", el("tr", head)), el("tbody", rows))))
	if f.Pages > 1 {
		out = append(out, el("nav", class("pages"), aria("label", "Pages of the list"), turn(q, -1, f.Pages, "Previous"), el("span", plain(fmt.Sprintf("Page %d of %d", q.Page, f.Pages))), turn(q, 1, f.Pages, "Next")))
	}
	return out
}

// turn leads to another page of the list, if there is one.
func turn(q query, by, pages int, text string) node {
	if to := q.Page + by; to >= 1 && to <= pages {
		return link(q.On(to).URL(), text)
	}
	return el("span", class("off"), plain(text))
}
