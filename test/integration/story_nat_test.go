//go:build integration

package integration

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"callhome/test/sandbox"

	"callhome/internal/nms/nmsproto"
	"callhome/internal/proto"
)

// wan is the network between a router and the station.
type wan struct{ routerV4, routerV6, nmsV4, nmsV6 string }

var wans = []wan{
	{deviceV4, deviceV6, nmsV4, nmsV6},
	{"203.0.113.1", "2001:db8:1::1", "203.0.113.2", "2001:db8:1::2"},
}

// The addresses of devices behind a router, the same behind each.
const (
	insideV4, insideV6     = "10.9.0.2", "fd09::2"
	neighbourV4, neighbour = "10.9.0.3", "fd09::3"
)

// nat is a router between devices and a station: what comes from a device
// leaves with the router's address, and nothing else passes or gets to the
// router.
type nat struct {
	t       *testing.T
	wan     wan
	name    string // of its namespace
	nms     string // of the station's
	devices int
}

// newNAT puts one before a station that is in that network namespace.
func newNAT(t *testing.T, nms string, w wan) *nat {
	t.Helper()
	sandbox.Need(t, "nft")
	id := lastLink.Add(1)
	n := &nat{t: t, wan: w, name: fmt.Sprintf("router%d", id), nms: filepath.Base(nms)}
	router, port := newNetns(t, n.name), fmt.Sprintf("port%d", id)
	ip(t, "link add wan netns "+n.name+" type veth peer name "+port+" netns "+n.nms)
	ip(t, "-n "+n.name+" addr add "+w.routerV4+"/24 dev wan")
	ip(t, "-n "+n.name+" addr add "+w.routerV6+"/64 nodad dev wan")
	ip(t, "-n "+n.nms+" addr add "+w.nmsV4+"/24 dev "+port)
	ip(t, "-n "+n.nms+" addr add "+w.nmsV6+"/64 nodad dev "+port)
	ip(t, "-n "+n.nms+" link set "+port+" up")
	ip(t, "-n "+n.name+" link set wan up")
	ip(t, "-n "+n.name+" route add default via "+w.nmsV4)
	ip(t, "-n "+n.name+" -6 route add default via "+w.nmsV6)
	err := atNetns(t, router, func() error {
		return errors.Join(os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0),
			os.WriteFile("/proc/sys/net/ipv6/conf/all/forwarding", []byte("1"), 0))
	})
	if err != nil {
		t.Fatalf("making a router: %v", err)
	}
	(&link{t: t, nms: router}).nft(`table inet nat {
	chain out { type nat hook postrouting priority 100; oif "wan" masquerade; }
	chain pass { type filter hook forward priority 0; iif "wan" ct state != { established, related } drop; }
	chain in { type filter hook input priority 0; iif "wan" meta l4proto tcp drop; }
}`)
	return n
}

// Place makes a network namespace for a device behind the router.
func (n *nat) Place(v4, v6 string) (device string) {
	n.t.Helper()
	n.devices++
	name, lan := fmt.Sprintf("%s-%d", n.name, n.devices), fmt.Sprintf("lan%d", n.devices)
	device = newNetns(n.t, name)
	ip(n.t, "link add "+lan+" netns "+n.name+" type veth peer name port netns "+name)
	for _, end := range []struct{ netns, dev, v4, v6, otherV4, otherV6 string }{
		{name, "port", v4, v6, "10.9.0.1", "fd09::1"},
		{n.name, lan, "10.9.0.1", "fd09::1", v4, v6},
	} {
		// One cable to each device, with no network on it but the two ends.
		ip(n.t, "-n "+end.netns+" addr add "+end.v4+"/32 dev "+end.dev)
		ip(n.t, "-n "+end.netns+" addr add "+end.v6+"/128 nodad dev "+end.dev)
		ip(n.t, "-n "+end.netns+" link set "+end.dev+" up")
		ip(n.t, "-n "+end.netns+" route add "+end.otherV4+" dev "+end.dev)
		ip(n.t, "-n "+end.netns+" -6 route add "+end.otherV6+" dev "+end.dev)
	}
	ip(n.t, "-n "+name+" route add default via 10.9.0.1")
	ip(n.t, "-n "+name+" -6 route add default via fd09::1")
	return device
}

