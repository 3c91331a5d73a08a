// Package internal_test holds the rules that no single package can: which of
// them may know which, and that each says what it is.
package internal_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// arrows are all imports between packages of ours, with the reason for each.
// What is not here must not be: first think whether the importing package
// needs to know that much, then add a row.
var arrows = []struct{ from, to, reason string }{
	{"cmd/callhome-trigger", "internal/logging", "a failure is logged once, here"},
	{"cmd/callhome-trigger", "internal/preflight", "--check"},
	{"cmd/callhome-trigger", "internal/settings", "its options are that table"},
	{"cmd/callhome-trigger", "internal/sysexits", "its exit status"},
	{"cmd/callhome-trigger", "internal/trigger", "makes the call"},

	{"cmd/callhome-mgr", "internal/api", "serves it, and asks a running manager"},
	{"cmd/callhome-mgr", "internal/hook", "wires it to the manager's events"},
	{"cmd/callhome-mgr", "internal/logging", "makes the logger that all share"},
	{"cmd/callhome-mgr", "internal/manager", "runs it"},
	{"cmd/callhome-mgr", "internal/metrics", "wires them to the manager's events"},
	{"cmd/callhome-mgr", "internal/preflight", "check"},
	{"cmd/callhome-mgr", "internal/proto", "prints the API's own types"},
	{"cmd/callhome-mgr", "internal/session", "makes the directory of their files"},
	{"cmd/callhome-mgr", "internal/settings", "a session's options are the trigger's"},
	{"cmd/callhome-mgr", "internal/sysexits", "its exit status"},
	{"cmd/callhome-mgr", "internal/unixlisten", "opens the socket of the API"},
	{"cmd/callhome-mgr", "internal/hub", "the log, the metrics and the hook follow the manager's events"},
	{"cmd/callhome-mgr", "internal/service", "tells systemd how the daemon is"},

	{"cmd/callhome-nms", "internal/api", "who may call the daemon"},
	{"cmd/callhome-nms", "internal/hook", "wires it to the station's events"},
	{"cmd/callhome-nms", "internal/hub", "the log, the metrics and the hook follow the station's events"},
	{"cmd/callhome-nms", "internal/logging", "makes the logger that all share"},
	{"cmd/callhome-nms", "internal/metrics", "serves the figures"},
	{"cmd/callhome-nms", "internal/nms/control", "serves the station, and asks a running one"},
	{"cmd/callhome-nms", "internal/nms/door", "keeps the devices' sockets"},
	{"cmd/callhome-nms", "internal/nms/figures", "wires them to the station's events"},
	{"cmd/callhome-nms", "internal/nms/listen", "opens what calls come to"},
	{"cmd/callhome-nms", "internal/nms/nmsproto", "prints the daemon's own types"},
	{"cmd/callhome-nms", "internal/nms/registry", "which devices there are"},
	{"cmd/callhome-nms", "internal/nms/station", "runs it"},
	{"cmd/callhome-nms", "internal/proto", "a daemon's error has its exit status"},
	{"cmd/callhome-nms", "internal/service", "tells systemd how the daemon is"},
	{"cmd/callhome-nms", "internal/sysexits", "its exit status"},
	{"cmd/callhome-nms", "internal/unixlisten", "opens the control socket"},
	{"cmd/callhome-nms", "internal/fdpass", "accept gives ssh the socket"},
	{"cmd/callhome-nms", "internal/nms/announce", "accept --device"},
	{"cmd/callhome-nms", "internal/nms/console", "what the console does"},
	{"cmd/callhome-nms", "internal/nms/knownhosts", "options say what is known of a device"},
	{"cmd/callhome-nms", "internal/nms/login", "logs in to a device"},
	{"cmd/callhome-nms", "internal/nms/netconf", "the console's session"},

	{"internal/nms/console", "internal/nms/netconf", "asks over a session"},
	{"internal/nms/console", "internal/sysexits", "a wrong word, and an rpc-error, has its exit status"},
	{"internal/trigger", "internal/connect", "makes the connection"},
	{"internal/trigger", "internal/dial", "owns it then"},
	{"internal/trigger", "internal/fdpass", "hands the socket to the manager"},
	{"internal/trigger", "internal/proto", "the words of that"},
	{"internal/trigger", "internal/settings", "what was asked for"},
	{"internal/trigger", "internal/sshdexec", "hands the socket to sshd"},
	{"internal/trigger", "internal/sysexits", "each failure has its exit status"},

	{"internal/manager", "internal/connect", "makes the connections"},
	{"internal/manager", "internal/hub", "tells subscribers what happens"},
	{"internal/manager", "internal/dial", "takes one that was made elsewhere"},
	{"internal/manager", "internal/proto", "what it tells the API's callers"},
	{"internal/manager", "internal/session", "what becomes of a connection"},
	{"internal/manager", "internal/settings", "what each call home shall be like"},
	{"internal/manager", "internal/sysexits", "why a call home failed"},

	{"internal/connect", "internal/dial", "the race between the addresses"},
	{"internal/connect", "internal/proxy", "the way through a proxy"},
	{"internal/connect", "internal/resolve", "a name's addresses"},
	{"internal/connect", "internal/settings", "whom to call and how"},
	{"internal/connect", "internal/sysexits", "each failure has its exit status"},

	{"internal/session", "internal/dial", "owns a connection"},
	{"internal/session", "internal/proto", "its state has the API's names"},
	{"internal/session", "internal/sshdexec", "starts sshd"},
	{"internal/session", "internal/sshdlog", "understands what sshd says"},
	{"internal/session", "internal/sysexits", "an sshd that cannot start has an exit status"},

	{"internal/api", "internal/fdpass", "a socket comes with adopt"},
	{"internal/api", "internal/proto", "the API's words"},
	{"internal/api", "internal/sysexits", "a manager that does not answer is a failure of the command line"},
	{"internal/hook", "internal/proto", "an event is what it passes on"},
	{"internal/metrics", "internal/proto", "events are what it counts"},
	{"internal/metrics", "internal/sysexits", "an address that is taken is a failure of the command line"},
	{"internal/metrics", "internal/unixlisten", "they can be served at a Unix socket"},

	{"internal/preflight", "internal/settings", "looks at what a call home would use"},
	{"internal/preflight", "internal/sshdexec", "asks sshd with the arguments it would get"},
	{"internal/preflight", "internal/sysexits", "the exit status that a call home would end with"},
	{"internal/settings", "internal/dial", "options of the connection"},
	{"internal/settings", "internal/sshdexec", "options of sshd, which it checks itself"},
	{"internal/settings", "internal/sysexits", "a wrong value's exit status depends on its source"},
	{"internal/proxy", "internal/settings", "which proxy, and whom to reach"},
	{"internal/proxy", "internal/sysexits", "each failure has its exit status"},
	{"internal/resolve", "internal/dial", "questions leave the way the connection does"},
	{"internal/resolve", "internal/sysexits", "each failure has its exit status"},
	{"internal/nms/control", "internal/api", "framing, peers and limits are the manager's"},
	{"internal/nms/control", "internal/nms/nmsproto", "the words of its methods"},
	{"internal/nms/control", "internal/nms/station", "a session's socket is what that joins"},
	{"internal/nms/control", "internal/proto", "its errors"},
	{"internal/nms/door", "internal/api", "who is at the other end, and may he"},
	{"internal/nms/door", "internal/nms/nmsproto", "a device's state"},
	{"internal/nms/door", "internal/nms/station", "a session's socket is what that joins"},
	{"internal/nms/figures", "internal/hook", "how its runs ended"},
	{"internal/nms/figures", "internal/nms/nmsproto", "events and states are what it counts"},
	{"internal/nms/figures", "internal/nms/station", "its counts"},
	{"internal/nms/station", "internal/hub", "tells subscribers what happens"},
	{"internal/nms/station", "internal/nms/handshake", "logs in to a device"},
	{"internal/nms/station", "internal/nms/login", "reads the credentials"},
	{"internal/nms/station", "internal/nms/registry", "asks it whose a key is"},
	{"internal/nms/station", "internal/nms/nmsproto", "what it tells its callers"},
	{"internal/nms/station", "internal/proto", "errors have the codes and stages of the manager's"},

	{"internal/unixlisten", "internal/sysexits", "a socket that is somebody else's is a failure of the command line"},
	{"internal/nms/knownhosts", "internal/sysexits", "a device that is not the right one has its exit status"},
	{"internal/nms/login", "internal/nms/knownhosts", "is it the device"},
	{"internal/nms/login", "internal/sysexits", "each failure has its exit status"},
	{"internal/nms/listen", "internal/sysexits", "an address that cannot be had is a failure of the command line"},
	{"internal/logging", "internal/sysexits", "a log that cannot be opened is a failure of the command line"},
}

