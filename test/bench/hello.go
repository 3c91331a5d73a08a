package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"callhome/internal/fdpass"
	"callhome/internal/proto"
)

// hello measures from the accept at the management station to the server's
// NETCONF hello, with the stock ssh client. The floor is the same sshd started
// by a program in C that only connects and executes.
func hello(f *fixture) error {
	l, err := listen()
	if err != nil {
		return err
	}
	defer l.Close()
	for _, kex := range []string{"curve25519-sha256", "sntrup761x25519-sha512@openssh.com"} {
		if !f.has(kex) {
			continue
		}
		var ways []*way
		for _, c := range f.callers(l) {
			ways = append(ways, &way{name: c.name, once: func() (time.Duration, error) { return f.login(l, kex, c.call, nil) }})
		}
		n := max(*rounds/4, 1)
		if err := interleave(n, ways); err != nil {
			return err
		}
		report(fmt.Sprintf("accept to NETCONF hello, stock ssh, %s, %d rounds, interleaved", kex, n), ways)
	}
	return nil
}

// caller is one manner of making a call home to a listener.
type caller struct {
	name string
	call func() error
}

// callers are all of them; the first one is the floor.
func (f *fixture) callers(l *net.TCPListener) []caller {
	port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	all := []caller{{"C program, connect and exec", func() error { return f.spawn(append([]string{program("cfloor"), port}, f.command.Args()...)) }}}
	for _, b := range f.builds {
		trigger := []string{b.trigger, "127.0.0.1", port}
		all = append(all,
			caller{"callhome-trigger, exec" + b.name, func() error { return f.spawn(trigger) }},
			caller{"callhome-trigger, detach" + b.name, func() error { return f.spawn(trigger, "CALLHOME_HANDOVER=detach") }},
			caller{"callhome-mgr" + b.name, func() error { return b.manager.call(l, proto.WaitNone) }})
	}
	return all
}

// spawn starts a program that makes the call home, and does not wait for it.
func (f *fixture) spawn(argv []string, env ...string) error {
	cmd := f.inTree(exec.Command(argv[0], argv[1:]...))
	cmd.Env, cmd.Stderr = append(slices.Clone(f.env), env...), f.log
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() { _ = cmd.Wait() }()
	return nil
}

// login has ssh wait for the socket, makes the call, and takes the time from the accept
// until ssh prints the hello. Where steps is set, ssh reports each packet of the login,
// and steps gets the time of each line.
func (f *fixture) login(l *net.TCPListener, kex string, call func() error, steps func(line string, since time.Duration)) (time.Duration, error) {
	socket := f.path("give")
	defer os.Remove(socket)
	proxies, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return 0, err
	}
	defer proxies.Close()
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	level := "ERROR"
	if steps != nil {
		level = "DEBUG2"
	}
	args := []string{"-F", "none", "-s"}
	for _, o := range []string{
		"ProxyUseFdpass=yes", "ProxyCommand=" + self + " -give " + socket, "IdentityFile=" + f.path("user_key"), "IdentitiesOnly=yes",
		"StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=" + level, "BatchMode=yes", "KexAlgorithms=" + kex,
	} {
		args = append(args, "-o", o)
	}
	ssh := exec.Command("ssh", append(args, "root@device", "netconf")...)
	var reported io.ReadCloser
	if steps == nil {
		ssh.Stderr = f.log
	} else if reported, err = ssh.StderrPipe(); err != nil {
		return 0, err
	}
	stdin, err := ssh.StdinPipe()
	if err != nil {
		return 0, err
	}
	stdout, err := ssh.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := ssh.Start(); err != nil {
		return 0, err
	}
	defer func() { stdin.Close(); _ = ssh.Wait() }()
	proxy, err := proxies.AcceptUnix() // ssh is ready
	if err != nil {
		return 0, err
	}
	defer proxy.Close()
	if err := call(); err != nil {
		return 0, err
	}
	peer, err := accept(l)
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	var read sync.WaitGroup
	if steps != nil {
		read.Go(func() {
			for lines := bufio.NewScanner(reported); lines.Scan(); {
				steps(lines.Text(), time.Since(begin))
			}
		})
		defer func() { stdin.Close(); read.Wait() }()
	}
	sock, err := peer.File()
	peer.Close()
	if err != nil {
		return 0, err
	}
	err = fdpass.Send(proxy, []byte{0}, sock)
	sock.Close()
	if err != nil {
		return 0, err
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	took := time.Since(begin)
	if err == nil && !strings.HasPrefix(line, "<hello/>") {
		err = fmt.Errorf("the first line is %q", line)
	}
	if err == io.EOF {
		log, _ := os.ReadFile(f.log.Name())
		err = fmt.Errorf("ssh ended: %s", log[max(0, len(log)-1000):])
	}
	return took, err
}

// beProxyCommand passes the descriptor that comes from the socket on to ssh,
// whose end of our standard output is a Unix socket.
func beProxyCommand(socket string) error {
	from, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return err
	}
	_, sock, err := fdpass.Recv(from, make([]byte, 1))
	if err != nil {
		return err
	}
	to, err := net.FileConn(os.Stdout)
	if err != nil {
		return err
	}
	return fdpass.Send(to.(*net.UnixConn), []byte{0}, sock)
}
