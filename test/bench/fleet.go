package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"callhome/internal/nms/sshtest"

	"golang.org/x/sys/unix"
)

// Sizes of the hostile crowd of a fleet.
const (
	hostileVersions = 1024
	hostileKeys     = 64
	hostileFloods   = 4
)

// ownFiles is how many descriptors a station has that are of no device: those that it
// keeps (daemon.Kept), and its own files.
const ownFiles = 200

// fleetSettles is how long a fleet is left alone before the idle station is measured,
// for idleTime: one round of keepalives.
const fleetSettles, idleTime = 20 * time.Second, 30 * time.Second

// fleet measures a station with -n devices: their first calls at once, the idle station,
// its restart, its kill in a hostile crowd, and a drain.
func fleet(f *fixture) error {
	n := *devices
	const others = heldBefore + ownFiles
	if err := enoughDescriptors(uint64(n + others)); err != nil {
		return err
	}
	doors := enoughDescriptors(uint64(2*n+others+heldBefore)) == nil
	dir := f.path("fleet")
	if err := writeRegistry(dir, heldBefore+n+hostileFloods); err != nil {
		return err
	}
	st, err := f.startStation(dir, "127.0.0.1:0", doors)
	if err != nil {
		return err
	}
	defer st.end()
	if err := st.hold(); err != nil {
		return err
	}
	g, err := st.fleet(heldBefore, n)
	if err != nil {
		return err
	}
	kernel := unix.Utsname{}
	_ = unix.Uname(&kernel)
	without := ""
	if !doors {
		without = ", without device sockets"
	}
	queue, err := os.ReadFile("/proc/sys/net/core/somaxconn")
	if err != nil {
		return err
	}
	fmt.Printf("%d devices%s, net.core.somaxconn %s, %s, %d processors, Linux %s, %s\n\n", n, without, bytes.TrimSpace(queue), time.Now().UTC().Format(time.DateOnly), runtime.NumCPU(), unix.ByteSliceToString(kernel.Release[:]), runtime.Version())
	fmt.Println("| what happens | half, 99 %, all logged in after | calls without a login | processor time a login: station, devices | sessions, failed | p50, p99 |")
	fmt.Println("|---|---|---|---|---|---|")

	before, _ := memory(st.cmd.Process.Pid)
	if err := st.phase("all call at once", g, n, func() error { return g.begin() }); err != nil {
		return err
	}
	held, _ := memory(st.cmd.Process.Pid)
	time.Sleep(fleetSettles)
	ticks := cpu(st.cmd.Process.Pid)
	time.Sleep(idleTime)
	idle := float64(cpu(st.cmd.Process.Pid)-ticks) * 10 / float64(idleTime.Milliseconds()) * 100
	settled, _ := memory(st.cmd.Process.Pid)
	figures, err := st.metrics()
	if err != nil {
		return err
	}

	var stopped, started time.Duration
	if err := st.phase("the station is restarted", g, n, func() (err error) {
		stopped, started, err = st.restart(unix.SIGTERM)
		return err
	}); err != nil {
		return err
	}
	for _, c := range []struct {
		kind string
		n    int
	}{{"versions", hostileVersions}, {"keys", hostileKeys}, {"flood", hostileFloods}} {
		if err := st.crowd(15, c.kind, heldBefore+n, c.n); err != nil {
			return err
		}
	}
	time.Sleep(25 * time.Second) // schedule calls at once only after a session of that length
	if err := st.phase("the station is killed and started in a hostile crowd", g, n, func() error {
		_, _, err := st.restart(unix.SIGKILL)
		return err
	}); err != nil {
		return err
	}
	drained, err := st.drain(n / 10)
	if err != nil {
		return err
	}

	fmt.Printf("\n| the station | |\n|---|---|\n")
	for _, r := range []struct{ name, value string }{
		{"resident memory a device, after the storm", fmt.Sprintf("%.1f KiB", float64(held-before)/float64(n))},
		{fmt.Sprintf("… after %v", fleetSettles+idleTime), fmt.Sprintf("%.1f KiB", float64(settled-before)/float64(n))},
		{"heap in use, stacks in use, a device", fmt.Sprintf("%.1f, %.1f KiB", figures["go_memstats_heap_inuse_bytes"]/1024/float64(n), figures["go_memstats_stack_inuse_bytes"]/1024/float64(n))},
		{"goroutines, descriptors a device", fmt.Sprintf("%.2f, %.2f", figures["go_goroutines"]/float64(n), figures["process_open_fds"]/float64(n))},
		{"idle, with keepalives every 30 s", fmt.Sprintf("%.1f %% of a processor", idle)},
		{"SIGTERM until it has ended", fmt.Sprintf("%.1f s", stopped.Seconds())},
		{"start until it accepts calls", fmt.Sprintf("%.1f s", started.Seconds())},
		{fmt.Sprintf("`drain --rate %d`", n/10), fmt.Sprintf("%.1f s", drained.Seconds())},
	} {
		fmt.Printf("| %s | %s |\n", r.name, r.value)
	}
	return nil
}

