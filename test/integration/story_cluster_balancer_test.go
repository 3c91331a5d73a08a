//go:build integration

package integration

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"callhome/test/sandbox"

	"callhome/internal/device/schedule"
)

// balancer is HAProxy with the configuration of the examples, for these stations.
type balancer struct {
	*process
	addr   string
	socket string
}

func (c *stations) StartHAProxy() *balancer {
	c.t.Helper()
	sandbox.Need(c.t, "haproxy", "socat")
	dir := tempDir(c.t)
	b := &balancer{addr: net.JoinHostPort(c.prefix+"254", callPort), socket: filepath.Join(dir, "admin.sock")}
	config := readFile(c.t, "../../examples/cluster/haproxy.cfg")
	replace := func(from, to string) {
		if !strings.Contains(config, from) {
			c.t.Fatalf("the example has no %q", from)
		}
		config = strings.ReplaceAll(config, from, to)
	}
	replace("bind :4334", "bind "+b.addr)
	replace("maxconn 70000", "maxconn 1000")
	replace("/run/haproxy/admin.sock", b.socket)
	for i, m := range c.members {
		replace(fmt.Sprintf("server %s 192.0.2.%d:", m.name, i+1), fmt.Sprintf("server %s %s:", m.name, m.ip))
	}
	b.process = start(c.t, "haproxy", c.nms.here("haproxy", "-db", "-f", writeFile(c.t, filepath.Join(dir, "haproxy.cfg"), config, 0o644)))
	sandbox.Await(c.t, patience, "HAProxy", func() error {
		if b.over(0) {
			c.t.Fatalf("haproxy has ended: %v\n%s", b.state, b.Stderr())
		}
		_, err := b.say("show info")
		return err
	})
	return b
}

// say sends a command to HAProxy's socket.
func (b *balancer) say(command string) (string, error) {
	conn, err := net.Dial("unix", b.socket)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if _, err := fmt.Fprintln(conn, command); err != nil {
		return "", err
	}
	var out strings.Builder
	buffer := make([]byte, 4<<10)
	for {
		n, err := conn.Read(buffer)
		out.Write(buffer[:n])
		if err != nil {
			return out.String(), nil
		}
	}
}

// Devices behind HAProxy are spread over the stations, with their own addresses. A station
// that dies loses its devices to the others, and those of others do not notice; one that
// is drained hands them over; one that is back gets its share of calls.
func TestDevicesBehindHAProxy(t *testing.T) {
	t.Parallel()
	const many = 60
	c := newStations(t, "north", "south", "west")
	c.args = []string{"--proxy-from", c.prefix + "254"}
	fleet := newStandIns(t, many, c.nms)
	c.StartAll(fleet)
	proxy := c.StartHAProxy()
	devices := c.KeepConnected(fleet, 2*time.Second, schedule.Policy{MaxAttempts: 3}, proxy.addr)
	spread := c.AwaitHeld(patience, many)
	t.Logf("the stations hold %v", spread)
	for name, n := range spread {
		if n < many/3-2 || n > many/3+2 {
			t.Errorf("%s holds %d of %d devices", name, n, many)
		}
	}
	for _, d := range c.members[0].List().Devices {
		if d.Address != "" && !strings.HasPrefix(d.Address, c.devices) {
			t.Errorf("%s has the address %s, not its own", d.ID, d.Address)
		}
	}
	devices.awaitGood()

	begin := time.Now()
	c.members[0].Kill()
	spread = c.AwaitHeld(patience, many)
	gaps, open := devices.Away(begin)
	t.Logf("a station is killed: %d devices away, median %v, longest %v; the others hold %v", len(gaps), percent(gaps, 50), percent(gaps, 100), spread)
	if len(gaps) != many/3 && len(gaps) < many/3-2 || len(open) > 0 || percent(gaps, 100) > 15*time.Second {
		t.Errorf("away: %v, still away: %v", gaps, open)
	}

	c.members[0].Start()
	sandbox.Await(t, patience, "HAProxy to find the station up", func() error {
		out, err := proxy.say("show servers state callhome")
		if err == nil && !strings.Contains(out, " north "+c.members[0].ip+" 2 ") {
			err = fmt.Errorf("it has\n%s", out)
		}
		return err
	})
	devices.awaitGood()
	begin = time.Now()
	c.members[1].Run("drain", "--rate", "20")
	spread = c.AwaitHeld(patience, many)
	gaps, open = devices.Away(begin)
	t.Logf("a station is drained: %d devices away, median %v, longest %v; the stations hold %v", len(gaps), percent(gaps, 50), percent(gaps, 100), spread)
	if spread["south"] != 0 || spread["north"] < many/3-5 || len(open) > 0 || percent(gaps, 100) > 5*time.Second {
		t.Errorf("%v are held; away: %v, still away: %v", spread, gaps, open)
	}
}
