package web

import (
	"net/url"
	"time"

	"callhome/internal/nms/nmsproto"
)

// Parts that several pages have.

func link(to, text string) node { return el("a", attr("href", to), plain(text)) }

// deviceLink leads to a device; it is nothing without one.
func deviceLink(id string) node {
	if id == "" {
		return nil
	}
	return link("/devices/"+url.PathEscape(id), id)
}

func note(text string) node { return el("span", class("note"), plain(" "+text)) }

func code(text string) node { return el("code", plain(text)) }

func problem(what, text string) node {
	return el("p", class("problem"), attr("role", "alert"), el("strong", plain(what)), plain(" "+text))
}

func empty(text string) node { return el("p", class("empty"), plain(text)) }

// form is a form that changes something; it has the session's token.
func form(u *user, action string, children ...node) node {
	return el("form", attr("method", "post"), attr("action", action), hidden(tokenField, u.Token), list(children))
}

func hidden(name, value string) node {
	return el("input", attr("type", "hidden"), attr("name", name), attr("value", value))
}

// section is a part of a page with a heading.
func section(id, title string, children ...node) node {
	return el("section", el("h2", anchor(id), plain(title)), list(children))
}

// mark is a sign with a name: a state is not shown by its colour alone.
func mark(kind, sign, name string) node {
	return el("span", class("state "+kind), el("span", aria("hidden", "true"), plain(sign)), plain(" "+name))
}

func stateMark(s nmsproto.State) node { return mark(string(s), marks[s], stateName(s)) }

func moment(t time.Time) node {
	return el("time", attr("datetime", t.UTC().Format(time.RFC3339)), plain(date(t)))
}

func labelList(l map[string]string) node {
	var out list
	for _, text := range labels(l) {
		out = append(out, el("span", class("label"), plain(text)), plain(" "))
	}
	return out
}

// facts is a list of names and values, without those that have none.
func facts(all ...fact) node {
	var out list
	for _, f := range all {
		if f.value != nil {
			out = append(out, el("dt", plain(f.name)), el("dd", f.value))
		}
	}
	return el("dl", class("facts"), out)
}

type fact struct {
	name  string
	value node // nil: left out
}

// ifText is a text node, nil for no text.
func ifText(text string) node {
	if text == "" {
		return nil
	}
	return plain(text)
}

// column is a column of a table.
type column struct {
	name  string
	class string
	order node // nil, or what sorts by it
}

// table is a table that can be scrolled; its region is named by label, or by the
// element that labelled names.
func table(label, labelled string, columns []column, rows list) node {
	var head list
	for _, c := range columns {
		content := c.order
		if content == nil {
			content = plain(c.name)
		}
		head = append(head, el("th", attr("scope", "col"), class(c.class), content))
	}
	name := aria("labelledby", labelled)
	if labelled == "" {
		name = aria("label", label)
	}
	return el("div", class("scroll"), attr("tabindex", "0"), attr("role", "region"), name, el("table", el("thead", el("tr", head)), el("tbody", rows)))
}

func rowHead(n node) node { return el("th", attr("scope", "row"), n) }

func cell(name, text string) node { return el("td", class(name), plain(text)) }
