package web

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"sync"

	"callhome/internal/proto"
)

//go:embed assets
var assets embed.FS

// types are the files below static.
var types = map[string]string{"style.css": "text/css; charset=utf-8", "script.js": "text/javascript; charset=utf-8", "icon.svg": "image/svg+xml"}

// staticPath is the path of these files. It names their content, so that browsers may
// keep them.
var staticPath = sync.OnceValue(func() string {
	sum := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(types)) {
		text, _ := assets.ReadFile("assets/" + name) // it is embedded
		sum.Write(text)
	}
	return "/static/" + hex.EncodeToString(sum.Sum(nil)[:8]) + "/"
})

// view is a page.
type view struct {
	Title   string
	Active  string // the path of its item in the navigation
	User    *user  // nil: not logged in
	Notice  string // what was done
	Problem string // what failed
	Lead    bool   // to the overview, at once
	// Before and After are the content around Live, which the script loads again from
	// Part when the fleet changes.
	Before, Live, After node
	Part                string
}

// render answers with a page.
func render(w http.ResponseWriter, status int, n node) {
	var out bytes.Buffer
	n.write(&out)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(out.Len()))
	w.WriteHeader(status)
	_, _ = w.Write(out.Bytes()) // the browser may have gone
}

// partHeader is that of the script's requests for the part of a page that can have
// changed.
const partHeader = "X-Part"

// unknownHeader has the number of unknown devices, for the navigation.
const unknownHeader = "X-Unknown"

// show answers with a page, or with its part for the script.
func (s *Server) show(w http.ResponseWriter, r *http.Request, v view) {
	w.Header().Set("Vary", partHeader)
	if v.Part != "" && r.Header.Get(partHeader) == "live" {
		w.Header().Set(unknownHeader, strconv.Itoa(len(v.User.fleet.Unknown)))
		render(w, http.StatusOK, v.Live)
		return
	}
	render(w, http.StatusOK, document(v))
}

// refused answers a request without a user.
func (s *Server) refused(w http.ResponseWriter, status int, why string) {
	title := "Not permitted"
	if status == http.StatusOK {
		title = "Logged out"
	}
	render(w, status, document(view{Title: title, Before: list{el("h1", plain(title)), el("p", plain(why))}}))
}

// failed answers a user's request that failed.
func (s *Server) failed(w http.ResponseWriter, u *user, status int, err error) {
	render(w, status, document(view{Title: "Failed", User: u, Problem: sentence(err), Before: list{el("h1", plain("Failed")), el("p", link("/", "Overview"))}}))
}

func (s *Server) notFound(w http.ResponseWriter, _ *http.Request, u *user) {
	s.failed(w, u, http.StatusNotFound, errors.New("there is no such page"))
}

func (s *Server) static(w http.ResponseWriter, r *http.Request) {
	kind := types[r.PathValue("name")]
	text, err := assets.ReadFile("assets/" + r.PathValue("name"))
	if kind == "" || err != nil {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	_, _ = w.Write(text) // the browser has gone
}

// statusOf is the HTTP status for an error of the daemon.
func statusOf(err error) int {
	var e *proto.Error
	if !errors.As(err, &e) {
		return http.StatusBadGateway
	}
	switch e.Code {
	case proto.CodeNoExists:
		return http.StatusNotFound
	case proto.CodeAccessDenied:
		return http.StatusForbidden
	case proto.CodeBadType:
		return http.StatusUnprocessableEntity
	}
	return http.StatusBadGateway
}

// document is the whole page.
func document(v view) node {
	return list{markup("<!doctype html>\n"), el("html", attr("lang", "en"),
		el("head",
			el("meta", attr("charset", "utf-8")),
			el("meta", attr("name", "viewport"), attr("content", "width=device-width, initial-scale=1")),
			el("meta", attr("name", "color-scheme"), attr("content", "light dark")),
			when(v.Lead, el("meta", attr("http-equiv", "refresh"), attr("content", "0;url=/"))),
			el("title", plain(v.title())),
			el("link", attr("rel", "icon"), attr("type", "image/svg+xml"), attr("href", staticPath()+"icon.svg")),
			el("link", attr("rel", "stylesheet"), attr("href", staticPath()+"style.css")),
			el("script", attr("src", staticPath()+"script.js"), attr("defer", "defer")),
		),
		el("body",
			el("a", class("skip"), attr("href", "#main"), plain("Skip to the content")),
			top(v),
			el("main", anchor("main"), attr("tabindex", "-1"),
				when(v.Notice != "", el("p", class("notice"), attr("role", "status"), attr("tabindex", "-1"), attr("autofocus", "autofocus"), plain(v.Notice))),
				when(v.Problem != "", el("div", class("focus"), attr("tabindex", "-1"), attr("autofocus", "autofocus"), problem("Failed:", v.Problem))),
				v.Before,
				when(v.Live != nil, el("div", anchor("live"), attr("data-part", v.Part), v.Live)),
				v.After,
			),
			foot(v),
		),
	)}
}

// title is that of the window. It names the station: a user can have the pages of several.
func (v view) title() string {
	out := v.Title
	if v.User != nil && v.User.fleet.Status.Station != "" {
		out += " – " + v.User.fleet.Status.Station
	}
	return out + " – callhome-nms"
}

func top(v view) node {
	items := list{
		el("a", class("brand"), attr("href", "/"), markup(logo), plain("callhome-nms")),
	}
	u := v.User
	if u == nil {
		return el("header", class("top"), items)
	}
	var nav list
	for _, n := range []struct {
		path, name string
		count      int // -1: none
	}{{"/", "Overview", -1}, {"/devices", "Devices", -1}, {"/unknown", "Unknown", len(u.fleet.Unknown)}} {
		nav = append(nav, el("a", attr("href", n.path), when(v.Active == n.path, aria("current", "page")), plain(n.name),
			when(n.count >= 0, plain(" ")), when(n.count >= 0, el("span", anchor("unknown-count"), class("count"), when(n.count == 0, attr("hidden", "hidden")), plain(strconv.Itoa(n.count))))))
	}
	return el("header", class("top"), items, el("nav", aria("label", "Pages"), nav),
		el("div", class("user"),
			el("span", class("name"), plain(u.Name), when(!u.May, note("may only read"))),
			when(u.Link, form(u, "/logout", el("button", class("plain"), plain("Log out"))))))
}

const logo = `<svg viewBox="0 0 32 32" width="22" height="22" aria-hidden="true"><path class="logo" d="M6 26V14l10-8 10 8v12h-7v-7h-6v7z"/></svg>`

func foot(v view) node {
	if v.User == nil {
		return nil
	}
	status := v.User.fleet.Status
	text := "All times are UTC. callhome-nms serve " + status.Version
	if status.Station != "" {
		text += ", station " + status.Station
	}
	return el("footer",
		el("span", anchor("stream"), attr("role", "status"), attr("data-off", "Not live: load the page again for the present state."),
			when(v.Part != "", plain("As of the time when the page was loaded."))),
		el("span", plain(text)))
}

// trouble is what the copy of the fleet lacks.
func trouble(f *snapshot) node {
	var out list
	if f.Err != nil {
		text := sentence(f.Err)
		if !f.At.IsZero() {
			text += " The page shows what was known at " + clock(f.At) + "."
		}
		out = append(out, problem("The daemon does not answer:", text))
	}
	if f.Status.ClusterError != "" {
		out = append(out, problem("The cluster cannot be reached:", f.Status.ClusterError))
	}
	return out
}
