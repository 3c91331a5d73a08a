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
	// Commands.
	{"cmd/callhome-mgr", "internal/cmdline", "what its commands share with callhome-nms's"},
	{"cmd/callhome-mgr", "internal/pubsub", "follows the manager's events: log, hook, metrics"},
	{"cmd/callhome-mgr", "internal/daemon", "opens its sockets and notifies systemd"},
	{"cmd/callhome-mgr", "internal/device/api", "serves the API and calls a running manager"},
	{"cmd/callhome-mgr", "internal/device/config", "reads the standing connections"},
	{"cmd/callhome-mgr", "internal/device/manager", "runs it"},
	{"cmd/callhome-mgr", "internal/device/triggercmd", "is callhome-trigger under that name"},
	{"cmd/callhome-trigger", "internal/device/triggercmd", "all of it"},
	{"cmd/callhome-mgr", "internal/device/metrics", "counts the manager's events"},
	{"cmd/callhome-mgr", "internal/device/preflight", "check"},
	{"cmd/callhome-mgr", "internal/device/reconnect", "runs it"},
	{"cmd/callhome-mgr", "internal/device/rollout", "puts the configuration in force"},
	{"cmd/callhome-mgr", "internal/device/session", "makes the directory of their files, and hands sessions from manager to standing"},
	{"cmd/callhome-mgr", "internal/device/settings", "a session's options are the trigger's"},
	{"cmd/callhome-mgr", "internal/hook", "wires it to the manager's events"},
	{"cmd/callhome-mgr", "internal/logging", "makes the logger that all share"},
	{"cmd/callhome-mgr", "internal/printable", "text from outside on terminals"},
	{"cmd/callhome-mgr", "internal/proto", "prints the API's own types"},
	{"cmd/callhome-mgr", "internal/rpc", "the groups that may call"},
	{"cmd/callhome-mgr", "internal/scrape", "serves the metrics"},
	{"cmd/callhome-mgr", "internal/sshdexec", "asks sshd what a configuration may want of it"},
	{"cmd/callhome-mgr", "internal/sysexits", "its exit status"},

	{"internal/device/triggercmd", "internal/cmdline", "what its command line shares with the other programs'"},
	{"cmd/callhome-nms", "internal/atomicfile", "replaces the file of accounts"},
	{"cmd/callhome-nms", "internal/cmdline", "what its commands share with callhome-mgr's"},
	{"cmd/callhome-nms", "internal/pubsub", "follows the station's events: log, hook, metrics"},
	{"cmd/callhome-nms", "internal/daemon", "opens its sockets and notifies systemd"},
	{"cmd/callhome-nms", "internal/fdpass", "accept passes the socket to ssh"},
	{"cmd/callhome-nms", "internal/hook", "wires it to the station's events"},
	{"cmd/callhome-nms", "internal/logging", "makes the logger that all share"},
	{"cmd/callhome-nms", "internal/nms/announce", "accept --device"},
	{"cmd/callhome-nms", "internal/nms/buckets", "creates the buckets of a cluster"},
	{"cmd/callhome-nms", "internal/nms/cluster", "joins the station to its cluster"},
	{"cmd/callhome-nms", "internal/nms/console", "the operations of the console"},
	{"cmd/callhome-nms", "internal/nms/control", "serves the station's API, and calls a running station"},
	{"cmd/callhome-nms", "internal/nms/devsock", "keeps the device sockets"},
	{"cmd/callhome-nms", "internal/nms/knownhosts", "checks the console's device"},
	{"cmd/callhome-nms", "internal/nms/listen", "opens the sockets for call homes"},
	{"cmd/callhome-nms", "internal/nms/login", "logs in to a device"},
	{"cmd/callhome-nms", "internal/nms/metrics", "feeds them the station's events"},
	{"cmd/callhome-nms", "internal/nms/mirror", "what an import has done"},
	{"cmd/callhome-nms", "internal/nms/netconf", "the console's session"},
	{"cmd/callhome-nms", "internal/nms/nmsproto", "prints the API's own types"},
	{"cmd/callhome-nms", "internal/nms/peering", "makes the stations' certificates"},
	{"cmd/callhome-nms", "internal/nms/registry", "opens it for the station"},
	{"cmd/callhome-nms", "internal/nms/station", "runs it"},
	{"cmd/callhome-nms", "internal/nms/web", "serves the page"},
	{"cmd/callhome-nms", "internal/printable", "text from devices on terminals"},
	{"cmd/callhome-nms", "internal/proto", "the exit status of an API error"},
	{"cmd/callhome-nms", "internal/ratelimit", "rate-limits warnings of accept(2)"},
	{"cmd/callhome-nms", "internal/rpc", "the groups with access to the API"},
	{"cmd/callhome-nms", "internal/scrape", "serves the metrics"},
	{"cmd/callhome-nms", "internal/sysexits", "its exit status"},

	{"internal/device/triggercmd", "internal/device/preflight", "--check"},
	{"internal/device/triggercmd", "internal/device/settings", "its options are that table"},
	{"internal/device/triggercmd", "internal/device/subsystem", "is the helper, too"},
	{"internal/device/triggercmd", "internal/device/trigger", "makes the call"},
	{"internal/device/triggercmd", "internal/logging", "a failure is logged once, here"},
	{"internal/device/triggercmd", "internal/sysexits", "its exit status"},

	{"test/simulate", "internal/device/schedule", "what it plays is the daemon's own"},
	{"test/simulate", "internal/proto", "at which stage a call failed"},

	// The device wing.
	{"internal/device/api", "internal/proto", "the types of its methods"},
	{"internal/device/api", "internal/rpc", "serves its methods and calls them"},

	{"internal/device/config", "internal/device/dial", "options of a connection"},
	{"internal/device/config", "internal/device/settings", "an endpoint becomes the trigger's settings"},
	{"internal/device/config", "internal/proto", "the state tree of its module"},
	{"internal/device/config", "internal/sshdexec", "what the sshd of this machine can do"},

	{"internal/device/connect", "internal/device/dial", "the race between the addresses"},
	{"internal/device/connect", "internal/device/proxy", "the way through a proxy"},
	{"internal/device/connect", "internal/device/resolve", "a name's addresses"},
	{"internal/device/connect", "internal/device/settings", "whom to call and how"},
	{"internal/device/connect", "internal/sshdexec", "how an opaque word is written"},
	{"internal/device/connect", "internal/sysexits", "each failure has its exit status"},

	{"internal/device/evidence", "internal/device/process", "examines processes"},
	{"internal/device/evidence", "internal/lazyregexp", "terminals in a title"},
	{"internal/device/evidence", "internal/sshdexec", "the title that sshd has with its PAM service"},

	{"internal/device/hostsaccess", "internal/printable", "a line of hosts.deny in a cause"},

	{"internal/device/manager", "internal/daemon", "opens the socket for the helpers' reports"},
	{"internal/device/manager", "internal/device/connect", "makes the connections"},
	{"internal/device/manager", "internal/device/dial", "takes one that was made elsewhere"},
	{"internal/device/manager", "internal/device/process", "which processes are below a session's sshd"},
	{"internal/device/manager", "internal/device/session", "what becomes of a connection"},
	{"internal/device/manager", "internal/device/settings", "what each call home shall be like"},
	{"internal/device/manager", "internal/device/subsystem", "takes helpers' reports"},
	{"internal/device/manager", "internal/proto", "the API's types, which it returns"},
	{"internal/device/manager", "internal/pubsub", "publishes events"},
	{"internal/device/manager", "internal/sysexits", "why a call home failed"},

	{"internal/device/metrics", "internal/metric", "counters, histograms and their text"},
	{"internal/device/metrics", "internal/hook", "counts how the hook's runs ended"},
	{"internal/device/metrics", "internal/proto", "events are what it counts"},

	{"internal/device/preflight", "internal/device/connect", "checks the source of a call home"},
	{"internal/device/preflight", "internal/device/hostsaccess", "finds what refuses every NETCONF client"},
	{"internal/device/preflight", "internal/device/settings", "looks at what a call home would use"},
	{"internal/device/preflight", "internal/printable", "lines of sshd -t on a terminal"},
	{"internal/device/preflight", "internal/sshdexec", "asks sshd with the arguments it would get"},
	{"internal/device/preflight", "internal/sysexits", "the exit status that a call home would end with"},

	{"internal/device/process", "internal/poller", "waits for the ends of processes"},
	{"internal/device/provision", "internal/atomicfile", "replaces sshd's files"},
	{"internal/device/provision", "internal/device/config", "what a file is"},

	{"internal/device/proxy", "internal/device/settings", "which proxy, and whom to reach"},
	{"internal/device/proxy", "internal/sysexits", "each failure has its exit status"},

	{"internal/device/reconnect", "internal/atomicfile", "replaces the state files"},
	{"internal/device/reconnect", "internal/device/config", "which clients to keep connected"},
	{"internal/device/reconnect", "internal/device/schedule", "decides when to call"},
	{"internal/device/reconnect", "internal/device/session", "what becomes of a call"},
	{"internal/device/reconnect", "internal/device/settings", "what a call is made with"},
	{"internal/device/reconnect", "internal/proto", "reports its clients' status"},
	{"internal/device/reconnect", "internal/wake", "wakes a client's goroutine, and the writer of the state files"},

	{"internal/device/resolve", "internal/device/dial", "questions leave the way the connection does"},
	{"internal/device/resolve", "internal/sysexits", "each failure has its exit status"},

	{"internal/device/rollout", "internal/device/config", "the document and its files"},
	{"internal/device/rollout", "internal/device/provision", "writes the files for sshd"},
	{"internal/device/rollout", "internal/device/reconnect", "keeps the document's connections"},
	{"internal/device/rollout", "internal/device/settings", "what a call is made with where the document sets nothing"},
	{"internal/device/rollout", "internal/device/sysevents", "reports changes of the network, the clock and the file"},
	{"internal/device/rollout", "internal/hook", "runs a client's own hook"},
	{"internal/device/rollout", "internal/proto", "the configuration in status and events"},
	{"internal/device/rollout", "internal/sshdexec", "asks sshd which options it knows"},
	{"internal/device/rollout", "internal/sysexits", "a document's fault has an exit status"},

	{"internal/device/schedule", "internal/proto", "the stage of a failure"},

	{"internal/device/session", "internal/atomicfile", "replaces the sessions' state files"},
	{"internal/device/session", "internal/device/dial", "owns a connection"},
	{"internal/device/session", "internal/device/evidence", "believes what it shows"},
	{"internal/device/session", "internal/device/hostsaccess", "why sshd ended without a line"},
	{"internal/device/session", "internal/device/process", "ends a session's processes, and knows them beyond their PID"},
	{"internal/device/session", "internal/device/sshdlog", "understands what sshd says"},
	{"internal/device/session", "internal/device/subsystem", "a helper's report"},
	{"internal/device/session", "internal/inotify", "reads what happens to its files"},
	{"internal/device/session", "internal/lazyregexp", "name of sshd's file"},
	{"internal/device/session", "internal/printable", "sshd's last line as a cause"},
	{"internal/device/session", "internal/proto", "its state has the API's names"},
	{"internal/device/session", "internal/ratelimit", "rate-limits a session's events"},
	{"internal/device/session", "internal/sshdexec", "starts sshd"},
	{"internal/device/session", "internal/sysexits", "an sshd that cannot start has an exit status"},

	{"internal/device/settings", "internal/device/dial", "options of the connection"},
	{"internal/device/settings", "internal/proto", "the bounds and built-in values that the API has too"},
	{"internal/device/settings", "internal/sshdexec", "options of sshd, which it checks itself"},
	{"internal/device/settings", "internal/sysexits", "a wrong value's exit status depends on its source"},

	{"internal/device/subsystem", "internal/fdpass", "sends the end file"},

	{"internal/device/sysevents", "internal/inotify", "waits for changes of a file"},
	{"internal/device/sysevents", "internal/wake", "merges events of the kernel"},

	{"internal/device/trigger", "internal/device/connect", "makes the connection"},
	{"internal/device/trigger", "internal/device/dial", "owns it then"},
	{"internal/device/trigger", "internal/device/hostsaccess", "why sshd ended without a line"},
	{"internal/device/trigger", "internal/device/settings", "what was asked for"},
	{"internal/device/trigger", "internal/fdpass", "hands the socket to the manager"},
	{"internal/device/trigger", "internal/proto", "the words of that"},
	{"internal/device/trigger", "internal/sshdexec", "hands the socket to sshd"},
	{"internal/device/trigger", "internal/sysexits", "each failure has its exit status"},

	// The station wing.
	{"internal/nms/admission", "internal/ratelimit", "limits the failed attempts of a network"},

	{"internal/nms/buckets", "internal/printable", "NATS' errors in the log"},

	{"internal/nms/claims", "internal/nms/nmsproto", "a claim has the state of a device"},

	{"internal/nms/cluster", "internal/nms/buckets", "reads and writes the cluster's buckets"},
	{"internal/nms/cluster", "internal/nms/claims", "decides about claims"},
	{"internal/nms/cluster", "internal/nms/mirror", "runs the copy of the registry"},
	{"internal/nms/cluster", "internal/nms/nmsproto", "devices, stations and events of the API"},
	{"internal/nms/cluster", "internal/nms/peering", "asks other stations, and opens sessions there"},
	{"internal/nms/cluster", "internal/nms/registry", "whose a host key is"},
	{"internal/nms/cluster", "internal/nms/station", "passes a session's socket to it"},
	{"internal/nms/cluster", "internal/printable", "text of other stations"},
	{"internal/nms/cluster", "internal/proto", "errors of the API"},
	{"internal/nms/cluster", "internal/pubsub", "publishes changes of devices"},
	{"internal/nms/cluster", "internal/ratelimit", "rate-limits warnings"},
	{"internal/nms/cluster", "internal/rpc", "for whom a session is"},

	{"internal/nms/console", "internal/lazyregexp", "names of elements"},
	{"internal/nms/console", "internal/nms/netconf", "sends its requests in a session"},
	{"internal/nms/console", "internal/sysexits", "a usage error, and an rpc-error, has its exit status"},

	{"internal/nms/control", "internal/daemon", "sessions get none of the last descriptors"},
	{"internal/nms/control", "internal/fdpass", "closes the socket of a session that is refused"},
	{"internal/nms/control", "internal/nms/nmsproto", "the methods and their types"},
	{"internal/nms/control", "internal/nms/station", "passes a session's socket to it"},
	{"internal/nms/control", "internal/proto", "errors of the API"},
	{"internal/nms/control", "internal/rpc", "framing, peer credentials and limits"},

	{"internal/nms/devsock", "internal/daemon", "accepts connections"},
	{"internal/nms/devsock", "internal/nms/nmsproto", "a device's state"},
	{"internal/nms/devsock", "internal/nms/station", "passes a session's socket to it"},
	{"internal/nms/devsock", "internal/poller", "waits for clients at all device sockets"},
	{"internal/nms/devsock", "internal/ratelimit", "rate-limits warnings of accept(2)"},
	{"internal/nms/devsock", "internal/rpc", "peer credentials and access"},

	{"internal/nms/handshake", "internal/nms/wire", "the connection below the SSH library"},
	{"internal/nms/handshake", "internal/printable", "the SSH library's errors"},

	{"internal/nms/knownhosts", "internal/nms/hostkey", "host key algorithms, and a CA's"},
	{"internal/nms/knownhosts", "internal/printable", "the SSH library's errors"},
	{"internal/nms/knownhosts", "internal/sysexits", "a refused device has its exit status"},

	{"internal/nms/listen", "internal/sysexits", "an address that cannot be used has an exit status"},

	{"internal/nms/login", "internal/nms/knownhosts", "checks the host key"},
	{"internal/nms/login", "internal/nms/wire", "the connection below the SSH library"},
	{"internal/nms/login", "internal/printable", "the SSH library's errors"},
	{"internal/nms/login", "internal/sysexits", "each failure has its exit status"},

	{"internal/nms/metrics", "internal/metric", "counters, histograms and their text"},
	{"internal/nms/metrics", "internal/hook", "counts how the hook's runs ended"},
	{"internal/nms/metrics", "internal/nms/cluster", "how the station stands in its cluster"},
	{"internal/nms/metrics", "internal/nms/nmsproto", "counts events and states"},
	{"internal/nms/metrics", "internal/nms/station", "the station's counters"},

	{"internal/nms/peering", "internal/atomicfile", "replaces the files of certificates"},
	{"internal/nms/peering", "internal/daemon", "accepts connections"},
	{"internal/nms/peering", "internal/lazyregexp", "form of a station's name"},
	{"internal/nms/peering", "internal/nms/nmsproto", "the result of a session"},
	{"internal/nms/peering", "internal/nms/station", "passes a session's socket to it"},
	{"internal/nms/peering", "internal/printable", "text of other stations"},
	{"internal/nms/peering", "internal/proto", "errors of the API"},
	{"internal/nms/peering", "internal/ratelimit", "rate-limits warnings of connections"},

	{"internal/nms/mirror", "internal/atomicfile", "replaces the files of the registry"},
	{"internal/nms/mirror", "internal/nms/buckets", "copies a bucket and changes it"},
	{"internal/nms/mirror", "internal/nms/registry", "the form of entries and of the list of revoked keys"},
	{"internal/nms/mirror", "internal/printable", "names from a bucket in errors"},
	{"internal/nms/mirror", "internal/ratelimit", "warnings that each entry of the bucket can cause"},

	{"internal/nms/registry", "internal/atomicfile", "writes the list of revoked keys"},
	{"internal/nms/registry", "internal/lazyregexp", "form of an id"},
	{"internal/nms/registry", "internal/nms/hostkey", "host key algorithms, and a CA's"},
	{"internal/nms/registry", "internal/inotify", "waits for changes of the directory"},
	{"internal/nms/registry", "internal/printable", "a certificate's text in its errors"},
	{"internal/nms/registry", "internal/wake", "merges changes of the directory"},

	{"internal/nms/natstest", "internal/porttest", "its servers keep their ports while they are stopped"},

	{"internal/nms/sshtest", "internal/nms/wire", "sends packets that the SSH library does not know"},

	{"internal/nms/station", "internal/nms/admission", "decides which unauthenticated connections it keeps"},
	{"internal/nms/station", "internal/nms/handshake", "logs in to a device"},
	{"internal/nms/station", "internal/nms/login", "reads the credentials"},
	{"internal/nms/station", "internal/nms/nmsproto", "types of the API, and events"},
	{"internal/nms/station", "internal/nms/registry", "looks up the entry of a host key"},
	{"internal/nms/station", "internal/nms/wire", "ends connections with a reason"},
	{"internal/nms/station", "internal/printable", "text from devices in events"},
	{"internal/nms/station", "internal/proto", "errors have the API's codes and stages"},
	{"internal/nms/station", "internal/pubsub", "publishes events to subscribers"},
	{"internal/nms/station", "internal/ratelimit", "rate-limits events"},
	{"internal/nms/station", "internal/wake", "wakes the connection that waits for a place"},

	{"internal/nms/web", "internal/daemon", "accepts connections"},
	{"internal/nms/web", "internal/nms/control", "calls the daemon"},
	{"internal/nms/web", "internal/nms/netconf", "reads a device's capabilities and configuration"},
	{"internal/nms/web", "internal/nms/nmsproto", "shows the API's types"},
	{"internal/nms/web", "internal/printable", "errors in the log"},
	{"internal/nms/web", "internal/proto", "the HTTP status of an API error"},
	{"internal/nms/web", "internal/ratelimit", "rate-limits warnings of accept(2)"},
	{"internal/nms/web", "internal/wake", "wakes the reader of the fleet"},

	{"internal/nms/wire", "internal/printable", "a reason on one line, and the SSH library's errors"},

	// Shared rooms.
	{"internal/cmdline", "internal/hook", "runs the hook that the flags name"},
	{"internal/cmdline", "internal/lazyregexp", "placeholders of usages"},
	{"internal/cmdline", "internal/printable", "a candidate of a completion is a line"},
	{"internal/cmdline", "internal/proto", "whether a retry helps"},
	{"internal/cmdline", "internal/pubsub", "the hook follows the events"},
	{"internal/cmdline", "internal/sysexits", "a usage error has its exit status"},

	{"internal/daemon", "internal/sysexits", "a socket that cannot be used has an exit status"},
	{"internal/device/sshdlog", "internal/lazyregexp", "the rules of lines"},

	{"internal/pubsub", "internal/wake", "wakes the subscribers that wait"},
	{"internal/hook", "internal/printable", "a program's output in the log"},
	{"internal/hook", "internal/ratelimit", "warns of events that it was not run for"},

	{"internal/logging", "internal/sysexits", "a log that cannot be opened is a failure of the command line"},
	{"internal/nms/netconf", "internal/lazyregexp", "the XML declaration"},

	{"internal/rpc", "internal/daemon", "has callers while the machine has room for them"},
	{"internal/rpc", "internal/fdpass", "a socket comes with adopt"},
	{"internal/rpc", "internal/printable", "text from peers in the log"},
	{"internal/rpc", "internal/proto", "the API's words"},
	{"internal/rpc", "internal/ratelimit", "warns of refusals"},
	{"internal/rpc", "internal/sysexits", "a manager that does not answer is a failure of the command line"},

	{"internal/scrape", "internal/daemon", "accepts connections, opens the Unix socket"},
	{"internal/scrape", "internal/ratelimit", "rate-limits warnings about connections"},
	{"internal/scrape", "internal/sysexits", "an address in use has an exit status"},

	{"internal/sshdexec", "internal/atomicfile", "replaces what was found in sshd"},
	{"internal/sshdexec", "internal/lazyregexp", "the version"},
	{"internal/sshdexec", "packaging", "the sshd configuration that is built in"},
}

