//go:build integration

package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"callhome/test/sandbox"

	"callhome/internal/nms/nmsproto"

	"golang.org/x/sys/unix"
)

// stations are several stations, each in a network namespace of its own with its
// nats-server, and all on one bridge with the devices, which call from this namespace.
type stations struct {
	t       *testing.T
	nms     *nms
	outside string // network namespace of the switch between them, of devices and commands
	prefix  string // of their addresses
	devices string // what the addresses of stand-ins begin with
	ca      string // what `cluster init` made
	lease   time.Duration
	members []*member
	args    []string // of each, further ones
	large   bool     // more devices than descriptors suffice for with device sockets
}

// member is a station; served is its callhome-nms.
type member struct {
	*served
	of       *stations
	name, ip string
	netns    string
	store    string // of nats-server
	nats     *process
}

var lastCluster atomic.Uint32

const (
	callPort = "4334"
	natsPort = "4222"
	peerPort = "4337"
)

// newStations makes namespaces and the CA; nothing runs yet.
func newStations(t *testing.T, names ...string) *stations {
	t.Helper()
	sandbox.Need(t, "ip", "nft", "nats-server")
	id := lastCluster.Add(1)
	c := &stations{t: t, nms: newNMS(t), prefix: fmt.Sprintf("10.77.%d.", id), devices: fmt.Sprintf("10.%d.", 100+id), lease: 10 * time.Second}
	// This machine's own network does not change: other stories' daemons call at once
	// where it does.
	c.outside = newNetns(t, fmt.Sprintf("outside%d", id))
	c.nms.netns = c.outside
	in := "-n " + filepath.Base(c.outside) + " "
	ip(t, in+"link add bridge type bridge")
	ip(t, in+"addr add "+c.prefix+"254/24 dev bridge")
	ip(t, in+"link set bridge up")
	// Each stand-in has an address of its own.
	ip(t, in+"route add local "+c.devices+"0.0/16 dev lo")
	dir := tempDir(t)
	c.ca = filepath.Join(dir, "ca")
	argv := []string{"cluster", "init", "--directory", c.ca, "operator"}
	for i, name := range names {
		m := &member{of: c, name: name, ip: fmt.Sprintf("%s%d", c.prefix, i+1), netns: newNetns(t, fmt.Sprintf("%s%d", name, id)), store: filepath.Join(dir, "js-"+name)}
		c.members = append(c.members, m)
		short, port := filepath.Base(m.netns), fmt.Sprintf("port%d", i)
		ip(t, in+"link add "+port+" type veth peer name cable netns "+short)
		ip(t, in+"link set "+port+" master bridge")
		ip(t, in+"link set "+port+" up")
		ip(t, "-n "+short+" addr add "+m.ip+"/24 dev cable")
		ip(t, "-n "+short+" link set cable up")
		ip(t, "-n "+short+" route add default via "+c.prefix+"254")
		argv = append(argv, name+","+m.ip)
	}
	readToTheEnd(t, exec.Command(binDir+"/callhome-nms", argv...))
	return c
}

// Nft replaces the rules of a member's namespace; "" removes them.
func (m *member) Nft(rules string) {
	m.of.t.Helper()
	cmd := exec.Command("/usr/bin/nsenter", "--net="+m.netns, "--", "nft", "-f", "-")
	cmd.Stdin = strings.NewReader("table inet cut {}\ndelete table inet cut\n" + rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		m.of.t.Fatalf("nft: %v\n%s", err, out)
	}
}

// CutFrom drops all packets between a member and those addresses, silently.
func (m *member) CutFrom(addresses ...string) {
	m.of.t.Helper()
	list := strings.Join(addresses, ", ")
	m.Nft("table inet cut {\n chain in { type filter hook input priority 0; ip saddr { " + list + " } drop; }\n" +
		" chain out { type filter hook output priority 0; ip daddr { " + list + " } drop; }\n}\n")
}

// Heal undoes CutFrom.
func (m *member) Heal() { m.of.t.Helper(); m.Nft("") }

// StartNATS starts all servers and waits until JetStream is ready.
func (c *stations) StartNATS() {
	c.t.Helper()
	for _, m := range c.members {
		m.startNATS()
	}
	for _, m := range c.members {
		m.AwaitNATS()
	}
}

func (m *member) startNATS() {
	t := m.of.t
	t.Helper()
	config := writeFile(t, filepath.Join(tempDir(t), "nats.conf"), m.natsConfig(), 0o644)
	m.nats = start(t, "nats-server "+m.name, (&nms{netns: m.netns}).here("nats-server", "-c", config))
}

