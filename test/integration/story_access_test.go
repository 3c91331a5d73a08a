//go:build integration

package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"callhome/test/sandbox"

	"callhome/internal/proto"

	"golang.org/x/sys/unix"
)

// The document is the whole truth about who gets in: its users with their keys,
// and not those whom the daemon's own settings would let in. One whom a reload
// removes gets in no more.
func TestOnlyTheDocumentsUsersGetIn(t *testing.T) {
	t.Parallel()
	s := newStandingSite(t, "/bin/cat")
	unknown, other := newNMS(t), newNMS(t)
	s.LetIn(unknown) // by the daemon's settings
	s.Introduce(unknown)
	s.Introduce(other)
	other.user = bashful
	stations := map[string]*station{}
	with := func(users ...object) object {
		var list []object
		if users == nil {
			users = []object{} // [] in JSON, not null
		}
		for _, name := range []string{"nms", "unknown", "other"} {
			e := putSSH(s.At(stations[name].Addr), object{"user": users}, "client-authentication", "users")
			c := persistent(name, quickAlive(e))
			c["callhome:backoff"] = object{"initial": 100, "maximum": 500}
			list = append(list, c)
		}
		return document(list...)
	}
	for name, n := range map[string]*nms{"nms": s.nms, "unknown": unknown, "other": other} {
		stations[name] = n.Station(freeAddr("127.0.0.1"))
	}
	k := s.Keep(with(user(t, netop, s.nms), user(t, bashful, other)))
	if session := k.AwaitServing(patience, "nms"); session.User != netop {
		t.Errorf("the session is %+v", session)
	}
	if session := k.AwaitServing(patience, "other"); session.User != bashful {
		t.Errorf("the session is %+v", session)
	}
	refused := k.AwaitPublished(patience, "unknown", proto.EventAttemptFailed, 2)
	if e := refused.Session; e.Stage != proto.StageAuth || e.User != "" && e.User != netop {
		t.Errorf("the unknown client's session ended as %+v", e)
	}

	// bashful is removed: the session ends, and there is no other.
	k.Reload(with(user(t, netop, s.nms)))
	failures := len(k.Published("other", proto.EventAttemptFailed))
	failed := k.AwaitPublished(patience, "other", proto.EventAttemptFailed, failures+1)
	if failed.Session.Stage != proto.StageAuth {
		t.Errorf("who was removed failed at %+v", failed.Session)
	}
	k.AwaitServing(patience, "nms")
	if n := len(k.Published("unknown", proto.EventAuthenticated)); n != 0 {
		t.Errorf("the unknown client logged in %d times", n)
	}
	// The key of bashful's is of no use for the user who is left.
	stations["other"].Shut()
	other.user = netop
	stations["other"].Open()
	failures = len(k.Published("other", proto.EventAttemptFailed))
	k.AwaitPublished(patience, "other", proto.EventAttemptFailed, failures+2)
	if n := len(k.Published("other", proto.EventAuthenticated)); n != 1 {
		t.Errorf("who was removed got in %d times", n)
	}
	// An empty list lets in no user, not those of the daemon's settings.
	logins := len(k.Published("unknown", proto.EventAuthenticated)) + len(k.Published("nms", proto.EventAuthenticated))
	k.Reload(with())
	for _, name := range []string{"nms", "unknown"} {
		failures = len(k.Published(name, proto.EventAttemptFailed))
		if failed := k.AwaitPublished(patience, name, proto.EventAttemptFailed, failures+2); failed.Session.Stage != proto.StageAuth {
			t.Errorf("with an empty list %s failed at %+v", name, failed.Session)
		}
	}
	if n := len(k.Published("unknown", proto.EventAuthenticated)) + len(k.Published("nms", proto.EventAuthenticated)); n != logins {
		t.Errorf("with an empty list there were %d logins", n-logins)
	}
}