// thirdParty is a module that others wrote.
type thirdParty struct {
	path, reason string
	by           []string
}

// modules are all that others wrote, with who may use them and what for.
var modules = []thirdParty{
	{"golang.org/x/sys", "system calls", []string{"cmd/callhome-mgr", "cmd/callhome-nms", "internal/atomicfile", "internal/daemon", "internal/device/connect", "internal/device/dial", "internal/device/preflight", "internal/device/process", "internal/device/resolve", "internal/device/session", "internal/device/settings", "internal/device/subsystem", "internal/device/sysevents", "internal/device/trigger", "internal/device/triggercmd", "internal/fdpass", "internal/hook", "internal/inotify", "internal/nms/announce", "internal/nms/cluster", "internal/nms/control", "internal/nms/devsock", "internal/nms/knownhosts", "internal/nms/listen", "internal/nms/mirror", "internal/nms/peering", "internal/nms/registry", "internal/poller", "internal/porttest", "internal/rpc", "internal/sshdexec"}},
	{"golang.org/x/net", "SOCKS5, and a bound on connections", []string{"internal/device/proxy", "internal/scrape"}},
	{"golang.org/x/crypto", "SSH's forms of keys and certificates; and the SSH client of the management side: on a device SSH is sshd's", []string{"internal/device/config", "internal/device/session", "internal/nms/handshake", "internal/nms/hostkey", "internal/nms/knownhosts", "internal/nms/login", "internal/nms/mirror", "internal/nms/registry", "internal/nms/sshtest", "internal/nms/station", "internal/nms/wire"}},
	{"github.com/urfave/cli/v2", "describes commands and options; nothing below main knows them", []string{"cmd/callhome-mgr", "cmd/callhome-nms", "internal/cmdline", "internal/device/triggercmd"}},
	{"github.com/xrash/smetrics", "which option or command a misspelt one is near", []string{"internal/cmdline"}},
	{"github.com/hashicorp/go-hclog", "logging", []string{"cmd/callhome-mgr", "cmd/callhome-nms", "internal/cmdline", "internal/daemon", "internal/device/api", "internal/device/reconnect", "internal/device/rollout", "internal/device/trigger", "internal/hook", "internal/logging", "internal/nms/buckets", "internal/nms/cluster", "internal/nms/control", "internal/nms/devsock", "internal/nms/mirror", "internal/nms/peering", "internal/nms/web", "internal/ratelimit", "internal/rpc", "internal/scrape"}},
	{"github.com/coreos/go-systemd/v22", "reports readiness and state to systemd; takes its sockets", []string{"cmd/callhome-mgr", "cmd/callhome-nms", "internal/daemon"}},
	{"github.com/vishvananda/netlink", "rtnetlink", []string{"internal/device/sysevents"}},
	{"golang.org/x/term", "passwords without echo, the console's lines with history, and the width of tables", []string{"cmd/callhome-nms", "internal/cmdline"}},
	{"github.com/nats-io/nats.go", "the key-value buckets and the stream of a cluster", []string{"internal/nms/buckets"}},
	{"github.com/nats-io/nats-server/v2", "real servers in tests; no program has it", []string{"internal/nms/natstest"}},
	{"github.com/pires/go-proxyproto", "the header of a load balancer", []string{"internal/nms/station"}},
}

