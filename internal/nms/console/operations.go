// Package console owns the operations that an operator can send to a NETCONF server,
// and how replies are printed: the table of operations with their options, scripts of
// several operations, the interactive mode. `callhome-nms console` gives it a session.
// It never opens a connection and knows no data model. It prints replies as they came,
// or changes only the white space between their elements.
package console

import (
	"cmp"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"callhome/internal/lazyregexp"
	"callhome/internal/nms/netconf"
	"callhome/internal/sysexits"
)

// Arity says whether an operation takes an argument.
type Arity string

// The arities.
const (
	None     Arity = "none"
	Optional Arity = "optional"
	Required Arity = "required"
)

// Operation is one operation of the table.
type Operation struct {
	Name  string // as an option, and in interactive mode as a command
	Arity Arity
	Value string // placeholder of the argument in help
	Usage string
	Takes []string // names of the modifiers that apply to it
	build func(*Request) (string, error)
}

// Modifier is an option of operations.
type Modifier struct {
	Name, Short, Value, Usage string
	choices                   []string // the values that it can have; nil: any that check accepts
	check                     func(string) error
}

// Request is an operation with its argument and modifiers.
type Request struct {
	Operation *Operation
	argument  string
	with      map[string][]string
	xml       string // <rpc> or its content; "" for hello, which sends no request
}

// name is that of the operation in the request.
func (r *Request) name() string {
	if r.xml == "" {
		return r.Operation.Name
	}
	return netconf.OperationName([]byte(r.xml))
}

// Namespaces of operations that are not the base protocol's.
const (
	monitoringNS   = "urn:ietf:params:xml:ns:yang:ietf-netconf-monitoring"       // RFC 6022
	withDefaultsNS = "urn:ietf:params:xml:ns:yang:ietf-netconf-with-defaults"    // RFC 6243
	notificationNS = "urn:ietf:params:xml:ns:netconf:notification:1.0"           // RFC 5277
	subscribedNS   = "urn:ietf:params:xml:ns:yang:ietf-subscribed-notifications" // RFC 8639
)

var filters = []string{"xpath", "ns", "subtree"}

// Operations are all operations, in the order of RFC 6241. Names and arguments are
// those of netconf-console where it has the operation.
var Operations = []*Operation{
	{Name: "hello", Arity: None, Usage: "show the server's hello with its capabilities", build: func(*Request) (string, error) { return "", nil }},
	{Name: "get", Arity: None, Usage: "show configuration and state", Takes: append([]string{"with-defaults"}, filters...), build: get},
	{Name: "get-config", Arity: Optional, Value: "DB", Usage: "show a configuration (default: running)", Takes: append([]string{"db", "with-defaults"}, filters...), build: getConfig},
	{Name: "edit-config", Arity: Required, Value: "FILE", Usage: "change a configuration with the content of FILE",
		Takes: []string{"db", "default-operation", "test-option", "error-option"}, build: editConfig},
	{Name: "copy-config", Arity: Optional, Value: "FILE", Usage: "replace the configuration --db with FILE, or with --source",
		Takes: []string{"db", "source", "with-defaults"}, build: copyConfig},
	{Name: "copy-running-to-startup", Arity: None, Usage: "replace the startup configuration with the running one",
		build: func(*Request) (string, error) {
			return "<copy-config><target><startup/></target><source><running/></source></copy-config>", nil
		}},
	{Name: "delete-config", Arity: Required, Value: "DB", Usage: "delete a configuration", build: on("delete-config", "target")},
	{Name: "lock", Arity: Optional, Value: "DB", Usage: "lock a configuration (default: running)", Takes: []string{"db"}, build: on("lock", "target")},
	{Name: "unlock", Arity: Optional, Value: "DB", Usage: "unlock a configuration (default: running)", Takes: []string{"db"}, build: on("unlock", "target")},
	{Name: "validate", Arity: Optional, Value: "DB", Usage: "validate a configuration (default: running)", Takes: []string{"db"}, build: on("validate", "source")},
	{Name: "commit", Arity: None, Usage: "replace the running configuration with the candidate", build: plain("commit")},
	{Name: "discard-changes", Arity: None, Usage: "replace the candidate with the running configuration", build: plain("discard-changes")},
	{Name: "kill-session", Arity: Required, Value: "ID", Usage: "end another session", build: killSession},
	{Name: "close-session", Arity: None, Usage: "end this session", build: plain("close-session")},
	{Name: "get-schema", Arity: Required, Value: "NAME[@REVISION]", Usage: "show a YANG module; style pretty shows its text alone", build: getSchema},
	{Name: "create-subscription", Arity: Optional, Value: "STREAM", Usage: "print notifications as they come (default stream: NETCONF)",
		Takes: append([]string{"start-time", "stop-time"}, filters...), build: createSubscription},
	{Name: "establish-subscription", Arity: Optional, Value: "STREAM", Usage: "print notifications as they come, by RFC 8639 (default stream: NETCONF)",
		Takes: append([]string{"start-time", "stop-time"}, filters...), build: establishSubscription},
	{Name: "rpc", Arity: Required, Value: "FILE", Usage: "send any operation: FILE has the content of <rpc>, with or without <rpc>", build: rpc},
}