// enoughDescriptors raises the limit of descriptors to that many, if it is lower. The
// station takes one for each device, and one for each device socket.
func enoughDescriptors(n uint64) error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	if limit.Cur >= n {
		return nil
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: n, Max: max(n, limit.Max)}); err != nil {
		return fmt.Errorf("raising the limit of %d descriptors to %d: %w", limit.Cur, n, err)
	}
	return nil
}

// writeRegistry writes an entry for each of n devices.
func writeRegistry(dir string, n int) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	for i := range n {
		host, err := hostKey(i)
		if err != nil {
			return err
		}
		entry := fmt.Sprintf(`{"id": "d%d", "host-keys": [%q]}`, i, sshtest.Line(host.PublicKey()))
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("d%d.json", i)), []byte(entry), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// phaseLimit bounds how long n devices may take to log in.
func phaseLimit(n int) time.Duration {
	return max(90*time.Second, time.Duration(n)*10*time.Millisecond)
}

// phase does something that makes n devices log in, and prints a row.
func (s *stormStation) phase(name string, g *generator, n int, do func() error) error {
	logins, failed := g.counts()
	probed := s.probe()
	begun, others := time.Now(), s.crowdTicks()
	if err := do(); err != nil {
		return err
	}
	ticks := 0
	if time.Since(begun) < 100*time.Millisecond { // else the process is a new one
		ticks = cpu(s.cmd.Process.Pid)
	}
	marks := []struct {
		devices int
		after   time.Duration
	}{{n / 2, 0}, {n * 99 / 100, 0}, {n, 0}}
	all := &marks[len(marks)-1].after
	for *all == 0 && time.Since(begun) < phaseLimit(n) {
		time.Sleep(20 * time.Millisecond)
		now, _ := g.counts()
		for i, m := range marks {
			if m.after == 0 && now-logins >= m.devices {
				marks[i].after = time.Since(begun)
			}
		}
	}
	took, others := cpu(s.cmd.Process.Pid)-ticks, s.crowdTicks()-others
	p := probed()
	now, failedNow := g.counts()
	allText := fmt.Sprintf("%.1f s", all.Seconds())
	if *all == 0 {
		allText = fmt.Sprintf("%d of %d", now-logins, n)
	}
	fmt.Printf("| %s | %.1f, %.1f, %s | %d | %.2f, %.2f ms | %d, %d | %.1f, %.1f ms |\n", name, marks[0].after.Seconds(), marks[1].after.Seconds(), allText, failedNow-failed,
		float64(took)*10/float64(max(1, now-logins)), float64(others)*10/float64(max(1, now-logins)), len(p.times), p.failed, ms(p.times[len(p.times)/2]), ms(p.times[len(p.times)*99/100]))
	return nil
}

// crowdTicks is the processor time of all peers so far.
func (s *stormStation) crowdTicks() (ticks int) {
	for _, c := range s.crowds {
		ticks += cpu(c.Process.Pid)
	}
	return ticks
}

// restart ends the station with a signal, and starts it again at the same address.
func (s *stormStation) restart(with unix.Signal) (stopped, started time.Duration, err error) {
	begun := time.Now()
	if err := s.cmd.Process.Signal(with); err != nil {
		return 0, 0, err
	}
	_ = s.cmd.Wait()
	stopped = time.Since(begun)
	again, err := s.f.startStation(s.dir, s.addr, s.doors != "")
	if err != nil {
		return 0, 0, err
	}
	s.cmd, s.status = again.cmd, again.status
	return stopped, time.Since(begun) - stopped, nil
}

// drain empties the station, and returns how long that took.
func (s *stormStation) drain(rate int) (time.Duration, error) {
	begun := time.Now()
	cmd := exec.Command(program("callhome-nms"), "drain", "--socket", s.f.path("nms-storm"), "--rate", strconv.Itoa(max(1, rate)), "--session-time", "0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("draining: %w: %s", err, out)
	}
	return time.Since(begun), nil
}

// metrics returns the station's figures by name, with their labels.
func (s *stormStation) metrics() (map[string]float64, error) {
	client := http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		return net.Dial("unix", s.f.path("metrics-storm"))
	}}}
	answer, err := client.Get("http://callhome/metrics")
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	out := make(map[string]float64)
	for lines := bufio.NewScanner(answer.Body); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), " ")
		if n, err := strconv.ParseFloat(value, 64); err == nil {
			out[name] = n
		}
	}
	return out, nil
}
