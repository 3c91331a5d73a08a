package web

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"callhome/internal/nms/control"
	"callhome/internal/nms/nmsproto"
)

// adoption is the form that registers an unknown device.
type adoption struct {
	Device      nmsproto.Unknown
	Fingerprint string // as it was typed
	ID, User    string
	Labels      string // NAME=VALUE, one in a line
}

// done are the sentences about what was done, by the parameter that leads to them.
var done = map[string]string{
	"adopted": "The device is registered. Its next call home is accepted.",
	"refused": "The host key is revoked. Calls with it are refused.",
	"forgot":  "The unknown device is off the list. If it calls again, it is back on it.",
}

func (s *Server) unknown(w http.ResponseWriter, r *http.Request, u *user) {
	s.show(w, r, view{Title: "Unknown devices", Active: "/unknown", User: u, Part: "/unknown", Notice: done[r.URL.Query().Get("done")], Live: unknown(u)})
}

func unknown(u *user) node {
	out := list{
		el("h1", plain("Unknown devices")), trouble(u.fleet),
		el("p", plain("These devices called home with a host key that no device of the registry has. Compare the fingerprint with the device's own before you adopt it. On the device: "), code(keygen)),
	}
	if len(u.fleet.Unknown) == 0 {
		return append(out, empty("No unknown device has called."))
	}
	for _, d := range u.fleet.Unknown {
		out = append(out, el("article", class("card"), aria("labelledby", "k-"+d.HostKey),
			el("h2", anchor("k-"+d.HostKey), class("key"), plain(d.HostKey)), called(d), when(u.May, decisions(u, d))))
	}
	return out
}

const keygen = "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub"

// called is what the calls of an unknown device were like.
func called(d nmsproto.Unknown) node {
	at := func(t time.Time) node { return list{moment(t), plain(", " + ago(t))} }
	var pause node
	if d.Pause > 0 {
		pause = plain(age(d.Pause) + " between the last two")
	}
	return facts(fact{"Address", plain(d.Address)}, fact{"Software", ifText(d.Software)}, fact{"Certificate", ifText(d.Certificate)}, fact{"Station", ifText(d.Station)}, fact{"Calls", plain(number(d.Calls))}, fact{"First call", at(d.First)}, fact{"Last call", at(d.Last)}, fact{"Pause", pause})
}

// decisions are what an operator can do with an unknown device.
func decisions(u *user, d nmsproto.Unknown) node {
	key := d.HostKey
	decide := func(action, title, text, button, kind string) node {
		return el("details", anchor(action+"-"+key), el("summary", plain(title)), form(u, "/unknown/"+action, hidden("key", key), el("p", plain(text)), el("button", class(kind), plain(button))))
	}
	return el("div", class("actions"),
		el("a", class("button"), attr("href", "/unknown/adopt?"+url.Values{"key": {key}}.Encode()), plain("Adopt…")),
		decide("refuse", "Refuse…", "Revokes the host key. Every call with it is refused until an administrator undoes it with callhome-nms devices unrevoke.", "Refuse this host key", "danger"),
		// Each station has its own list.
		when(d.Station == u.fleet.Status.Station, decide("forget", "Forget…", "Takes it off this list. If it calls again, it is back on it.", "Forget these calls", "")))
}

// unknownOf returns the unknown device with that host key.
func (s *snapshot) unknownOf(hostKey string) (nmsproto.Unknown, bool) {
	for _, d := range s.Unknown {
		if d.HostKey == hostKey {
			return d, true
		}
	}
	return nmsproto.Unknown{}, false
}

var errNotUnknown = errors.New("no unknown device has called with this host key, or it is registered by now")

func (s *Server) adoptForm(w http.ResponseWriter, r *http.Request, u *user) {
	d, ok := u.fleet.unknownOf(r.URL.Query().Get("key"))
	if !ok {
		s.failed(w, u, http.StatusNotFound, errNotUnknown)
		return
	}
	s.showAdoption(w, u, http.StatusOK, adoption{Device: d}, nil)
}

func (s *Server) showAdoption(w http.ResponseWriter, u *user, status int, a adoption, err error) {
	v := view{Title: "Adopt a device", Active: "/unknown", User: u, Before: a.node(u)}
	if err != nil {
		v.Problem = sentence(err)
	}
	render(w, status, document(v))
}

