// Package web serves the page of a management station: which devices are
// connected, lost, or unknown and waiting to be adopted. It owns the HTTP server with its users, their rights, and
// a copy of the fleet that is kept current while a browser shows it. The command web runs it. It
// reaches the daemon by the control socket alone, with the rights of the user who runs
// it, and it never writes to a device.
package web

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"callhome/internal/daemon"
	"callhome/internal/nms/control"
	"callhome/internal/printable"
	"callhome/internal/ratelimit"

	"github.com/hashicorp/go-hclog"
)

// Options are how the page is served.
type Options struct {
	Socket  string // the daemon's
	Version string
	User    string // who runs the command; named on the page and in the log
	// URL is the page's address in browsers; nil: that of the request, a loopback one.
	URL *url.URL
	// Header is the header in which a reverse proxy names the user. Only Operators
	// of these may change anything. Every connection must be one of that proxy's.
	// "": users log in with a link.
	Header    string
	Operators []string
	LinkTime  time.Duration // how long a link is valid
	Log       hclog.Logger
}

// Limits of the HTTP server.
const (
	maxConns   = 256
	maxHeader  = 16 << 10
	maxBody    = 128 << 10
	headerTime = 5 * time.Second
	readTime   = 20 * time.Second
	answerTime = time.Minute // longer than a device may take (netconfTime)
	idleTime   = 30 * time.Second
	endTime    = time.Second
)

// Server is the page.
type Server struct {
	options Options
	users   *users
	fleet   *fleet
	streams streams
	// warnings are those that every local user can trigger.
	warnings *ratelimit.Warnings
	devices  chan struct{} // has a value for each NETCONF session that is open

	handler http.Handler
	ctx     context.Context // ends with Serve
	end     context.CancelFunc
}

// New returns a server; Serve runs it.
func New(o Options) *Server {
	s := &Server{options: o, users: newUsers(o), warnings: ratelimit.NewWarnings(o.Log), devices: make(chan struct{}, maxAsked)}
	s.fleet = newFleet(func() (daemonClient, error) {
		c, err := control.Dial(o.Socket)
		if err != nil {
			return nil, err // not c, which is a nil of another type
		}
		return c, nil
	})
	s.ctx, s.end = context.WithCancel(context.Background())
	s.handler = s.routes()
	return s
}

// Link returns a new link to the page, and until when it is valid. It replaces the
// one before.
func (s *Server) Link(host string) (link string, until time.Time) {
	base := url.URL{Scheme: "http", Host: host}
	if s.options.URL != nil {
		base = *s.options.URL
	}
	secret, until := s.users.newLink(time.Now())
	base.Path, base.RawQuery = "/login", "link="+secret
	return base.String(), until
}

// Serve answers HTTP on l until ctx ends, and closes l. It may be called once.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	defer s.warnings.Rest()
	defer s.end()
	go s.fleet.run(s.ctx)
	server := &http.Server{
		Handler: s.handler, ReadHeaderTimeout: headerTime, ReadTimeout: readTime, WriteTimeout: answerTime, IdleTimeout: idleTime,
		MaxHeaderBytes: maxHeader, DisableGeneralOptionsHandler: true, ConnContext: withConn,
		ErrorLog: s.options.Log.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}),
	}
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		s.end() // the streams end
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTime)
		defer cancel()
		if server.Shutdown(limit) != nil {
			server.Close()
		}
	})
	err := server.Serve(newConns(daemon.Patient(l, func(err error) {
		s.warnings.Warn("connections cannot be accepted, retrying", "error", err)
	}), maxConns))
	if errors.Is(err, http.ErrServerClosed) {
		<-ended
		return nil
	}
	stop()
	return err
}

// policy lets a page load its own style, script and icon, and nothing else.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"

// headers are those of every answer. With no-referrer a browser would send the Origin
// null with a form.
var headers = map[string]string{
	"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY",
	"Referrer-Policy": "same-origin", "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin",
	"Permissions-Policy": "camera=(), geolocation=(), microphone=()", "Cache-Control": "no-store",
}

const otherSite = "The request came from another site."

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /static/{version}/{name}", s.static)
	mux.HandleFunc("GET /login", s.login)
	for pattern, handle := range map[string]func(http.ResponseWriter, *http.Request, *user){
		"GET /{$}":                   s.overview,
		"GET /devices":               s.list,
		"GET /devices/{id}":          s.device,
		"POST /devices/{id}/netconf": s.operator(s.netconf),
		"GET /unknown":               s.unknown,
		"GET /unknown/adopt":         s.operator(s.adoptForm),
		"POST /unknown/adopt":        s.operator(s.adopt),
		"POST /unknown/refuse":       s.operator(s.refuse),
		"POST /unknown/forget":       s.operator(s.forget),
		"GET /live":                  s.live,
		"POST /logout":               s.logout,
		"/":                          s.notFound,
	} {
		mux.HandleFunc(pattern, s.authenticated(handle))
	}
	crossOrigin := http.NewCrossOriginProtection()
	if u := s.options.URL; u != nil {
		_ = crossOrigin.AddTrustedOrigin(u.Scheme + "://" + u.Host) // the command has checked it
	}
	crossOrigin.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		s.refused(w, http.StatusForbidden, otherSite)
	}))
	checked := crossOrigin.Handler(mux)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer s.panicked(r)
		for name, value := range headers {
			w.Header().Set(name, value)
		}
		if !s.knownHost(r.Host) {
			s.refused(w, http.StatusMisdirectedRequest, "The page has another address than the one that was asked for.")
			return
		}
		if foreign(r.Header) {
			s.refused(w, http.StatusForbidden, otherSite)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		checked.ServeHTTP(w, r)
	})
}

// panicked logs a fault of this program, which net/http would log for debugging alone.
func (s *Server) panicked(r *http.Request) {
	if p := recover(); p != nil {
		s.options.Log.Error("a page failed: report this as a fault of callhome-nms", "request", printable.Line(r.Method+" "+r.URL.Path), "error", printable.Line(fmt.Sprint(p)), "stack", hclog.Stacktrace())
		panic(http.ErrAbortHandler) // closes the connection
	}
}

// knownHost reports whether a request was sent to an address of the page. A site whose
// name is made to resolve to the page's address is another one (DNS rebinding). A
// loopback address and localhost cannot be made so. A proxy checks names itself, and may
// leave the port away.
func (s *Server) knownHost(host string) bool {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = strings.Trim(host, "[]")
	}
	if s.options.URL != nil {
		return strings.EqualFold(name, s.options.URL.Hostname())
	}
	if s.options.Header != "" {
		return true
	}
	a, err := netip.ParseAddr(name)
	return err == nil && a.IsLoopback() || strings.EqualFold(name, "localhost")
}

// foreign reports whether a document of another site has the browser load this as a part
// of itself. It cannot read the answer, but could measure how long a search takes, or
// use up a user's streams. Links to the page work.
func foreign(h http.Header) bool {
	switch h.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
		return false
	}
	return h.Get("Sec-Fetch-Mode") != "navigate" || h.Get("Sec-Fetch-Dest") != "document"
}
