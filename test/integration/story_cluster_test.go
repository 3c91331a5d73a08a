//go:build integration

package integration

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"callhome/test/sandbox"

	"callhome/internal/device/schedule"
	"callhome/internal/nms/control"
	"callhome/internal/nms/nmsproto"
	"callhome/internal/nms/peering"
	"callhome/internal/nms/sshtest"
	"callhome/internal/proto"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

// fleetSize is how many stand-ins the stories of a cluster have. `make cluster-proof` has
// more.
func fleetSize(t *testing.T) int {
	t.Helper()
	if n := os.Getenv("CALLHOME_CLUSTER_DEVICES"); n != "" {
		return atoi(t, n)
	}
	return 60
}

// often is how many devices the limits of the stories are for. Where there are more, the
// processors of one machine need more time for their logins.
const often, perLogin = 3000, 5 * time.Millisecond

// within is a limit, or more for a large fleet.
func (f *fleet) within(limit time.Duration) time.Duration {
	return limit + time.Duration(max(0, f.many-often))*perLogin
}

// fleet is a cluster with its devices.
type fleet struct {
	*stations
	*callers
	t    *testing.T
	many int
}

// spread is the policy of the devices: docs/cluster.md says why.
var spreadOut = schedule.Policy{MaxAttempts: 1, StartWith: schedule.RandomSelection}

// newFleet starts three stations and the devices, all connected.
func newFleet(t *testing.T) *fleet {
	t.Helper()
	f := &fleet{stations: newStations(t, "north", "south", "west"), t: t, many: fleetSize(t)}
	f.args = []string{"--log-level", "info"}
	f.large = f.many > 5000
	begin := time.Now()
	all := newStandIns(t, f.many, f.nms)
	f.StartAll(all)
	t.Logf("three stations and servers, %d entries imported and known everywhere: %v", f.many, since(begin))
	t.Cleanup(func() {
		for _, m := range f.members {
			if t.Failed() && m.served != nil {
				t.Logf("events of %s: %v", m.name, m.causes())
			}
		}
	})
	begin = time.Now()
	each := 3 * time.Millisecond
	if f.large {
		each = perLogin
	}
	f.callers = f.KeepConnected(all, time.Duration(f.many)*each, spreadOut, f.everywhere()...)
	spread := f.AwaitHeld(f.within(6*patience), f.many)
	t.Logf("%d devices have called and are known everywhere: %v; %v", f.many, since(begin), spread)
	return f
}

// causes counts the events that a station has published, by kind and cause.
func (m *member) causes() map[string]int {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make(map[string]int)
	for _, e := range m.seen {
		out[e.Event+" "+strings.ReplaceAll(e.Cause, e.Address, "…")] += 1 + e.Unsaid
	}
	return out
}

func since(t time.Time) time.Duration { return time.Since(t).Round(10 * time.Millisecond) }

// everywhere are the stations' addresses for devices.
func (c *stations) everywhere() (all []string) {
	for _, m := range c.members {
		all = append(all, m.addr)
	}
	return all
}

// AwaitSettled is AwaitHeld, and wants that the stations together hold each device once.
func (f *fleet) AwaitSettled(limit time.Duration) map[string]int {
	f.t.Helper()
	spread := f.AwaitHeld(f.within(limit), f.many)
	sandbox.Await(f.t, patience, "each device to be held once", func() error {
		own := make(map[string]int)
		sum := 0
		for _, m := range f.members {
			if m.over(0) {
				continue
			}
			own[m.name] = m.holds()
			sum += own[m.name]
		}
		if sum != f.many {
			return fmt.Errorf("of %d they hold %v", f.many, own)
		}
		return nil
	})
	return spread
}