// node is the form. It shows only the end of the fingerprint: the whole one is to come
// from the device.
func (a adoption) node(u *user) node {
	input := func(id, title, value string, help node, more ...node) node {
		return el("div", class("field"), el("label", attr("for", id), plain(title)),
			el("input", anchor(id), attr("name", id), attr("value", value), attr("autocomplete", "off"), attr("autocapitalize", "off"), attr("spellcheck", "false"), when(help != nil, aria("describedby", id+"-help")), list(more)),
			when(help != nil, el("p", anchor(id+"-help"), class("help"), help)))
	}
	return list{
		el("h1", plain("Adopt a device")), called(a.Device),
		el("p", plain("Its host key ends with "), code(tail(a.Device.HostKey)), plain(". At its next call the station logs in to it.")),
		el("form", class("form"), attr("method", "post"), attr("action", "/unknown/adopt"), hidden(tokenField, u.Token), hidden("key", a.Device.HostKey),
			input("fingerprint", "Fingerprint, as the device itself shows it", a.Fingerprint, list{plain("On the device, at its console: "), code(keygen), plain(". Type or paste the line, or its part from SHA256: on.")}, attr("required", "required")),
			input("id", "ID", a.ID, plain("1 to 64 letters, digits, '.', '-', '_'"), attr("required", "required"), attr("maxlength", "64")),
			input("user", "User that the station logs in as (optional)", a.User, nil),
			el("div", class("field"), el("label", attr("for", "labels"), plain("Labels (optional)")), el("textarea", anchor("labels"), attr("name", "labels"), attr("rows", "3"), attr("spellcheck", "false"), aria("describedby", "labels-help"), plain("\n"+a.Labels)),
				el("p", anchor("labels-help"), class("help"), plain("NAME=VALUE, one in a line"))),
			el("div", class("actions"), el("button", plain("Adopt the device")), link("/unknown", "Cancel"))),
	}
}

// adopt registers an unknown device. The fingerprint of the device itself must be
// typed or pasted; the daemon checks all else, as for the command.
func (s *Server) adopt(w http.ResponseWriter, r *http.Request, u *user) {
	key := r.PostFormValue("key")
	d, ok := u.fleet.unknownOf(key)
	if !ok {
		s.failed(w, u, http.StatusNotFound, errNotUnknown)
		return
	}
	a := adoption{d, r.PostFormValue("fingerprint"), strings.TrimSpace(r.PostFormValue("id")), strings.TrimSpace(r.PostFormValue("user")), r.PostFormValue("labels")}
	p := nmsproto.AdoptParams{HostKey: key, ID: a.ID, User: a.User}
	var err error
	if !sameFingerprint(a.Fingerprint, key) {
		err = errors.New("the fingerprint is not that of this host key: the device that called is another one, or the fingerprint is incomplete")
	}
	if err == nil {
		p.Labels, err = readLabels(a.Labels)
	}
	status := http.StatusUnprocessableEntity
	if err == nil {
		if err = s.call(r.Context(), nmsproto.MethodAdopt, p, nil); err != nil {
			status = statusOf(err)
		}
	}
	s.log(u, "adopt", err, "device", p.ID, "host-key", key)
	if err != nil {
		s.showAdoption(w, u, status, a, err)
		return
	}
	s.lead(w, r, "/devices/"+url.PathEscape(p.ID)+"?done=adopted")
}

func (s *Server) refuse(w http.ResponseWriter, r *http.Request, u *user) {
	s.withdraw(w, r, u, "refuse", "refused", nmsproto.MethodRevoke, func(key string) any { return nmsproto.RevokeParams{Key: key} })
}

func (s *Server) forget(w http.ResponseWriter, r *http.Request, u *user) {
	s.withdraw(w, r, u, "forget", "forgot", nmsproto.MethodForget, func(key string) any { return nmsproto.ForgetParams{HostKey: key} })
}

// withdraw calls a method with the host key of an unknown device.
func (s *Server) withdraw(w http.ResponseWriter, r *http.Request, u *user, action, notice, method string, params func(key string) any) {
	key := r.PostFormValue("key")
	// The daemon takes a device's id, too, and the key of a device that another operator
	// has adopted since.
	if _, ok := s.fleet.fresh(r.Context()).unknownOf(key); !ok {
		s.failed(w, u, http.StatusNotFound, errNotUnknown)
		return
	}
	err := s.call(r.Context(), method, params(key), nil)
	s.log(u, action, err, "host-key", key)
	if err != nil {
		s.failed(w, u, statusOf(err), err)
		return
	}
	s.lead(w, r, "/unknown?done="+notice)
}

// lead leads to a page that shows what has changed.
func (s *Server) lead(w http.ResponseWriter, r *http.Request, to string) {
	s.fleet.fresh(r.Context())
	http.Redirect(w, r, to, http.StatusSeeOther)
}

// call calls a method of the daemon.
func (s *Server) call(ctx context.Context, method string, params, result any) error {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	c, err := control.Dial(s.options.Socket)
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Call(ctx, method, params, result)
}

const fingerprintPrefix = "SHA256:"

// sameFingerprint reports whether a text has that fingerprint: alone, or in a line of
// `ssh-keygen -l`.
func sameFingerprint(text, fingerprint string) bool {
	words := strings.Fields(text)
	if len(words) == 1 && !strings.HasPrefix(words[0], fingerprintPrefix) {
		words[0] = fingerprintPrefix + words[0]
	}
	var found []string
	for _, w := range words {
		if strings.HasPrefix(w, fingerprintPrefix) {
			found = append(found, w)
		}
	}
	return len(found) == 1 && found[0] == fingerprint
}

// readLabels reads NAME=VALUE, one in a line.
func readLabels(text string) (map[string]string, error) {
	out := make(map[string]string)
	for l := range strings.Lines(text) {
		if l = strings.TrimSpace(l); l == "" {
			continue
		}
		name, value, ok := strings.Cut(l, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("label %.80q: expected NAME=VALUE", l)
		}
		out[name] = value
	}
	return out, nil
}
