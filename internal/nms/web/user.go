package web

import (
	"cmp"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"callhome/internal/nms/nmsproto"
	"callhome/internal/printable"
)

const (
	cookieName  = "callhome-nms"
	sessionTime = 12 * time.Hour
	maxSessions = 16 // at a time; the oldest ends
	maxName     = 128
	tokenField  = "token"
)

// user is the user who sent a request.
type user struct {
	Name  string
	May   bool              // change something, and open NETCONF sessions
	Token string            // that each form must send
	Link  bool              // logged in by a link, and can log out
	fleet *snapshot         // as it was when the request came
	key   [sha256.Size]byte // of the session's cookie
}

// users are the link, the browser sessions that links began, and the users whom a
// proxy names. Cookies and links are kept as hashes.
type users struct {
	options Options
	secret  []byte // of the tokens
	cookie  string // the name of the cookie

	mu       sync.Mutex // guards the fields that follow
	link     [sha256.Size]byte
	until    time.Time // of link; zero: there is none
	sessions map[[sha256.Size]byte]time.Time
}

func newUsers(o Options) *users {
	v := &users{options: o, secret: random(), sessions: make(map[[sha256.Size]byte]time.Time)}
	// Browsers share cookies between the ports of an address. With a name of its own the
	// page of another station, forwarded to another port, does not replace the cookie.
	v.cookie = cookieName + "-" + hex.EncodeToString(random()[:4])
	if v.secure() {
		v.cookie = "__Host-" + v.cookie
	}
	return v
}

func random() []byte {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails
	return b
}

// newLink returns the secret of a link that is valid once.
func (v *users) newLink(now time.Time) (secret string, until time.Time) {
	secret = base64.RawURLEncoding.EncodeToString(random())
	v.mu.Lock()
	defer v.mu.Unlock()
	v.link, v.until = sha256.Sum256([]byte(secret)), now.Add(v.options.LinkTime)
	return secret, v.until
}

// enter begins a session by a link, and returns its cookie; ok is false where the
// link is not valid.
func (v *users) enter(secret string, now time.Time) (cookie string, ok bool) {
	given := sha256.Sum256([]byte(secret))
	v.mu.Lock()
	defer v.mu.Unlock()
	if subtle.ConstantTimeCompare(given[:], v.link[:]) != 1 || !now.Before(v.until) {
		return "", false
	}
	v.until = time.Time{}
	v.expire(now)
	for len(v.sessions) >= maxSessions {
		var oldest [sha256.Size]byte
		first := time.Time{}
		for k, until := range v.sessions {
			if first.IsZero() || until.Before(first) {
				oldest, first = k, until
			}
		}
		delete(v.sessions, oldest)
	}
	cookie = base64.RawURLEncoding.EncodeToString(random())
	v.sessions[sha256.Sum256([]byte(cookie))] = now.Add(sessionTime)
	return cookie, true
}

// expire removes the sessions that are over. The caller holds mu.
func (v *users) expire(now time.Time) {
	for k, until := range v.sessions {
		if !now.Before(until) {
			delete(v.sessions, k)
		}
	}
}

// leave ends a session.
func (v *users) leave(u *user) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.sessions, u.key)
}