const module = "callhome/"

// source is what a package's files say, tests apart.
type source struct {
	imports map[string]bool
	doc     []string // package comments
}

// sources reads the packages below cmd and internal, and the one beside them
// that runs the daemon's own code, by their path in the module.
func sources(t *testing.T) map[string]*source {
	t.Helper()
	out := make(map[string]*source)
	for _, root := range []string{"../cmd", "../internal", "../test/simulate"} {
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

// The device's rooms and the station's know nothing of each other, and what both
// share knows neither: each wing can be read, built and shipped alone.
func TestTheWingsDoNotImportEachOther(t *testing.T) {
	wing := func(pkg string) string {
		for _, w := range []string{"internal/device", "internal/nms"} {
			if pkg == w || strings.HasPrefix(pkg, w+"/") {
				return w
			}
		}
		return ""
	}
	for from, s := range sources(t) {
		if !strings.HasPrefix(from, "internal/") {
			continue
		}
		for to := range s.imports {
			if to, ours := strings.CutPrefix(to, module); ours && wing(to) != "" && wing(to) != wing(from) {
				t.Errorf("%s imports %s: a wing imports nothing of the other, and a shared room nothing of either", from, to)
			}
		}
	}
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
		if strings.HasPrefix(pkg, "cmd/") || strings.HasPrefix(pkg, "test/") {
			begins = path.Base(pkg) + " "
		}
		if !strings.HasPrefix(s.doc[0], begins) || strings.Count(s.doc[0], ".") < 2 {
			t.Errorf("the comment of %s does not begin with %q and say two sentences:\n%s", pkg, begins, s.doc[0])
		}
	}
}
