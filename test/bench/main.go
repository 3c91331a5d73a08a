// bench measures what a call home costs, each figure beside a floor of the same
// run: the rounds of all ways are interleaved in an order drawn anew, so that
// what else the machine does hits all alike. What counts is the ratio. `make
// bench` runs it, as root; it asserts nothing.
package main

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

var (
	rounds  = flag.Int("rounds", 100, "rounds of each way")
	held    = flag.Int("held", 200, "sessions held for memory and idle CPU")
	idle    = flag.Duration("idle", 20*time.Second, "time for which the idle daemon is measured")
	bin     = flag.String("bin", "bin/installed", "directory of the programs")
	beside  = flag.String("beside", "", "directory of the programs of another build, to measure in the same rounds")
	step    = flag.String("step", "", "run only this measurement: banner, hello, steps, throughput, holding, together, station, storm or fleet")
	devices = flag.Int("n", 10000, "devices of the step fleet, which runs only by its name")
	only    = flag.Int("storm", -1, "of the step storm, run only the storm with this number")
	people  = flag.String("crowd", "", "run as the peers of a storm, of this kind")
	give    = flag.String("give", "", "run as ssh's ProxyCommand: pass the descriptor from this socket to ssh")
)

func main() {
	flag.Parse()
	var err error
	switch {
	case *give != "":
		err = beProxyCommand(*give)
	case *people != "":
		err = beCrowd(*people, flag.Args())
	case os.Getenv(furnished) == "":
		err = furnish()
	default:
		err = measureAll()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// measureAll runs the measurements of each OpenSSH, and then the others with the
// machine's own.
func measureAll() error {
	for _, o := range opensshs() {
		if err := measure(o, true); err != nil {
			return err
		}
	}
	return measure(openssh{}, false)
}

// measure runs the measurements that are of each OpenSSH, or those that are not.
func measure(o openssh, each bool) error {
	wanted := func(name string, ofEach bool) bool {
		return ofEach == each && (*step == name || *step == "" && name != "fleet")
	}
	if !slices.ContainsFunc(steps, func(s measurement) bool { return wanted(s.name, s.each) }) {
		return nil
	}
	f, err := newFixture(o)
	if err != nil {
		return err
	}
	defer f.end()
	fmt.Printf("%s\n\n", f.version())
	for _, s := range steps {
		if !wanted(s.name, s.each) {
			continue
		}
		if err := s.run(f); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		fmt.Println()
	}
	return nil
}

type measurement struct {
	name string
	run  func(*fixture) error
	each bool // of each OpenSSH
}

// steps are all measurements, in their order.
var steps = []measurement{
	{"banner", banner, true}, {"hello", hello, true}, {"steps", loginSteps, true},
	{"throughput", throughput, false}, {"holding", holding, false}, {"together", together, false},
	{"station", manyDevices, false}, {"storm", stormyStation, false}, {"fleet", fleet, false},
}

// furnished says that we are in a mount namespace of our own.
const furnished = "CALLHOME_BENCH_FURNISHED"

// world makes the bench's /etc: root's login shell is /bin/sh and runs no start-up
// files, which cost more than all that is measured here; callhome's PAM service is
// installed. $0 is an empty directory.
const world = `set -e
mount --make-rprivate /
printf '%s\n' 'root:x:0:0:root:/nonexistent:/bin/sh' 'sshd:x:105:65534::/run/sshd:/usr/sbin/nologin' > "$0/passwd"
mount --bind "$0/passwd" /etc/passwd
if [ -d /etc/pam.d ]; then
	cp -a /etc/pam.d "$0/pam.d"
	[ ! -e /etc/pam.d/common-session ] || cp packaging/pam.d/callhome.deb "$0/pam.d/callhome"
	[ -e /etc/pam.d/common-session ] || cp packaging/pam.d/callhome.rpm "$0/pam.d/callhome"
	mount --bind "$0/pam.d" /etc/pam.d
fi
exec "$@"`

// furnish starts over in a mount namespace with that world.
func furnish() error {
	dir, err := os.MkdirTemp("", "callhome-bench-etc-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command("/bin/sh", append([]string{"-c", world, dir, self}, os.Args[1:]...)...)
	cmd.Env = append(os.Environ(), furnished+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &unix.SysProcAttr{Unshareflags: unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	return cmd.Run()
}

// way is one manner of doing the same; once does it and returns its time.
type way struct {
	name  string
	once  func() (time.Duration, error)
	times []time.Duration
}

// warmup is how many rounds are run before those that count.
const warmup = 3

// interleave runs all ways n times.
func interleave(n int, ways []*way) error {
	for i := range n + warmup {
		for _, k := range rand.Perm(len(ways)) {
			took, err := ways[k].once()
			if err != nil {
				return fmt.Errorf("%s: %w", ways[k].name, err)
			}
			if i >= warmup {
				ways[k].times = append(ways[k].times, took)
			}
		}
	}
	return nil
}

// report prints the ways; the first one is the floor.
func report(title string, ways []*way) {
	fmt.Println(title)
	fmt.Printf("%-34s %10s %10s %8s\n", "", "median ms", "p95 ms", "ratio")
	for _, w := range ways {
		fmt.Printf("%-34s %10.2f %10.2f %8.2f\n", w.name, ms(w.at(50)), ms(w.at(95)), float64(w.at(50))/float64(ways[0].at(50)))
	}
}

func (w *way) at(percent int) time.Duration {
	sorted := slices.Sorted(slices.Values(w.times))
	return sorted[len(sorted)*percent/100]
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func program(name string) string { return programIn(*bin, name) }

func programIn(dir, name string) string {
	abs, err := filepath.Abs(filepath.Join(dir, name))
	if err != nil {
		return filepath.Join(dir, name)
	}
	return abs
}
