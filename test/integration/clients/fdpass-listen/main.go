// Command fdpass-listen waits for one call home and passes the accepted socket
// to the ssh that runs it, then ends: a ProxyCommand for ProxyUseFdpass. With
// unix:PATH for an address another program has accepted: the socket comes from
// the program that listens there.
package main

import (
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"callhome/internal/fdpass"
)

// patience bounds the wait, so that a listener that ssh left behind ends too.
const patience = 60 * time.Second

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: ssh -o ProxyUseFdpass=yes -o 'ProxyCommand=fdpass-listen HOST:PORT' ...")
		os.Exit(64)
	}
	if err := pass(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "fdpass-listen:", err)
		os.Exit(1)
	}
}

func pass(addr string) error {
	f, err := take(addr)
	if err != nil {
		return err
	}
	// ssh reads one byte and the descriptor from our stdout.
	ssh, err := net.FileConn(os.Stdout)
	if err != nil {
		return err
	}
	return fdpass.Send(ssh.(*net.UnixConn), []byte{0}, f)
}

// take returns the accepted socket.
func take(addr string) (*os.File, error) {
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		c, err := net.Dial("unix", path)
		if err != nil {
			return nil, err
		}
		_, f, err := fdpass.Recv(c.(*net.UnixConn), make([]byte, 1))
		return f, err
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	if err := l.(*net.TCPListener).SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	device, err := l.Accept()
	if err != nil {
		return nil, err
	}
	return device.(*net.TCPConn).File()
}
