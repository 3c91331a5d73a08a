// Command fdpass-listen waits for one call home and passes the accepted socket
// to the ssh that runs it, then ends: a ProxyCommand for ProxyUseFdpass.
package main

import (
	"fmt"
	"net"
	"os"
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
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	if err := l.(*net.TCPListener).SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	device, err := l.Accept()
	if err != nil {
		return err
	}
	f, err := device.(*net.TCPConn).File()
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