// Modifiers are the options of operations.
var Modifiers = []*Modifier{
	{Name: "db", Value: "DB", Usage: "use the configuration running, candidate, startup or at a URL", check: func(s string) error { _, err := datastore(s); return err }},
	{Name: "source", Value: "DB", Usage: "of copy-config: copy from this configuration", check: func(s string) error { _, err := datastore(s); return err }},
	{Name: "xpath", Short: "x", Value: "XPATH", Usage: "filter with an XPath expression"},
	{Name: "ns", Value: "PREFIX=URI", Usage: "define a namespace prefix for XPATH; repeatable", check: func(s string) error { _, err := namespace(s); return err }},
	{Name: "subtree", Value: "FILE", Usage: "filter with the subtree in FILE"},
	{Name: "with-defaults", Value: "MODE", Usage: "report default values: explicit, trim, report-all or report-all-tagged", choices: []string{"explicit", "trim", "report-all", "report-all-tagged"}},
	{Name: "default-operation", Value: "VALUE", Usage: "of edit-config: default operation merge, replace or none", choices: []string{"merge", "replace", "none"}},
	{Name: "test-option", Short: "t", Value: "VALUE", Usage: "of edit-config: test option test-then-set, set or test-only", choices: []string{"test-then-set", "set", "test-only"}},
	{Name: "error-option", Value: "VALUE", Usage: "of edit-config: error option stop-on-error, continue-on-error or rollback-on-error",
		choices: []string{"stop-on-error", "continue-on-error", "rollback-on-error"}},
	{Name: "start-time", Value: "TIME", Usage: "replay notifications from TIME on: 2026-01-31T12:00:00 in UTC, or with Z or an offset", check: func(s string) error { _, err := dateTime(s); return err }},
	{Name: "stop-time", Value: "TIME", Usage: "stop the replay at TIME", check: func(s string) error { _, err := dateTime(s); return err }},
}

// prepare builds the request and reads its files, so that a wrong request is reported
// before any connection is made.
func (r *Request) prepare() (err error) {
	if r.xml, err = r.Operation.build(r); err != nil {
		return fmt.Errorf("%s: %w", r.Operation.Name, err)
	}
	return nil
}

func (r *Request) one(modifier, otherwise string) string {
	if all := r.with[modifier]; len(all) > 0 {
		return all[len(all)-1]
	}
	return otherwise
}

func plain(name string) func(*Request) (string, error) {
	return func(*Request) (string, error) { return "<" + name + "/>", nil }
}

// on builds an operation on one configuration.
func on(name, role string) func(*Request) (string, error) {
	return func(r *Request) (string, error) {
		db, err := r.db()
		return "<" + name + "><" + role + ">" + db + "</" + role + "></" + name + ">", err
	}
}

// db returns the configuration that the argument or --db names.
func (r *Request) db() (string, error) {
	if r.argument != "" && r.with["db"] != nil {
		return "", usage(errors.New("the configuration is named twice, by the argument and by --db"))
	}
	if r.argument != "" {
		return datastore(r.argument)
	}
	return datastore(r.one("db", "running"))
}