// heldBy are some devices that a station holds.
func (f *fleet) heldBy(name string) []string {
	f.t.Helper()
	held, err := f.running().held()
	if err != nil {
		f.t.Fatal(err)
	}
	var ids []string
	for _, id := range slices.Sorted(maps.Keys(held)) {
		if held[id] == name && strings.HasPrefix(id, "d") {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		f.t.Fatalf("%s holds no device: %v", name, held)
	}
	return ids
}

// running is a station that runs.
func (c *stations) running() *member {
	for _, m := range c.members {
		if m.served != nil && !m.over(0) {
			return m
		}
	}
	c.t.Fatal("no station runs")
	return nil
}

// talk is a session with a stand-in, which sends back what it gets.
type talk struct {
	*control.Stream
	at, id string
	n      int
}

// open opens a session with a device at a station.
func (m *member) open(id string) (*talk, error) {
	s, err := control.Open(context.Background(), m.socket, id)
	if err != nil {
		return nil, err
	}
	k := &talk{Stream: s, at: m.name, id: id}
	if err := k.say(); err != nil {
		s.Close()
		return nil, err
	}
	return k, nil
}

// say sends a line and wants it back.
func (k *talk) say() error {
	k.n++
	line := fmt.Sprintf("line %d to %s\n", k.n, k.id)
	_ = k.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(k.Stream, line); err != nil {
		return fmt.Errorf("with %s at %s: %w", k.id, k.at, err)
	}
	back := make([]byte, len(line))
	if _, err := io.ReadFull(k.Stream, back); err != nil || string(back) != line {
		_, why := k.Wait()
		return fmt.Errorf("with %s at %s: %q, %w, %w", k.id, k.at, back, err, why)
	}
	return nil
}

// leave ends a session in order.
func (k *talk) leave() error {
	if err := k.CloseWrite(); err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, k.Stream)
	out, err := k.Wait()
	k.Close()
	if err == nil && (out.ExitStatus == nil || *out.ExitStatus != 0) {
		err = fmt.Errorf("with %s at %s: the end is %+v", k.id, k.at, out)
	}
	return err
}

// everyPair opens a session at each station with a device of each, and returns them by
// "STATION HOLDER".
func (f *fleet) everyPair() map[string]*talk {
	f.t.Helper()
	out := make(map[string]*talk)
	for _, at := range f.members {
		for _, holder := range f.members {
			if at.over(0) || holder.over(0) {
				continue
			}
			k, err := at.open(f.heldBy(holder.name)[0])
			if err != nil {
				f.t.Fatalf("at %s with a device of %s: %v", at.name, holder.name, err)
			}
			out[at.name+" "+holder.name] = k
		}
	}
	return out
}

// unhurt wants that sessions go on, and ends them, but for those at or with a station that
// was restarted.
func (f *fleet) unhurt(sessions map[string]*talk, restarted ...string) {
	f.t.Helper()
	n := 0
	for name, k := range sessions {
		if slices.ContainsFunc(restarted, func(one string) bool { return strings.Contains(name, one) }) {
			k.Close()
			continue
		}
		n++
		if err := k.say(); err != nil {
			f.t.Errorf("a session has ended: %v", err)
			continue
		}
		if err := k.leave(); err != nil {
			f.t.Error(err)
		}
	}
	f.t.Logf("  %d sessions went on", n)
}

// row reports how long devices were away.
func (f *fleet) row(what string, begin time.Time, most time.Duration) {
	f.t.Helper()
	gaps, open := f.Away(begin)
	f.t.Logf("| %s | %d | %v | %v | %v |", what, len(gaps), percent(gaps, 50), percent(gaps, 99), percent(gaps, 100))
	if len(open) > 0 {
		f.t.Errorf("%s: %d devices are still away: %v", what, len(open), open[:min(5, len(open))])
	}
	if longest := percent(gaps, 100); longest > f.within(most) {
		f.t.Errorf("%s: a device was away for %v, expected at most %v", what, longest, most)
	}
}