// thirdParty is a module that others wrote.
type thirdParty struct {
	path, reason string
	by           []string
}

// modules are all that others wrote, with who may use them and what for.
var modules = []thirdParty{
	{"golang.org/x/sys", "system calls", []string{"cmd/callhome-mgr", "cmd/callhome-nms", "internal/api", "internal/connect", "internal/dial", "internal/fdpass", "internal/hook",
		"internal/nms/announce", "internal/nms/control", "internal/nms/knownhosts", "internal/nms/listen", "internal/preflight", "internal/resolve", "internal/session", "internal/sshdexec", "internal/trigger", "internal/unixlisten"}},
	{"golang.org/x/crypto", "SSH client of the management side, and of it alone: on a device SSH is sshd's",
		[]string{"internal/nms/handshake", "internal/nms/knownhosts", "internal/nms/login", "internal/nms/registry", "internal/nms/sshtest", "internal/nms/station"}},
	{"golang.org/x/term", "passwords without echo, and the console's lines with history", []string{"cmd/callhome-nms"}},
	{"golang.org/x/net", "SOCKS5, and a bound on connections", []string{"internal/metrics", "internal/proxy"}},
	{"github.com/urfave/cli/v2", "command lines; nothing below main knows them", []string{"cmd/callhome-mgr", "cmd/callhome-nms", "cmd/callhome-trigger"}},
	{"github.com/hashicorp/go-hclog", "logging", []string{"cmd/callhome-mgr", "cmd/callhome-nms", "internal/api", "internal/hook", "internal/logging", "internal/metrics", "internal/nms/control", "internal/nms/door", "internal/service", "internal/trigger"}},
	{"github.com/coreos/go-systemd/v22", "tells systemd that a daemon is ready, and how it fares; takes its sockets", []string{"cmd/callhome-mgr", "cmd/callhome-nms", "internal/service"}},
	{"github.com/creachadair/jrpc2", "JSON-RPC 2.0", []string{"internal/api", "internal/nms/control"}},
	{"github.com/fsnotify/fsnotify", "waits for a log's next line, and for a change of the registry", []string{"internal/nms/registry", "internal/session"}},
	{"github.com/pires/go-proxyproto", "the header of a load balancer", []string{"internal/nms/station"}},
	{"github.com/prometheus/client_golang", "metrics in Prometheus' format", []string{"internal/metrics", "internal/nms/figures"}},
}

