// bench measures what a call home costs before sshd says its first word: the
// time from starting a program to the first byte of the SSH version string at
// the listener. Each way is measured in the same run, in an order drawn anew
// every round, so that what else the machine does hits all alike; what counts
// is the ratio to bare sshd. `make bench` runs it.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"callhome/internal/sshdexec"
)

// way is one manner of getting sshd onto a connection.
type way struct {
	name string
	// command is the program that dials the port itself; nil: sshd is started
	// on a socket that is connected already.
	command func(port string) *exec.Cmd
	times   []time.Duration
}

func main() {
	rounds := flag.Int("rounds", 100, "rounds of each way")
	trigger := flag.String("trigger", "bin/callhome-trigger", "the trigger under test")
	gofloor := flag.String("gofloor", "bin/gofloor", "the least Go program")
	sshd := flag.String("sshd", "/usr/sbin/sshd", "sshd")
	config := flag.String("sshd-config", "packaging/sshd_config", "its configuration, for all ways")
	flag.Parse()
	if err := run(*rounds, *trigger, *gofloor, *sshd, *config); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(rounds int, trigger, gofloor, sshd, config string) error {
	dir, err := os.MkdirTemp("", "callhome-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	key := filepath.Join(dir, "host_key")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key).CombinedOutput(); err != nil {
		return fmt.Errorf("making a host key: %w: %s", err, out)
	}
	if err := os.MkdirAll(sshdexec.PrivsepDir, 0o755); err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	// What the trigger will start, to the letter, is what the floors start.
	cmd := sshdexec.Command{Sshd: sshd, Config: config, HostKeys: []string{key}, Subsystem: "/bin/cat"}
	args := cmd.Args()
	env := append(os.Environ(), "CALLHOME_SSHD="+sshd, "CALLHOME_SSHD_CONFIG="+config,
		"CALLHOME_HOST_KEY="+key, "CALLHOME_SUBSYSTEM=/bin/cat", "CALLHOME_DEFAULTS=/dev/null",
		"CALLHOME_MANAGER_SOCKET="+filepath.Join(dir, "no-manager"))
	log, err := os.OpenFile(filepath.Join(dir, "log"), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	ways := []*way{
		{name: "bare sshd -i"},
		{name: "least Go program", command: func(port string) *exec.Cmd {
			return exec.Command(gofloor, append([]string{port}, args...)...)
		}},
		{name: "via main", command: func(port string) *exec.Cmd {
			c := exec.Command(trigger, "--log-level=warn", "127.0.0.1", port)
			c.Env = env
			return c
		}},
		{name: "callhome-trigger", command: func(port string) *exec.Cmd {
			c := exec.Command(trigger, "127.0.0.1", port)
			c.Env = env
			return c
		}},
	}
	const warmup = 3
	for i := range rounds + warmup {
		for _, n := range rand.Perm(len(ways)) {
			took, err := ways[n].measure(l, args, log)
			if err != nil {
				words, _ := os.ReadFile(log.Name())
				return fmt.Errorf("%s: %w\n%s", ways[n].name, err, bytes.TrimSpace(words))
			}
			if i >= warmup {
				ways[n].times = append(ways[n].times, took)
			}
		}
	}
	print(ways, rounds)
	return nil
}

// measure makes one call home and returns the time to its first byte.
func (w *way) measure(l net.Listener, args []string, log *os.File) (time.Duration, error) {
	port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	var cmd *exec.Cmd
	var peer net.Conn
	if w.command == nil {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			return 0, err
		}
		if peer, err = l.Accept(); err != nil {
			return 0, err
		}
		sock, err := conn.(*net.TCPConn).File()
		conn.Close()
		if err != nil {
			return 0, err
		}
		defer sock.Close()
		cmd = exec.Command(args[0], args[1:]...)
		cmd.Stdin, cmd.Stdout = sock, sock
	} else {
		cmd = w.command(port)
	}
	cmd.Stderr = log
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	if peer == nil {
		var err error
		if err = l.(*net.TCPListener).SetDeadline(begin.Add(5 * time.Second)); err != nil {
			return 0, err
		}
		if peer, err = l.Accept(); err != nil {
			return 0, errors.Join(err, cmd.Wait())
		}
	}
	first := make([]byte, 4)
	_, err := io.ReadFull(peer, first[:1])
	took := time.Since(begin)
	if err == nil {
		_, err = io.ReadFull(peer, first[1:])
	}
	if err == nil && string(first) != "SSH-" {
		err = fmt.Errorf("the first bytes are %q", first)
	}
	peer.Close()
	_ = cmd.Wait() // 255: the client hung up
	return took, err
}

func print(ways []*way, rounds int) {
	fmt.Printf("start to first SSH banner byte, %d rounds, interleaved\n", rounds)
	fmt.Printf("%-20s %10s %10s %8s\n", "", "median ms", "p95 ms", "ratio")
	for _, w := range ways {
		fmt.Printf("%-20s %10.2f %10.2f %8.2f\n", w.name, ms(w.at(50)), ms(w.at(95)), float64(w.at(50))/float64(ways[0].at(50)))
	}
}

func (w *way) at(percent int) time.Duration {
	slices.Sort(w.times)
	return w.times[len(w.times)*percent/100]
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