// Datastores are the configurations of RFC 6241.
var Datastores = []string{"running", "candidate", "startup"}

var name = lazyregexp.New(`^[A-Za-z_][A-Za-z0-9_.-]*$`)

func datastore(s string) (string, error) {
	switch {
	case name().MatchString(s):
		return "<" + s + "/>", nil
	case strings.Contains(s, "://"):
		return "<url>" + netconf.Escape(s) + "</url>", nil
	}
	return "", usage(fmt.Errorf("%q is not a configuration: expected running, candidate, startup or a URL", s))
}

func namespace(s string) (string, error) {
	prefix, uri, _ := strings.Cut(s, "=")
	if !name().MatchString(prefix) || uri == "" {
		return "", usage(fmt.Errorf("%q is not PREFIX=URI", s))
	}
	return fmt.Sprintf(` xmlns:%s="%s"`, prefix, netconf.Escape(uri)), nil
}

func dateTime(s string) (string, error) {
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.Format(time.RFC3339Nano), nil
		}
	}
	return "", usage(fmt.Errorf("%q is not a time such as 2026-01-31T12:00:00Z", s))
}

func usage(err error) error { return sysexits.New(sysexits.Usage, "", err) }

// filter returns the <filter> of --xpath or --subtree, "" without them.
func (r *Request) filter() (string, error) {
	return r.filtered(
		func(prefixes, xpath string) string {
			return `<filter type="xpath"` + prefixes + ` select="` + xpath + `"/>`
		},
		func(subtree string) string { return `<filter type="subtree">` + subtree + `</filter>` })
}

// filtered returns what byXPath makes of --xpath, or bySubtree of --subtree.
func (r *Request) filtered(byXPath func(prefixes, xpath string) string, bySubtree func(string) string) (string, error) {
	xpath, file := r.one("xpath", ""), r.one("subtree", "")
	switch {
	case xpath != "" && file != "":
		return "", usage(errors.New("--xpath and --subtree exclude each other"))
	case xpath != "":
		prefixes := ""
		for _, s := range r.with["ns"] {
			prefix, err := namespace(s)
			if err != nil {
				return "", err
			}
			prefixes += prefix
		}
		return byXPath(prefixes, netconf.Escape(xpath)), nil
	case file != "":
		content, _, err := readXML(file)
		return bySubtree(content), err
	}
	return "", nil
}

// defaults returns the <with-defaults> parameter, "" without --with-defaults.
func (r *Request) defaults() string {
	if mode := r.one("with-defaults", ""); mode != "" {
		return `<with-defaults xmlns="` + withDefaultsNS + `">` + mode + `</with-defaults>`
	}
	return ""
}

func get(r *Request) (string, error) {
	filter, err := r.filter()
	return "<get>" + filter + r.defaults() + "</get>", err
}

func getConfig(r *Request) (string, error) {
	db, err := r.db()
	if err != nil {
		return "", err
	}
	filter, err := r.filter()
	return "<get-config><source>" + db + "</source>" + filter + r.defaults() + "</get-config>", err
}

// config returns a file's content in <config>, which the file may have already.
func config(file string) (string, error) {
	content, root, err := readXML(file)
	if err != nil || root.Local == "config" && (root.Space == "" || root.Space == "urn:ietf:params:xml:ns:netconf:base:1.0") {
		return content, err
	}
	return "<config>" + content + "</config>", nil
}

func editConfig(r *Request) (string, error) {
	db, err := datastore(r.one("db", "running"))
	if err != nil {
		return "", err
	}
	content, err := config(r.argument)
	options := ""
	for _, o := range []string{"default-operation", "test-option", "error-option"} {
		if value := r.one(o, ""); value != "" {
			options += "<" + o + ">" + value + "</" + o + ">"
		}
	}
	return "<edit-config><target>" + db + "</target>" + options + content + "</edit-config>", err
}