const module = "callhome/"

// source is what a package's files say, tests apart.
type source struct {
	imports map[string]bool
	doc     []string // package comments
}

// sources reads the packages below cmd and internal, by their path in the
// module.
func sources(t *testing.T) map[string]*source {
	t.Helper()
	out := make(map[string]*source)
	for _, root := range []string{"../cmd", "../internal"} {
		err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
				return err
			}
			f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly|parser.ParseComments)
			if err != nil {
				return err
			}
			pkg := strings.TrimPrefix(path.Dir(filepath.ToSlash(name)), "../")
			if out[pkg] == nil {
				out[pkg] = &source{imports: make(map[string]bool)}
			}
			for _, i := range f.Imports {
				to, err := strconv.Unquote(i.Path.Value)
				if err != nil {
					return err
				}
				out[pkg].imports[to] = true
			}
			if f.Doc != nil {
				out[pkg].doc = append(out[pkg].doc, f.Doc.Text())
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(out) < 10 {
		t.Fatalf("found only %d packages", len(out))
	}
	return out
}

func TestPackagesKnowOnlyWhatTheyMay(t *testing.T) {
	used := make(map[[2]string]bool)
	for _, a := range arrows {
		arrow := [2]string{a.from, a.to}
		if _, twice := used[arrow]; twice || a.reason == "" {
			t.Errorf("%s -> %s stands twice or without a reason", a.from, a.to)
		}
		used[arrow] = false
	}
	for from, s := range sources(t) {
		for _, to := range slices.Sorted(maps.Keys(s.imports)) {
			to, ours := strings.CutPrefix(to, module)
			if !ours {
				continue
			}
			if _, ok := used[[2]string{from, to}]; !ok {
				t.Errorf("%s must not import %s, or there is a row missing", from, to)
			}
			used[[2]string{from, to}] = true
		}
	}
	for arrow, ok := range used {
		if !ok {
			t.Errorf("%s does not import %s any more: remove the row", arrow[0], arrow[1])
		}
	}
}

func TestModulesAreUsedWhereTheyMayBe(t *testing.T) {
	type use struct{ from, to string }
	used := make(map[use]bool)
	for _, m := range modules {
		for _, from := range m.by {
			used[use{from, m.path}] = false
		}
	}
	for from, s := range sources(t) {
		for to := range s.imports {
			if first, _, _ := strings.Cut(to, "/"); !strings.Contains(first, ".") {
				continue // the standard library, or ours
			}
			i := slices.IndexFunc(modules, func(m thirdParty) bool { return to == m.path || strings.HasPrefix(to, m.path+"/") })
			if i < 0 || !slices.Contains(modules[i].by, from) {
				t.Errorf("%s must not import %s, or a row does not say so", from, to)
				continue
			}
			used[use{from, modules[i].path}] = true
		}
	}
	for u, ok := range used {
		if !ok {
			t.Errorf("%s does not use %s any more: change the row", u.from, u.to)
		}
	}
}

// The comment says what the package owns, who calls it and what it never does;
// a test can only see that it is there, once.
func TestPackagesSayWhatTheyAre(t *testing.T) {
	for pkg, s := range sources(t) {
		if len(s.doc) != 1 {
			t.Errorf("%s has %d package comments, want 1", pkg, len(s.doc))
			continue
		}
		begins := "Package " + path.Base(pkg) + " "
		if strings.HasPrefix(pkg, "cmd/") {
			begins = path.Base(pkg) + " "
		}
		if !strings.HasPrefix(s.doc[0], begins) || strings.Count(s.doc[0], ".") < 2 {
			t.Errorf("the comment of %s does not begin with %q and say two sentences:\n%s", pkg, begins, s.doc[0])
		}
	}
}
