package main

import (
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"time"

	"callhome/internal/nms/sshtest"

	"golang.org/x/crypto/ssh"
)

// crowds are the peers that a station meets. Each runs in a process of its own, as on
// other machines.
var crowds = map[string]func(crowd) error{
	"devices":  crowd.devices,
	"versions": crowd.versions,
	"keys":     crowd.keys,
	"flood":    crowd.flood,
	"fleet":    crowd.fleet,
}

// crowd is a number of peers, each with an address of its own.
type crowd struct {
	addr     string // of the station
	first, n int
	user     ssh.PublicKey // that devices let in
}

// beCrowd runs `bench -crowd KIND ADDRESS FIRST N PUBLIC-KEY-FILE` until it is killed.
func beCrowd(kind string, args []string) error {
	f := crowds[kind]
	if f == nil || len(args) != 4 {
		return fmt.Errorf("crowd %q with %d arguments", kind, len(args))
	}
	c := crowd{addr: args[0]}
	if _, err := fmt.Sscan(args[1]+" "+args[2], &c.first, &c.n); err != nil {
		return err
	}
	text, err := os.ReadFile(args[3])
	if err != nil {
		return err
	}
	if c.user, _, _, _, err = ssh.ParseAuthorizedKey(text); err != nil {
		return err
	}
	return f(c)
}

func randFloat() float64 { return rand.Float64() }

// hostKey is the host key of device i, the same in each process.
func hostKey(i int) (ssh.Signer, error) {
	seed := sha256.Sum256(fmt.Appendf(nil, "device %d of the benchmark", i))
	return ssh.NewSignerFromKey(ed25519.NewKeyFromSeed(seed[:]))
}

// dial connects from the address of peer i: of a /24 network of its own in
// 127.128.0.0/9 for an attacker, else of 127.64.0.0/10.
func (c crowd) dial(i int, attacker bool) (net.Conn, error) {
	from := net.IPv4(127, byte(64+i>>16), byte(i>>8), byte(i))
	if attacker {
		from = net.IPv4(127, byte(128+i>>8), byte(i), 1)
	}
	return (&net.Dialer{LocalAddr: &net.TCPAddr{IP: from}}).Dial("tcp", c.addr)
}

// each runs one for each peer, again and again, with a pause between, for ever.
func (c crowd) each(pause time.Duration, one func(i int)) error {
	for i := c.first; i < c.first+c.n; i++ {
		go func() {
			for {
				one(i)
				time.Sleep(pause + rand.N(pause))
			}
		}()
	}
	select {}
}

// devices call home and stay, and call again 1 to 2 s after a failure.
func (c crowd) devices() error {
	return c.each(time.Second, func(i int) {
		host, err := hostKey(i)
		if err != nil {
			return
		}
		if conn, err := c.dial(i, false); err == nil {
			(&sshtest.Server{Config: sshtest.LetIn(host, c.user), Netconf: greet}).Serve(conn)
		}
	})
}

// versions send an SSH version and nothing else, and come back at once.
func (c crowd) versions() error {
	return c.each(50*time.Millisecond, func(i int) {
		if conn, err := c.dial(i, true); err == nil {
			_, _ = io.WriteString(conn, "SSH-2.0-x\r\n")
			_, _ = io.Copy(io.Discard, conn)
			conn.Close()
		}
	})
}

// keys show host keys that the station does not know, and come back at once.
func (c crowd) keys() error {
	return c.each(50*time.Millisecond, func(i int) {
		host, err := sshtest.NewKey()
		if err != nil {
			return
		}
		if conn, err := c.dial(i, true); err == nil {
			(&sshtest.Server{Config: sshtest.LetIn(host, c.user)}).Serve(conn)
		}
	})
}

// flood is devices that send requests and open channels as fast as they can, and
// come back at once.
func (c crowd) flood() error {
	return c.each(5*time.Millisecond, func(i int) {
		host, err := hostKey(i)
		if err != nil {
			return
		}
		conn, err := c.dial(i, false)
		if err != nil {
			return
		}
		defer conn.Close()
		device, channels, requests, err := ssh.NewServerConn(conn, sshtest.LetIn(host, c.user))
		if err != nil {
			return
		}
		go ssh.DiscardRequests(requests)
		go func() {
			for n := range channels {
				_ = n.Reject(ssh.Prohibited, "a flood")
			}
		}()
		go func() {
			for {
				if _, _, err := device.SendRequest("flood@example.com", false, nil); err != nil {
					return
				}
			}
		}()
		for {
			var refused *ssh.OpenChannelError
			if _, _, err := device.OpenChannel("session", nil); !errors.As(err, &refused) {
				return
			}
		}
	})
}