// A client's hook runs on its events and on no other's.
func TestAClientsHookRunsOnItsEvents(t *testing.T) {
	t.Parallel()
	s := newStandingSite(t, "/bin/cat")
	nms, other := s.nms.Station(freeAddr("127.0.0.1")), s.nms.Station(freeAddr("127.0.0.1"))
	said := filepath.Join(s.dir(), "said")
	mine := persistent("nms", s.At(nms.Addr))
	mine["callhome:hook"] = writeFile(t, filepath.Join(s.dir(), "hook"), "#!/bin/sh\nread -r line\nprintf '%s %s\\n' \"$CALLHOME_EVENT\" \"$line\" >> "+said+"\n", 0o755)
	k := s.Keep(document(mine, persistent("other", s.At(other.Addr))))
	k.AwaitServing(patience, "nms")
	k.AwaitServing(patience, "other")
	nms.HangUp()
	k.AwaitPublished(patience, "nms", proto.EventRecovered, 1)
	want := []string{proto.EventCalling, proto.EventConnected, proto.EventAuthenticated, proto.EventSubsystem, proto.EventClosed, proto.EventLost, proto.EventRecovered}
	sandbox.Await(t, patience, "the output of the hook", func() error {
		data, err := os.ReadFile(said)
		if err != nil {
			return err
		}
		var events []string
		for line := range strings.Lines(string(data)) {
			name, text, _ := strings.Cut(line, " ")
			var e proto.Event
			if err := json.Unmarshal([]byte(text), &e); err != nil || e.Event != name {
				t.Fatalf("the hook events %q: %v", line, err)
			}
			if e.Session.Client != "nms" && (e.Client == nil || e.Client.Client != "nms") {
				t.Fatalf("the hook events of another client: %s", line)
			}
			events = append(events, name)
		}
		for _, w := range want {
			if !slices.Contains(events, w) {
				return fmt.Errorf("%s is not among %v", w, events)
			}
		}
		return nil
	})
	nms.Session().leave()
	other.Session().leave()
}