// valid reports whether a session goes on.
func (v *users) valid(u *user, now time.Time) bool {
	if v.options.Header != "" {
		return true
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.expire(now)
	_, ok := v.sessions[u.key]
	return ok
}

// of returns the user who sent a request, nil without a session or a name of the proxy.
func (v *users) of(r *http.Request, now time.Time) *user {
	if v.options.Header != "" {
		name := v.named(r)
		if name == "" {
			return nil
		}
		return &user{Name: name, May: slices.Contains(v.options.Operators, name), Token: v.token("user", name)}
	}
	for _, c := range r.CookiesNamed(v.cookie) {
		u := &user{Name: v.options.User, May: true, Link: true, key: sha256.Sum256([]byte(c.Value)), Token: v.token("session", c.Value)}
		if v.valid(u, now) {
			return u
		}
	}
	return nil
}

// named returns the user whom the proxy names, "" where it names none. A second header
// may be the browser's own. A name is compared as it is: net/http has removed spaces and
// tabs around it, and with other white space it is another user's.
func (v *users) named(r *http.Request) string {
	all := r.Header.Values(v.options.Header)
	if len(all) != 1 {
		return ""
	}
	name := all[0]
	if len(name) > maxName || strings.ContainsFunc(name, func(c rune) bool { return !unicode.IsPrint(c) || c == ',' }) {
		return ""
	}
	return name
}

// token returns what the forms of a session must send: another site cannot know it.
func (v *users) token(kind, of string) string {
	mac := hmac.New(sha256.New, v.secret)
	mac.Write([]byte(kind + "\x00" + of))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// secure reports whether browsers use https.
func (v *users) secure() bool { return v.options.URL != nil && v.options.URL.Scheme == "https" }

func (v *users) setCookie(w http.ResponseWriter, value string, age time.Duration) {
	http.SetCookie(w, &http.Cookie{
		Name: v.cookie, Value: value, Path: "/", MaxAge: cmp.Or(int(age/time.Second), -1), HttpOnly: true, SameSite: http.SameSiteStrictMode,
		Secure: v.secure(),
	})
}

// authenticated has a handler called with the user, and refuses other requests. A
// request that changes something must have the session's token.
func (s *Server) authenticated(handle func(http.ResponseWriter, *http.Request, *user)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		u := s.users.of(r, time.Now())
		switch {
		case u == nil && s.options.Header != "":
			s.refused(w, http.StatusForbidden, "The reverse proxy named no user in the header "+s.options.Header+".")
			return
		case u == nil:
			s.loggedOut(w, r)
			return
		}
		retainConn(r)
		if r.Method == http.MethodPost && subtle.ConstantTimeCompare([]byte(r.PostFormValue(tokenField)), []byte(u.Token)) != 1 {
			s.refused(w, http.StatusForbidden, "The form is not of this session. Load the page again, and retry.")
			return
		}
		u.fleet = s.fleet.get(r.Context())
		u.May = u.May && u.fleet.Status.Access == nmsproto.AccessFull
		handle(w, r, u)
	}
}

// loggedOut answers a request without a session. A browser sends no cookie where a link of
// another site led here: it does when the page links to itself.
func (s *Server) loggedOut(w http.ResponseWriter, r *http.Request) {
	again := "/"
	if r.Method == http.MethodGet {
		again = r.URL.RequestURI()
	}
	render(w, http.StatusUnauthorized, document(view{Title: "Not logged in", Before: list{
		el("h1", plain("Not logged in")),
		el("p", plain("Open the link that callhome-nms web printed. Each link works once, and a session ends after 12 hours. "+anotherLink)),
		el("p", plain("Logged in, and led here by another site? "), link(again, "Load this page")),
	}}))
}

const anotherLink = "For another link, send SIGUSR1 to the command: it printed its PID below the link."

// operator refuses users who may only read.
func (s *Server) operator(handle func(http.ResponseWriter, *http.Request, *user)) func(http.ResponseWriter, *http.Request, *user) {
	return func(w http.ResponseWriter, r *http.Request, u *user) {
		if !u.May {
			s.warnings.Warn("the request of a user who may only read was refused", "user", printable.Quoted(u.Name), "request", printable.Line(r.Method+" "+r.URL.Path))
			s.failed(w, u, http.StatusForbidden, errReadOnly)
			return
		}
		handle(w, r, u)
	}
}

var errReadOnly = errors.New("you may only read")

// log logs what a user did or tried.
func (s *Server) log(u *user, action string, err error, fields ...any) {
	for i, f := range fields {
		if text, ok := f.(string); ok {
			fields[i] = printable.Line(text)
		}
	}
	fields = append([]any{"user", printable.Quoted(u.Name), "action", action}, fields...)
	if err != nil {
		fields = append(fields, "error", printable.Line(err.Error()))
	}
	s.options.Log.Info("action", fields...)
}

// login begins a session. It answers with a page that leads on, not with a redirect: a
// browser that came from another site, such as a mail program's, would not send the
// cookie along.
func (s *Server) login(w http.ResponseWriter, r *http.Request) {
	cookie, ok := "", false
	// Programs that preview links send HEAD.
	if s.options.Header == "" && r.Method == http.MethodGet {
		cookie, ok = s.users.enter(r.URL.Query().Get("link"), time.Now())
	}
	if !ok {
		s.warnings.Warn("a link was refused: unknown, used or expired", "address", r.RemoteAddr)
		s.refused(w, http.StatusForbidden, "This link was used or has expired. Each link works once. "+anotherLink)
		return
	}
	retainConn(r)
	s.options.Log.Info("a session of a browser begins", "address", r.RemoteAddr)
	s.users.setCookie(w, cookie, sessionTime)
	render(w, http.StatusOK, document(view{Title: "Logged in", Lead: true, Before: list{el("h1", plain("Logged in")), el("p", link("/", "Continue to the overview"))}}))
}

func (s *Server) logout(w http.ResponseWriter, _ *http.Request, u *user) {
	s.users.leave(u)
	s.users.setCookie(w, "", 0)
	s.refused(w, http.StatusOK, "You are logged out.")
}