// Shuts has a device listen as for an ordinary connection, and wants no process to
// get there from the station: not at its own address, and not at the router's.
func (n *nat) Shuts(device, inside, outside string) {
	n.t.Helper()
	family, prefix := "", "10.9.0.0/24"
	if strings.Contains(inside, ":") {
		family, prefix = " -6", "fd09::/64"
	}
	// So that it is the router that stops what comes from outside.
	ip(n.t, "-n "+n.nms+family+" route replace "+prefix+" via "+outside)
	open := listenIn(n.t, device, net.JoinHostPort(inside, "830"))
	for _, to := range []string{inside, outside} {
		shut(n.t, "/run/netns/"+n.nms, net.JoinHostPort(to, "830"))
	}
	open.NoCall()
}

// shut wants no answer at an address from a network namespace.
func shut(t *testing.T, netns, addr string) {
	t.Helper()
	err := atNetns(t, netns, func() error {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			c.Close()
		}
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "timeout") {
		t.Fatalf("an ordinary connection to %s: %v", addr, err)
	}
}

// Devices behind two NATs, some with the same address. The station is behind a
// firewall of its own that has one port open; by that port the operator reaches
// every device, and distinguishes them.
func TestTheStationReachesDevicesBehindNATs(t *testing.T) {
	t.Parallel()
	for _, family := range []string{"ipv4", "ipv6"} {
		t.Run(family, func(t *testing.T) {
			t.Parallel()
			v6 := family == "ipv6"
			pick := func(four, six string) string {
				if v6 {
					return six
				}
				return four
			}
			server := startNetconfd(t)
			n := newNMS(t)
			n.netns = newNetns(t, fmt.Sprintf("station%d", lastLink.Add(1)))
			home, branch := newNAT(t, n.netns, wans[0]), newNAT(t, n.netns, wans[1])
			addr := freeAddr(pick(nmsV4, nmsV6))
			s := startStation(n, "--listen", addr)
			_, port := splitAddr(t, addr)
			// What comes to the station itself, but for neighbour discovery.
			(&link{t: t, nms: n.netns}).nft(`table inet station { chain in { type filter hook input priority 0; policy drop;
	iif "lo" accept; ct state established accept; icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept; tcp dport ` + port + ` accept; }; }`)

			devices := []struct {
				id     string
				nat    *nat
				inside string
				place  string
			}{
				{id: family + "-home-1", nat: home, inside: pick(insideV4, insideV6), place: home.Place(insideV4, insideV6)},
				{id: family + "-branch-1", nat: branch, inside: pick(insideV4, insideV6), place: branch.Place(insideV4, insideV6)},
				{id: family + "-branch-2", nat: branch, inside: pick(neighbourV4, neighbour), place: branch.Place(neighbourV4, neighbour)},
			}
			for i, row := range devices {
				d := newDevice(t, server.Subsystem())
				d.netns = row.place
				d.options = append(d.options, "--ssh-connection-port", yumaPort)
				d.LetIn(n)
				s.Know(row.id, d.hostKey, "")
				outside := pick(row.nat.wan.routerV4, row.nat.wan.routerV6)
				row.nat.Shuts(row.place, row.inside, outside)
				if i == 0 {
					shut(t, row.place, net.JoinHostPort(pick(nmsV4, nmsV6), "830"))
					startManager(t, d).MustCallHome(addr, proto.WaitSSH)
				} else {
					d.Call(addr)
				}
				up := s.AwaitEvent("up", row.id)
				if from, _ := splitAddr(t, up.Address); from != outside {
					t.Errorf("%s called from %s, not from its router %s", row.id, from, outside)
				}
			}
			server830 := s.StartSSH()
			for _, row := range devices {
				for way, open := range map[string]func() *netconf{
					"connect":         func() *netconf { return s.Connect(row.id) },
					"ssh at port 830": func() *netconf { return converse(t, "ssh", server830.Ssh(n, row.id, "-s", "netconf")) },
				} {
					session := open()
					session.Hello(server)
					for _, other := range devices {
						want := 0
						if other.id == row.id {
							want = 1
						}
						if d := s.AwaitState(other.id, nmsproto.Connected); d.Sessions != want {
							t.Errorf("with %s to %s %s has %d sessions", way, row.id, other.id, d.Sessions)
						}
					}
					session.Ask("get-config", `<get-config><source><running/></source></get-config>`, "<data")
					session.Close()
				}
				s.console(server, "<data", "--device", row.id, "--get-config")
			}
		})
	}
}