// What the document says of the connection is so on the wire: where it comes
// from, its mark, its keepalives, the proxy and its credentials.
func TestTheDocumentsConnectionOnTheWire(t *testing.T) {
	t.Parallel()
	s := newStandingSite(t, "/bin/cat")
	direct, through, anywhere := s.nms.Station(freeAddr("127.0.0.1")), s.nms.Station(freeAddr("127.0.0.1")), s.nms.Station(freeAddr("::1"))
	e := s.At(direct.Addr)
	local := freePort()
	putTCP(e, "127.0.0.7", "local-address")
	putTCP(e, atoi(t, local), "local-port")
	putTCP(e, 10, "callhome:dscp")
	putTCP(e, object{"idle-time": 21, "probe-interval": 7, "max-probes": 3}, "keepalives")
	proxied := s.At(through.Addr)
	proxy := (&proxy{t: t, credentials: "operator:pass:with:colons and ü"}).start(socksProxy)
	host, port := splitAddr(t, proxy.Addr)
	putTCP(proxied, object{"remote-address": host, "remote-port": atoi(t, port),
		"authentication-parameters": object{"username-password": object{"username": "operator", "cleartext-password": "pass:with:colons and ü"}}},
		"proxy-server", "socks5-parameters")
	six := putTCP(s.At(anywhere.Addr), 46, "callhome:dscp")
	k := s.Keep(document(persistent("direct", e), persistent("proxied", proxied), persistent("six", six)))

	session := k.AwaitServing(patience, "direct")
	if from := direct.AwaitCall(patience, 1).from; from != net.JoinHostPort("127.0.0.7", local) || session.Local != from {
		t.Errorf("called from %s, the session is %+v", from, session)
	}
	options := func(session proto.SessionInfo, want map[string][3]int) {
		t.Helper()
		sock := socketOf(t, family(session.PID))
		for name, w := range want {
			if got, err := unix.GetsockoptInt(sock, w[0], w[1]); err != nil || got != w[2] {
				t.Errorf("client %s: %s is %d (%v), expected %d", session.Client, name, got, err, w[2])
			}
		}
	}
	options(session, map[string][3]int{
		"SO_KEEPALIVE":     {unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		"TCP_KEEPIDLE":     {unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 21},
		"TCP_KEEPINTVL":    {unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 7},
		"TCP_KEEPCNT":      {unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 3},
		"TCP_USER_TIMEOUT": {unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, (21 + 3*7) * 1000},
		"the DSCP mark":    {unix.IPPROTO_IP, unix.IP_TOS, 10 << 2},
	})
	options(k.AwaitServing(patience, "six"), map[string][3]int{
		"SO_KEEPALIVE":  {unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1}, // always: RFC 8071 section 4.1
		"the DSCP mark": {unix.IPPROTO_IPV6, unix.IPV6_TCLASS, 46 << 2},
	})
	session = k.AwaitServing(patience, "proxied")
	if session.Host+":"+fmt.Sprint(session.Port) != through.Addr || proxy.Asked() != through.Addr {
		t.Errorf("the proxy was asked for %q, the session is %+v", proxy.Asked(), session)
	}
	through.Session().echo("through the proxy")
	for _, text := range []string{k.Stderr(), fmt.Sprintf("%+v", k.Status())} {
		if strings.Contains(text, "pass:with") {
			t.Error("the password is reported")
		}
	}
	for _, nms := range []*station{direct, through, anywhere} {
		nms.Session().leave()
	}
}

// The daemon is killed and another one started, thrice: the sessions of its
// clients are kept and not doubled, and what the configuration has no more, or
// has otherwise, is ended.
func TestStandingSessionsSurviveTheDaemon(t *testing.T) {
	t.Parallel()
	s := newStandingSite(t, "/bin/cat")
	names := []string{"kept", "removed", "changed", "disabled"}
	stations := map[string]*station{}
	clients := map[string]object{}
	for _, name := range names {
		stations[name] = s.nms.Station(freeAddr("127.0.0.1"))
		clients[name] = persistent(name, quickAlive(s.At(stations[name].Addr)))
	}
	k := s.Keep(document(clients["kept"], clients["removed"], clients["changed"], clients["disabled"]))
	before := map[string]proto.SessionInfo{}
	for _, name := range names {
		before[name] = k.AwaitServing(patience, name)
	}
	for range 2 {
		k.Kill9()
		stations["kept"].Session().echo("while no daemon runs")
		k.begin()
		for _, name := range names {
			k.AwaitServing(patience, name)
			k.Undisturbed(before[name])
		}
	}
	gone := []proc{mustLookup(t, before["removed"].PID), mustLookup(t, before["disabled"].PID)}
	k.Kill9()
	clients["disabled"]["callhome:enabled"] = false
	putTCP(clients["changed"]["endpoints"].(object)["endpoint"].([]object)[0], 10, "callhome:dscp")
	replace(t, k.file, document(clients["kept"], clients["changed"], clients["disabled"]))
	k.begin()
	k.Undisturbed(before["kept"])
	k.AwaitClient(patience, "changed", func(c proto.ClientStatus) error {
		if c.State != proto.ClientServing || c.Session == before["changed"].Session {
			return errors.New("no new session")
		}
		return nil
	})
	sandbox.Await(t, patience, "the sessions of two clients", func() error {
		if list := k.Sessions(); len(list) != 2 || list[0].Client != "kept" || list[1].Client != "changed" {
			return fmt.Errorf("they are %+v", list)
		}
		return nil
	})
	AwaitGone(t, patience, gone)
	want := map[string]int{"kept": 1, "removed": 1, "changed": 2, "disabled": 1}
	for name, n := range want {
		if calls := len(stations[name].Calls()); calls != n {
			t.Errorf("%d calls for the client %s, expected %d", calls, name, n)
		}
	}
	for _, name := range []string{"kept", "changed"} {
		stations[name].Session().echo("with the next daemon")
		stations[name].Session().leave()
	}
}