func copyConfig(r *Request) (string, error) {
	target, err := datastore(r.one("db", "running"))
	if err != nil {
		return "", err
	}
	var source string
	switch from := r.one("source", ""); {
	case (from == "") == (r.argument == ""):
		return "", usage(errors.New("expected one of FILE and --source to copy from"))
	case from != "":
		source, err = datastore(from)
	default:
		source, err = config(r.argument)
	}
	return "<copy-config><target>" + target + "</target><source>" + source + "</source>" + r.defaults() + "</copy-config>", err
}

func killSession(r *Request) (string, error) {
	if _, err := strconv.ParseUint(r.argument, 10, 32); err != nil {
		return "", usage(fmt.Errorf("%q is not a session-id", r.argument))
	}
	return "<kill-session><session-id>" + r.argument + "</session-id></kill-session>", nil
}

func getSchema(r *Request) (string, error) {
	module, revision, _ := strings.Cut(r.argument, "@")
	if revision != "" {
		revision = "<version>" + netconf.Escape(revision) + "</version>"
	}
	return `<get-schema xmlns="` + monitoringNS + `"><identifier>` + netconf.Escape(module) + "</identifier>" + revision + "</get-schema>", nil
}

func createSubscription(r *Request) (string, error) {
	filter, err := r.filter()
	stream := ""
	if r.argument != "" {
		stream = "<stream>" + netconf.Escape(r.argument) + "</stream>"
	}
	return `<create-subscription xmlns="` + notificationNS + `">` + stream + filter + r.times("startTime", "stopTime") + "</create-subscription>", err
}

func establishSubscription(r *Request) (string, error) {
	filter, err := r.filtered(
		func(prefixes, xpath string) string {
			return "<stream-xpath-filter" + prefixes + ">" + xpath + "</stream-xpath-filter>"
		},
		func(subtree string) string { return "<stream-subtree-filter>" + subtree + "</stream-subtree-filter>" })
	stream := "<stream>" + netconf.Escape(cmp.Or(r.argument, "NETCONF")) + "</stream>"
	return `<establish-subscription xmlns="` + subscribedNS + `">` + stream + filter + r.times("replay-start-time", "stop-time") + "</establish-subscription>", err
}

// times returns --start-time and --stop-time in elements of those names.
func (r *Request) times(start, stop string) (out string) {
	for _, t := range []struct{ modifier, element string }{{"start-time", start}, {"stop-time", stop}} {
		if value := r.one(t.modifier, ""); value != "" {
			when, _ := dateTime(value) // checked with the modifier
			out += "<" + t.element + ">" + when + "</" + t.element + ">"
		}
	}
	return out
}

func rpc(r *Request) (string, error) {
	content, _, err := readXML(r.argument)
	return content, err
}

// maxFile bounds a file, in bytes.
const maxFile = netconf.MaxMessage

// readXML reads elements from a file, or from standard input where it is "-".
func readXML(file string) (string, xml.Name, error) {
	text, err := readFile(file)
	if err != nil {
		return "", xml.Name{}, err
	}
	content, first, err := netconf.Content(text)
	if err != nil {
		return "", first, unusable(file, err)
	}
	return string(content), first, nil
}

// readMessages reads a file of whole messages, and returns a request for each.
func readMessages(file string) (all []*Request, err error) {
	text, err := readFile(file)
	if err != nil {
		return nil, err
	}
	messages, err := netconf.Messages(text)
	if err == nil && len(messages) == 0 {
		err = errors.New("it has no request")
	}
	if err != nil {
		return nil, unusable(file, err)
	}
	for _, m := range messages {
		all = append(all, &Request{Operation: &Operation{Name: "rpc"}, xml: string(m)})
	}
	return all, nil
}

func readFile(file string) ([]byte, error) {
	var in io.Reader = os.Stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, sysexits.New(sysexits.NoInput, "", err)
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, maxFile+1))
	if err == nil && len(text) > maxFile {
		err = fmt.Errorf("the file has more than the maximum of %d bytes", maxFile)
	}
	if err != nil {
		return nil, unusable(file, err)
	}
	return text, nil
}

func unusable(file string, err error) error {
	return sysexits.New(sysexits.NoInput, "", fmt.Errorf("reading %s: %w", file, err))
}
