package main

import (
	"fmt"
	"io"
	"net"
	"os/exec"
	"strconv"
	"time"

	"callhome/internal/proto"
)

// banner measures from the start of the call to the first byte of the SSH
// version string at the listener. The floor is bare sshd on a socket that is
// connected already.
func banner(f *fixture) error {
	l, err := listen()
	if err != nil {
		return err
	}
	defer l.Close()
	port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	args := f.command.Args()
	ways := []*way{
		{name: "bare sshd -i", once: func() (time.Duration, error) { return bare(l, args, f) }},
		{name: "C program", once: func() (time.Duration, error) {
			return spawned(l, f, append([]string{program("cfloor"), port}, args...))
		}},
		{name: "least Go program", once: func() (time.Duration, error) {
			return spawned(l, f, append([]string{program("gofloor"), port}, args...))
		}},
	}
	for _, b := range f.builds {
		ways = append(ways, &way{name: "callhome-trigger" + b.name, once: func() (time.Duration, error) {
			return spawned(l, f, []string{b.trigger, "127.0.0.1", port})
		}}, &way{name: "callhome-mgr, API call" + b.name, once: func() (time.Duration, error) {
			begin := time.Now()
			done := make(chan error, 1)
			go func() { done <- b.manager.call(l, proto.WaitNone) }()
			took, err := firstByte(l, begin)
			if callErr := <-done; err == nil {
				err = callErr
			}
			return took, err
		}})
	}
	if err := interleave(*rounds, ways); err != nil {
		return err
	}
	report(fmt.Sprintf("start of the call to first SSH banner byte, %d rounds, interleaved", *rounds), ways)
	return nil
}

func bare(l *net.TCPListener, args []string, f *fixture) (time.Duration, error) {
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return 0, err
	}
	peer, err := accept(l)
	if err != nil {
		return 0, err
	}
	defer peer.Close()
	sock, err := conn.(*net.TCPConn).File()
	conn.Close()
	if err != nil {
		return 0, err
	}
	defer sock.Close()
	cmd := f.inTree(exec.Command(args[0], args[1:]...))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = sock, sock, f.log
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	took, err := readFirst(peer, begin)
	peer.Close()
	_ = cmd.Wait() // 255: the client hung up
	return took, err
}

func spawned(l *net.TCPListener, f *fixture, argv []string) (time.Duration, error) {
	cmd := f.inTree(exec.Command(argv[0], argv[1:]...))
	cmd.Env, cmd.Stderr = f.env, f.log
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	took, err := firstByte(l, begin)
	_ = cmd.Wait()
	return took, err
}

func firstByte(l *net.TCPListener, begin time.Time) (time.Duration, error) {
	peer, err := accept(l)
	if err != nil {
		return 0, err
	}
	defer peer.Close()
	return readFirst(peer, begin)
}

func readFirst(peer *net.TCPConn, begin time.Time) (time.Duration, error) {
	first := make([]byte, 4)
	_, err := io.ReadFull(peer, first[:1])
	took := time.Since(begin)
	if err == nil {
		_, err = io.ReadFull(peer, first[1:])
	}
	if err == nil && string(first) != "SSH-" {
		err = fmt.Errorf("the first bytes are %q", first)
	}
	return took, err
}
