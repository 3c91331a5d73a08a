package main

import (
	"bufio"
	"context"
	_ "embed"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"callhome/internal/nms/control"
	"callhome/internal/nms/nmsproto"
	"callhome/internal/nms/sshtest"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

// standInHello is the first message of a stand-in's NETCONF server.
const standInHello = `<hello xmlns="urn:ietf:params:xml:ns:netconf:base:1.0"><capabilities>` +
	`<capability>urn:ietf:params:netconf:base:1.0</capability></capabilities><session-id>1</session-id></hello>]]>]]>`

// standIn is a device within this process: an SSH server that says hello. Five
// hundred sshds would cost more than what is measured.
type standIn struct{ sshtest.Server }

// newStandIns writes an entry for each to dir.
func (f *fixture) newStandIns(n int, dir string) ([]*standIn, error) {
	text, err := os.ReadFile(f.path("user_key.pub"))
	if err != nil {
		return nil, err
	}
	user, _, _, _, err := ssh.ParseAuthorizedKey(text)
	if err != nil {
		return nil, err
	}
	out := make([]*standIn, n)
	for i := range out {
		host, err := sshtest.NewKey()
		if err != nil {
			return nil, err
		}
		out[i] = &standIn{sshtest.Server{Config: sshtest.LetIn(host, user), Netconf: greet}}
		entry := fmt.Sprintf(`{"id": "d%d", "host-keys": [%q]}`, i, sshtest.Line(host.PublicKey()))
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("d%d.json", i)), []byte(entry), 0o600); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func greet(ch ssh.Channel) uint32 {
	_, _ = io.WriteString(ch, standInHello)
	_, _ = io.Copy(io.Discard, ch)
	return 0
}

// call makes a call home, and serves it until it ends.
func (s *standIn) call(addr string) {
	if conn, err := net.Dial("tcp", addr); err == nil {
		s.Serve(conn)
	}
}

// manyDevices measures what a held device costs the management station and how
// fast devices get in, beside ncclient doing the same.
func manyDevices(f *fixture) error {
	fmt.Printf("%-48s %10s %14s %16s\n", "management station, stand-ins for devices", "devices", "logins a second", "KiB RSS a device")
	if err := f.withServe(*held); err != nil {
		return err
	}
	const some = 100
	return f.withNcclient(some)
}

func row(name string, n int, took time.Duration, kib int) {
	fmt.Printf("%-48s %10d %14.0f %16.0f\n", name, n, float64(n)/took.Seconds(), float64(kib)/float64(n))
}

func (f *fixture) withServe(n int) error {
	dir := f.path("devices")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	devices, err := f.newStandIns(n, dir)
	if err != nil {
		return err
	}
	socket, doors := f.path("nms"), f.path("doors")
	cmd := exec.Command(program("callhome-nms"), "serve", "--listen", "127.0.0.1:0", "--registry", dir, "--socket", socket, "--device-sockets", doors,
		"--group", "", "--user", "root", "--key-file", f.path("user_key"), "--log-level", "error", "--max-per-source", "1000")
	cmd.Stderr = f.log
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	defer func() {
		_ = cmd.Process.Signal(unix.SIGTERM)
		_ = cmd.Wait()
	}()
	status, err := serveStatus(socket)
	if err != nil {
		return err
	}
	st, err := status()
	if err != nil {
		return err
	}
	before, _ := memory(cmd.Process.Pid)
	begin := time.Now()
	for _, d := range devices {
		go d.call(st.Listening[0])
	}
	for st.Devices[nmsproto.Connected] < n {
		if time.Since(begin) > time.Minute {
			return fmt.Errorf("of %d devices %d got in", n, st.Devices[nmsproto.Connected])
		}
		time.Sleep(5 * time.Millisecond)
		if st, err = status(); err != nil {
			return err
		}
	}
	took := time.Since(begin)
	after, _ := memory(cmd.Process.Pid)
	row("callhome-nms serve: logged in and held", n, took, after-before)
	begin = time.Now()
	conns, err := greetAll(doors, n)
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	if err != nil {
		return err
	}
	took += time.Since(begin)
	after, _ = memory(cmd.Process.Pid)
	row("callhome-nms serve: with a NETCONF session each", n, took, after-before)
	return nil
}

// serveStatus connects to the daemon once it answers.
func serveStatus(socket string) (func() (nmsproto.Status, error), error) {
	var err error
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		var c *control.Client
		if c, err = control.Dial(socket); err == nil {
			return func() (st nmsproto.Status, err error) {
				return st, c.Call(context.Background(), nmsproto.MethodStatus, nil, &st)
			}, nil
		}
	}
	return nil, err
}

// greetAll opens a session with every device, by its socket, and reads its
// hello.
func greetAll(doors string, n int) ([]net.Conn, error) {
	conns := make([]net.Conn, n)
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if conns[i], errs[i] = dialDoor(filepath.Join(doors, fmt.Sprintf("d%d.sock", i))); errs[i] != nil {
				return
			}
			hello := make([]byte, len(standInHello))
			_, errs[i] = io.ReadFull(conns[i], hello)
		})
	}
	wg.Wait()
	conns = slices.DeleteFunc(conns, func(c net.Conn) bool { return c == nil })
	for _, err := range errs {
		if err != nil {
			return conns, err
		}
	}
	return conns, nil
}

// dialDoor connects to a device's socket, which comes a moment after the device.
func dialDoor(path string) (conn net.Conn, err error) {
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if conn, err = net.Dial("unix", path); err == nil {
			return conn, nil
		}
	}
	return nil, err
}

//go:embed ncclient_station.py
var ncclientStation string

func (f *fixture) withNcclient(n int) error {
	const python = "/usr/bin/python3"
	if exec.Command(python, "-c", "import ncclient").Run() != nil {
		fmt.Println("ncclient: python3-ncclient is not installed, nothing to stand beside")
		return nil
	}
	dir := f.path("others")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	devices, err := f.newStandIns(n, dir)
	if err != nil {
		return err
	}
	cmd := exec.Command(python, "-c", ncclientStation, fmt.Sprint(n), "root", f.path("user_key"))
	cmd.Stderr = f.log
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	defer func() {
		stdin.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	lines := bufio.NewScanner(stdout)
	var port int
	if lines.Scan(); lines.Err() != nil {
		return lines.Err()
	}
	if _, err := fmt.Sscanf(lines.Text(), "ready %d", &port); err != nil {
		return fmt.Errorf("ncclient said %q: %w", lines.Text(), err)
	}
	before, _ := memory(cmd.Process.Pid)
	begin := time.Now()
	for _, d := range devices {
		go d.call(fmt.Sprintf("127.0.0.1:%d", port))
	}
	if !lines.Scan() || lines.Text() != "held" {
		return fmt.Errorf("ncclient did not get all devices: %q", lines.Text())
	}
	took := time.Since(begin)
	after, _ := memory(cmd.Process.Pid)
	row("ncclient: with a NETCONF session each", n, took, after-before)
	return nil
}