// Each device is reached at each station, by every way that there is, and one that is
// adopted anywhere is known everywhere.
func TestAClusterIsOneStation(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	for name, k := range f.everyPair() {
		if err := k.leave(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// The holder's log has the caller.
	id := f.heldBy("south")[0]
	k, err := f.of("north").open(id)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.leave(); err != nil {
		t.Error(err)
	}
	f.of("south").AwaitStderr("session of another station begins: device=" + id + " station=north user=root uid=0")

	f.wrongCertificates()
	f.sessionTimes()
	f.loginTimes()
	f.adoption()
	f.realDevices()
}

// Import registers a device at a station.
func (f *fleet) Import(at, id, hostKey string) {
	f.t.Helper()
	dir := tempDir(f.t)
	writeFile(f.t, filepath.Join(dir, id+".json"), fmt.Sprintf(`{"id": %q, "host-keys": [%q]}`, id, publicKey(f.t, hostKey)), 0o644)
	sandbox.Await(f.t, patience, "the import of "+id, func() error { // NATS may elect a leader
		out, err := f.of(at).Command("devices", "import", dir).CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		return err
	})
}

// wrongCertificates are a certificate of the CA that is of no station, and one of a station that
// is denied. The command is docs/cluster.md's.
func (f *fleet) wrongCertificates() {
	t := f.t
	operator, err := peering.Load("operator", filepath.Join(f.ca, "operator"), nil)
	if err != nil {
		t.Fatal(err)
	}
	err = atNetns(t, f.outside, func() error {
		_, _, err := peering.NewClient(operator).Settle(t.Context(), peering.Peer{Station: "north", Address: net.JoinHostPort(f.of("north").ip, peerPort)}, "d0")
		return err
	})
	if err == nil || !strings.Contains(err.Error(), `station north knows no station "operator"`) {
		t.Errorf("the operator's certificate: %v", err)
	}
	sandbox.Need(t, "openssl")
	id := f.heldBy("south")[0]
	k, err := f.of("north").open(id)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	out := readToTheEnd(t, exec.Command("openssl", "x509", "-noout", "-fingerprint", "-sha256", "-in", filepath.Join(f.ca, "north", "station.crt")))
	denied := writeFile(t, filepath.Join(f.ca, "south", "denied"), out, 0o644)
	f.of("south").Signal(unix.SIGHUP)
	if _, err := k.Wait(); err == nil || !strings.Contains(err.Error(), "device "+id+" of station south: it closed the stream before the result") {
		t.Errorf("a session by a certificate that is denied: %v", err)
	}
	if _, err := f.of("north").open(id); err == nil || !strings.Contains(err.Error(), "it refuses the certificate of this station") {
		t.Errorf("a certificate that is denied: %v", err)
	}
	if err := os.Remove(denied); err != nil {
		t.Fatal(err)
	}
	k, err = f.of("north").open(id)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.leave(); err != nil {
		t.Error(err)
	}
}

// sessionTimes compares a session at the holder and one hop away.
func (f *fleet) sessionTimes() {
	t := f.t
	const times = 40
	took := make(map[bool][]time.Duration)
	id := f.heldBy("south")[0]
	for i := range 2 * times {
		hop := i%2 == 1
		at := f.of("south")
		if hop {
			at = f.of("north")
		}
		begin := time.Now()
		k, err := at.open(id)
		if err != nil {
			t.Fatal(err)
		}
		took[hop] = append(took[hop], time.Since(begin))
		if err := k.leave(); err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(took[false])
	slices.Sort(took[true])
	here, there := took[false][times/2], took[true][times/2]
	t.Logf("| a session to its first answer, at the holder / one hop away | %v | %v | %.2f |", here.Round(10*time.Microsecond), there.Round(10*time.Microsecond), float64(there)/float64(here))
}

// loginTimes compares logins at a station of the cluster and at one without a cluster: from
// dial to the login, and the station's processor time until all stations know it.
func (f *fleet) loginTimes() {
	t := f.t
	const times = 100
	here := *f.nms
	here.netns = ""
	alone := startStation(&here, "--log-level", "info")
	networks := map[string]*nms{alone.addr: &here}
	callers := newStandIns(t, times, f.nms)
	dir := tempDir(t)
	for i, key := range callers.keys {
		id := fmt.Sprintf("login%d", i)
		writeFile(t, filepath.Join(dir, id+".json"), fmt.Sprintf(`{"id": %q, "host-keys": [%q]}`, id, key), 0o644)
		alone.write(id, fmt.Sprintf(`{"id": %q, "host-keys": [%q]}`, id, key))
	}
	north := f.of("north")
	known := len(north.List().Devices)
	north.Run("devices", "import", dir)
	for _, m := range f.members {
		m.AwaitKnown(known + times)
	}
	alone.awaitEntry(fmt.Sprintf("login%d", times-1))
	took := make(map[string][]time.Duration)
	before := map[string]time.Duration{alone.addr: processorTime(t, alone.pid), north.addr: processorTime(t, north.pid)}
	for i, one := range callers.servers {
		order := []string{alone.addr, north.addr}
		if i%2 == 1 {
			slices.Reverse(order)
		}
		for _, addr := range order {
			server, in := *one, make(chan time.Time, 1)
			server.LoggedIn = func(ssh.Conn) { in <- time.Now() }
			begin := time.Now()
			conn, err := cmp.Or(networks[addr], f.nms).Dial(t.Context(), &net.Dialer{}, addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			go server.Serve(conn)
			select {
			case at := <-in:
				took[addr] = append(took[addr], at.Sub(begin))
			case <-time.After(patience):
				t.Fatalf("no login at %s", addr)
			}
		}
	}
	f.AwaitHeld(patience, f.many+times)
	cost := func(addr string, pid int) time.Duration { return (processorTime(t, pid) - before[addr]) / times }
	slices.Sort(took[alone.addr])
	slices.Sort(took[north.addr])
	a, b := took[alone.addr][times/2], took[north.addr][times/2]
	t.Logf("| a login, without a cluster / with | %v | %v | %.2f |", a.Round(10*time.Microsecond), b.Round(10*time.Microsecond), float64(b)/float64(a))
	cpuA, cpuB := cost(alone.addr, alone.pid), cost(north.addr, north.pid)
	t.Logf("| the station's processor time for it, without / with a claim that all know | %v | %v | %.2f |", cpuA, cpuB, float64(cpuB)/float64(cpuA))
	for i := range times {
		f.of("south").Run("devices", "remove", fmt.Sprintf("login%d", i))
	}
	alone.Stop()
}

// processorTime is what a process has used.
func processorTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	_, rest, _ := strings.Cut(readFile(t, fmt.Sprintf("/proc/%d/stat", pid)), ") ")
	f := strings.Fields(rest)
	return time.Duration(atoi(t, f[11])+atoi(t, f[12])) * 10 * time.Millisecond
}

// adoption has an unknown device call one station, adopts it at another, and wants that
// all know it within a second.
func (f *fleet) adoption() {
	t := f.t
	unknown := newStandIns(t, 1, f.nms)
	unknown.KeepCalling(f.of("west").addr)
	f.of("west").AwaitEvent("unknown", "")
	key, err := ssh.ParsePublicKey(mustKey(t, unknown.keys[0]))
	if err != nil {
		t.Fatal(err)
	}
	fingerprint := ssh.FingerprintSHA256(key)
	for _, m := range f.members {
		sandbox.Await(t, patience, "the unknown caller at "+m.name, func() error {
			for _, u := range m.List().Unknown {
				if u.HostKey == fingerprint {
					return nil
				}
			}
			return fmt.Errorf("it knows %+v", m.List().Unknown)
		})
	}
	begin := time.Now()
	f.of("north").Run("devices", "adopt", fingerprint, "--id", "new")
	command := time.Since(begin)
	var last time.Duration
	for _, m := range f.members {
		sandbox.Await(t, patience, "the new device at "+m.name, func() error { _, err := m.device("new"); return err })
		last = time.Since(begin)
	}
	t.Logf("| adopted at north, known at all three | %v (the command %v) |", last.Round(time.Millisecond), command.Round(time.Millisecond))
	if last-command > time.Second {
		t.Errorf("known everywhere only %v after the command", last-command)
	}
	f.many++
	f.AwaitSettled(patience)
	f.of("south").Run("devices", "remove", "new")
	f.many--
	f.AwaitSettled(patience)
}

func mustKey(t *testing.T, line string) []byte {
	t.Helper()
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
	if err != nil {
		t.Fatal(err)
	}
	return key.Marshal()
}

// realDevices are callhome-mgr, sshd and netconfd, with a document that names all
// stations, reached by `connect`, a device socket and sshd's stanza at each station.
func (f *fleet) realDevices() {
	t := f.t
	server := startNetconfd(t)
	d := newDevice(t, server.Subsystem())
	d.netns = f.outside
	d.options = append(d.options, "--ssh-connection-port", yumaPort)
	d.LetIn(f.nms)
	s := &site{d, f.nms, newHostKey(t, d.dir())}
	f.Import("west", "edge7", strings.TrimSuffix(s.key.file, ".pub"))
	for _, m := range f.members {
		m.awaitEntry("edge7")
	}
	var at []object
	for _, addr := range f.everywhere() {
		at = append(at, s.At(addr))
	}
	client := put(put(persistent("cluster", at...), "random-selection", "reconnect-strategy", "start-with"), 1, "reconnect-strategy", "max-attempts")
	k := s.Keep(document(client))
	k.AwaitState(patience, "cluster", proto.ClientAuthenticated, proto.ClientServing)
	f.many++
	f.AwaitSettled(patience)
	for _, m := range f.members {
		oneSession(t, m.Connect("edge7"), server)
		m.console(server, "<data", "--device", "edge7", "--get-config")
	}
}

// A station that dies, or whose NATS server does, costs the devices of others nothing, and
// its own some seconds.
func TestAClusterLosesAStation(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.awaitGood()
	sessions := f.everyPair()
	begin := time.Now()
	f.of("north").Kill()
	spread := f.AwaitSettled(3 * patience)
	f.row("station killed", begin, 15*time.Second)
	t.Logf("  the others hold %v, known everywhere after %v", spread, since(begin))
	f.Undisturbed(t, begin, f.of("south").addr, f.of("west").addr)
	f.unhurt(sessions, "north")
	f.of("north").Start()
	f.AwaitMembers()
	begin = time.Now()
	f.AwaitSettled(patience)
	for name, k := range f.anyPair() {
		if err := k.leave(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	f.Undisturbed(t, begin, f.everywhere()...)
}

// anyPair opens a session at each station with a device, wherever it is.
func (f *fleet) anyPair() map[string]*talk {
	f.t.Helper()
	out := make(map[string]*talk)
	for i, at := range f.members {
		k, err := at.open(f.id(i))
		if err != nil {
			f.t.Fatalf("at %s: %v", at.name, err)
		}
		out[at.name] = k
	}
	return out
}

// Without NATS, devices and sessions stay, known devices are taken, and what cannot be
// done says so; all is as it was when it is back.
func TestAClusterLosesNATS(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	sessions := f.everyPair()
	begin := time.Now()
	f.of("north").StopNATS()
	f.Import("north", "later", newKey(t, tempDir(t), "hostkey"))
	imported := since(begin)
	for _, m := range f.members {
		m.AwaitKnown(f.many + 1)
	}
	t.Logf("| one NATS server killed, an entry is imported at its station / known everywhere | %v | %v |", imported, since(begin))
	f.AwaitMembers()
	for name, k := range f.everyPair() {
		if err := k.leave(); err != nil {
			t.Errorf("one server less, %s: %v", name, err)
		}
	}
	unknown := newStandIns(t, 1, f.nms)
	unknown.KeepCalling(f.of("west").addr)
	key := f.of("west").AwaitEvent("unknown", "").HostKey
	f.of("south").StopNATS()
	f.of("west").StopNATS()
	for _, m := range f.members {
		sandbox.Await(t, 3*patience, m.name+" without NATS", func() error {
			var s nmsproto.Status
			if err := m.ask(nmsproto.MethodStatus, nil, &s); err != nil || s.ClusterError == "" {
				return fmt.Errorf("its error is %q, %w", s.ClusterError, err)
			}
			return nil
		})
		m.saysNATS("devices", "remove", "later")
	}
	f.of("west").saysNATS("devices", "adopt", key, "--id", "new")
	for name, k := range sessions {
		if err := k.say(); err != nil {
			t.Errorf("without NATS a session has ended, %s: %v", name, err)
		}
	}
	// A station that is started without NATS takes the devices of its copy, here those of
	// west: a device whose session was short calls the next endpoint.
	for _, name := range []string{"north", "west"} {
		begin = time.Now()
		f.of(name).Kill()
		f.of(name).Start()
		sandbox.Await(t, 3*patience, "all devices connected", func() error {
			if n := f.connected(""); n != f.many {
				return fmt.Errorf("%d are", n)
			}
			return nil
		})
		f.row(name+" killed and started without NATS", begin, 20*time.Second)
	}
	if f.connected(f.of("north").addr) == 0 {
		t.Error("no device is at the station that was started without NATS")
	}
	begin = time.Now()
	for _, m := range f.members {
		m.startNATS()
	}
	for _, m := range f.members {
		m.AwaitNATS()
	}
	t.Logf("NATS is back after %v", since(begin))
	f.AwaitMembers()
	f.AwaitSettled(3 * patience)
	t.Logf("all is known everywhere again after %v", since(begin))
	f.Undisturbed(t, begin, f.everywhere()...)
	f.unhurt(sessions, "north", "west")
}

// saysNATS runs a command that must fail for want of NATS.
func (m *member) saysNATS(args ...string) {
	m.of.t.Helper()
	out, err := m.Command(args...).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "NATS cannot be reached") {
		m.of.t.Errorf("%v without NATS: %v, %s", args, err, out)
	}
}

// A station that is cut off from the others, NATS included, serves what it holds. A device
// that leaves it meanwhile, without its knowledge, has one holder after the union.
func TestAClusterIsSplit(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	north := f.of("north")
	sessions := f.everyPair()
	moving := f.heldBy("north")[0]
	begin := time.Now()
	north.CutFrom(f.of("south").ip, f.of("west").ip)
	sandbox.Await(t, 3*patience, "north to be dead for the others", func() error {
		for _, m := range []*member{f.of("south"), f.of("west")} {
			var s nmsproto.Status
			if err := m.ask(nmsproto.MethodStatus, nil, &s); err != nil {
				return err
			}
			for _, one := range s.Stations {
				if one.Name == "north" && one.Alive {
					return fmt.Errorf("%s sees it alive", m.name)
				}
			}
		}
		return nil
	})
	t.Logf("cut off: the others know it after %v", since(begin))
	for _, k := range []*talk{sessions["north north"], sessions["south west"], sessions["west south"], sessions["south south"], sessions["west west"]} {
		if err := k.say(); err != nil {
			t.Errorf("a side does not serve what it holds: %v", err)
		}
	}
	// The device's packets to north vanish: it calls another station.
	i := atoi(t, strings.TrimPrefix(moving, "d"))
	list := strings.Join([]string{f.of("south").ip, f.of("west").ip, f.callers.address(i)}, ", ")
	north.CutFrom(strings.Split(list, ", ")...)
	sandbox.Await(t, 3*patience, moving+" at another station", func() error {
		held, err := f.of("south").held()
		if err == nil && held[moving] != "south" && held[moving] != "west" {
			err = fmt.Errorf("it is at %q", held[moving])
		}
		return err
	})
	begin = time.Now()
	north.CutFrom(f.callers.address(i)) // its old connection stays dead
	f.AwaitMembers()
	f.AwaitSettled(4 * patience)
	t.Logf("healed: one holder of each, known everywhere after %v", since(begin))
	north.Heal()
	f.AwaitSettled(patience)
	held, err := north.held()
	if err != nil || held[moving] == "north" || held[moving] == "" {
		t.Errorf("north says that %s is at %q, %v", moving, held[moving], err)
	}
	for name, k := range sessions {
		k.Close()
		delete(sessions, name)
	}
	for name, k := range f.everyPair() {
		if err := k.leave(); err != nil {
			t.Errorf("after the union, %s: %v", name, err)
		}
	}
}

// A device whose connection is dead without its station's knowledge calls another one,
// which asks the holder; one whose connection lives is a duplicate anywhere.
func TestADeviceCallsAnotherStation(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	id := f.heldBy("north")[0]
	i := atoi(t, strings.TrimPrefix(id, "d"))
	// A second device with its key: it calls south while the first one is at north.
	twin := &standIns{t: t, nms: f.nms, servers: []*sshtest.Server{f.servers[i]}, keys: []string{f.keys[i]}}
	calls, stop := context.WithCancel(context.Background())
	defer stop()
	twin.keepCalling(calls, f.of("south").addr)
	contains(t, "the duplicate", f.of("south").AwaitEvent(nmsproto.EventDuplicate, id).Cause, "north")
	stop()
	f.AwaitSettled(patience)

	begin := time.Now()
	f.of("north").CutFrom(f.callers.address(i))
	sandbox.Await(t, 3*patience, id+" at another station", func() error {
		held, err := f.of("west").held()
		if err == nil && (held[id] == "north" || held[id] == "") {
			err = fmt.Errorf("it is at %q", held[id])
		}
		return err
	})
	f.AwaitSettled(patience)
	f.row("path to the station lost", begin, 30*time.Second)
	f.of("north").Heal()
}

// Stations are restarted one after another, each drained first: no device is away for
// more than 5 s.
func TestStationsAreRestartedOneByOne(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.awaitGood()
	for _, m := range f.members {
		begin := time.Now()
		m.Run("drain", "--rate", f.rate())
		drained := since(begin)
		f.AwaitSettled(patience)
		m.Stop()
		m.Start()
		f.AwaitMembers()
		f.row(fmt.Sprintf("%s drained in %v and restarted", m.name, drained), begin, 5*time.Second)
		f.awaitGood()
		if f.large { // the last station could not hold the devices of all
			f.evenOut()
		}
	}
	f.evenOut()
}

// rate is that of a drain: as many devices log in a second.
func (f *fleet) rate() string { return strconv.Itoa(min(150, max(20, f.many/20))) }

// evenOut has the stations with more than their share of the devices drained down to it,
// as docs/cluster.md says.
func (f *fleet) evenOut() {
	t := f.t
	t.Helper()
	before := f.AwaitSettled(patience)
	share := (f.many + len(f.members) - 1) / len(f.members)
	begin := time.Now()
	drains := make(map[string]*process)
	for _, m := range f.members {
		if before[m.name] > share {
			drains[m.name] = start(t, "callhome-nms drain", m.Command("drain", "--down-to", strconv.Itoa(share), "--rate", f.rate()))
		}
	}
	for name, drain := range drains {
		if got := drain.Exit(f.within(3 * patience)); got != 0 {
			t.Fatalf("draining %s: exit status %d: %s", name, got, drain.Stderr())
		}
	}
	took := since(begin)
	after := f.AwaitSettled(patience)
	f.row(fmt.Sprintf("%v are drained down to %d in %v, and are %v", before, share, took, after), begin, 5*time.Second)
	if most := slices.Max(slices.Collect(maps.Values(after))); len(drains) > 0 && most >= slices.Max(slices.Collect(maps.Values(before))) {
		t.Errorf("drained down to %d the stations hold %v, before %v", share, after, before)
	}
	f.awaitGood()
}