// AwaitNATS waits until this server says that it is well, JetStream included.
func (m *member) AwaitNATS() {
	t := m.of.t
	t.Helper()
	sandbox.Await(t, 3*patience, "nats-server at "+m.name, func() error {
		if m.nats.over(0) {
			t.Fatalf("nats-server at %s has ended: %v\n%s", m.name, m.nats.state, m.nats.Stderr())
		}
		return m.get("http://127.0.0.1:8222/healthz")
	})
}

// get asks a page inside the member's namespace.
func (m *member) get(url string) error {
	out, err := (&nms{netns: m.netns}).here("curl", "-sS", "--max-time", "2", url).CombinedOutput()
	if err == nil && !strings.Contains(string(out), `"ok"`) {
		err = errors.New("not ok")
	}
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// StopNATS kills a server as a power cut does.
func (m *member) StopNATS() {
	m.of.t.Helper()
	m.nats.Signal(unix.SIGKILL)
	m.nats.Exit(patience)
}

// Start runs a member's station.
func (m *member) Start() {
	t := m.of.t
	t.Helper()
	if m.served == nil {
		dir := tempDir(t)
		n := *m.of.nms
		n.netns = m.netns
		m.served = &served{t: t, nms: &n, dir: dir, registry: filepath.Join(dir, "devices"), socket: filepath.Join(dir, "s"), sockets: filepath.Join(dir, "d"),
			addr: net.JoinHostPort(m.ip, callPort), args: append(m.clusterArgs(), m.of.args...)}
		if err := os.Mkdir(m.registry, 0o755); err != nil {
			t.Fatal(err)
		}
		if m.of.large {
			m.sockets = ""
			readToTheEnd(t, m.served.nms.here("sysctl", "-q", "-w", "net.core.somaxconn=32768", "net.ipv4.tcp_max_syn_backlog=32768"))
		}
	}
	m.begin()
	p := m.process
	t.Cleanup(func() { // what of its log is about the cluster
		if t.Failed() {
			for line := range strings.Lines(readFile(t, p.stderr)) {
				if strings.Contains(line, "cluster") || strings.Contains(line, "registry read") {
					t.Logf("%s: %s", m.name, strings.TrimSpace(line))
				}
			}
		}
	})
}

// Kill ends a station as a power cut does, but for its sockets: the kernel closes them.
func (m *member) Kill() {
	m.of.t.Helper()
	m.client.Close()
	m.Signal(unix.SIGKILL)
	m.Exit(patience)
}

// holds is how many devices a member itself holds.
func (m *member) holds() int {
	m.of.t.Helper()
	var s nmsproto.Status
	if err := m.ask(nmsproto.MethodStatus, nil, &s); err != nil {
		return -1
	}
	for _, one := range s.Stations {
		if one.Name == m.name {
			return one.Connected
		}
	}
	return s.Devices[nmsproto.Connected]
}

// held are the devices that a member says are connected, by id with the holder's name.
func (m *member) held() (map[string]string, error) {
	var l nmsproto.DeviceList
	if err := m.ask(nmsproto.MethodDevices, nil, &l); err != nil {
		return nil, err
	}
	out := make(map[string]string)
	for _, d := range l.Devices {
		if d.State == nmsproto.Connected {
			out[d.ID] = d.Station
		}
	}
	return out, nil
}

// perDevice is how long is waited between two looks at each device of a station, which
// take processor time.
const perDevice = 20 * time.Microsecond

// AwaitHeld waits until each running member knows that all of n devices are connected, at
// a station that runs, and returns how many each station holds.
func (c *stations) AwaitHeld(limit time.Duration, n int) map[string]int {
	c.t.Helper()
	var count map[string]int
	sandbox.Await(c.t, limit, fmt.Sprintf("%d devices at the stations", n), func() error {
		time.Sleep(perDevice * time.Duration(n))
		for _, m := range c.members {
			if m.served == nil || m.over(0) {
				continue
			}
			held, err := m.held()
			if err != nil {
				return err
			}
			count = make(map[string]int)
			for id, at := range held {
				if of := c.of(at); of == nil || of.served == nil || of.over(0) {
					return fmt.Errorf("%s says that %s is at %q", m.name, id, at)
				}
				count[at]++
			}
			if len(held) != n {
				return fmt.Errorf("%s knows %d: %v", m.name, len(held), count)
			}
		}
		return nil
	})
	return count
}

func (c *stations) of(name string) *member {
	for _, m := range c.members {
		if m.name == name {
			return m
		}
	}
	return nil
}

// Write writes the entries of stand-ins to a directory, as `devices import` reads it.
func (c *stations) Write(dir string, s *standIns) {
	c.t.Helper()
	for i, key := range s.keys {
		entry, err := json.Marshal(object{"id": s.id(i), "host-keys": []string{key}})
		if err != nil {
			c.t.Fatal(err)
		}
		writeFile(c.t, filepath.Join(dir, s.id(i)+".json"), string(entry), 0o644)
	}
}

// natsURLs are the servers of all.
func (c *stations) natsURLs() string {
	var urls []string
	for _, m := range c.members {
		urls = append(urls, "tls://"+net.JoinHostPort(m.ip, natsPort))
	}
	return strings.Join(urls, ",")
}

// natsOptions are how a user reaches NATS, with the certificate of that name.
func (c *stations) natsOptions(name string) []string {
	dir := filepath.Join(c.ca, name)
	return []string{"--cluster", c.natsURLs(), "--cluster-ca", filepath.Join(dir, "ca.crt"),
		"--cluster-cert", filepath.Join(dir, "station.crt"), "--cluster-key", filepath.Join(dir, "station.key")}
}

func (m *member) clusterArgs() []string {
	return append(m.of.natsOptions(m.name), "--station", m.name, "--peer-directory", filepath.Join(m.of.ca, m.name), "--peer-address", net.JoinHostPort(m.ip, peerPort))
}

// natsConfig is the configuration of the examples, for this member.
func (m *member) natsConfig() string {
	t := m.of.t
	t.Helper()
	config := readFile(t, "../../examples/cluster/nats.conf")
	for from, to := range map[string]string{
		"server_name: north": "server_name: " + m.name, "/etc/callhome-nms/cluster/": filepath.Join(m.of.ca, m.name) + "/", "/var/lib/nats": m.store, "192.0.2.": m.of.prefix,
	} {
		if !strings.Contains(config, from) {
			t.Fatalf("the example has no %q", from)
		}
		config = strings.ReplaceAll(config, from, to)
	}
	return config
}

// StartAll starts NATS, creates the buckets, starts the stations and registers stand-ins.
func (c *stations) StartAll(s *standIns) {
	c.t.Helper()
	c.StartNATS()
	c.CreateBuckets()
	for _, m := range c.members {
		m.Start()
	}
	c.AwaitMembers()
	dir := filepath.Join(tempDir(c.t), "devices")
	if err := os.Mkdir(dir, 0o755); err != nil {
		c.t.Fatal(err)
	}
	c.Write(dir, s)
	imported := start(c.t, "callhome-nms devices import", c.members[0].Command("devices", "import", dir))
	if status := imported.Exit(patience + time.Duration(len(s.keys))*perEntry); status != 0 {
		c.t.Fatalf("importing the devices: exit status %d: %s", status, imported.Stderr())
	}
	for _, m := range c.members {
		m.AwaitKnown(len(s.keys))
	}
}

// CreateBuckets creates them on all servers.
func (c *stations) CreateBuckets() {
	c.t.Helper()
	argv := append([]string{"cluster", "buckets", "--replicas", fmt.Sprint(len(c.members)), "--lease", c.lease.String()}, c.natsOptions("operator")...)
	sandbox.Await(c.t, 3*patience, "the buckets", func() error {
		out, err := c.nms.here(append([]string{binDir + "/callhome-nms"}, argv...)...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
}

// perEntry is how long the import of an entry may take.
const perEntry = 5 * time.Millisecond

// AwaitKnown waits until a member's registry has so many devices.
func (m *member) AwaitKnown(n int) {
	m.of.t.Helper()
	sandbox.Await(m.of.t, 3*patience+time.Duration(n)*perEntry, "the registry of "+m.name, func() error {
		time.Sleep(perDevice * time.Duration(n))
		if got := len(m.List().Devices); got != n {
			return fmt.Errorf("it has %d devices", got)
		}
		return nil
	})
}

// AwaitMembers waits until each running station sees that all running ones are alive, and
// the others are not.
func (c *stations) AwaitMembers() {
	c.t.Helper()
	sandbox.Await(c.t, 3*patience, "the members", func() error {
		for _, m := range c.members {
			if m.served == nil || m.over(0) {
				continue
			}
			var s nmsproto.Status
			if err := m.ask(nmsproto.MethodStatus, nil, &s); err != nil {
				return err
			}
			if s.ClusterError != "" {
				return fmt.Errorf("%s: %s", m.name, s.ClusterError)
			}
			alive := make(map[string]bool)
			for _, one := range s.Stations {
				alive[one.Name] = one.Alive
			}
			for _, other := range c.members {
				if up := other.served != nil && !other.over(0); alive[other.name] != up {
					return fmt.Errorf("%s sees %s alive: %v", m.name, other.name, !up)
				}
			}
		}
		return nil
	})
}
