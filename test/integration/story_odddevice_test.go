//go:build integration

package integration

import (
	"strings"
	"testing"

	"callhome/internal/nms/nmsproto"
)

// oddities are what devices do that stock sshd does not.
var oddities = []struct {
	name string
	make func(*oddDevice)
}{
	{"none", func(*oddDevice) {}},
	{"outbound-ssh of Junos with a secret", func(d *oddDevice) {
		d.before = "MSG-ID: DEVICE-CONN-INFO\r\nMSG-VER: V1\r\nDEVICE-ID: edge7\r\nHOST-KEY: ssh-rsa " + strings.Repeat("A", 372) + "\r\nHMAC: 0123456789abcdef\r\n"
	}},
	{"many lines before the version string", func(d *oddDevice) { d.before = strings.Repeat("notice\r\n", 90) }},
	{"a banner with trailing bytes", func(d *oddDevice) { d.Banner("\x00\x00\x00\x01x") }},
	{"SSH_MSG_UNIMPLEMENTED to global requests", func(d *oddDevice) { d.server.Unimplemented = true }},
	{"MPTCP", func(d *oddDevice) { d.mptcp = true }},
}

// Our console takes what stock ssh and ncclient take of the same device.
func TestOddDevicesAndEveryClient(t *testing.T) {
	t.Parallel()
	for _, odd := range oddities {
		for _, c := range clients {
			if c.name == "libnetconf2" {
				continue // it asks for YANG modules, which this device has not
			}
			t.Run(odd.name+"/"+c.name, func(t *testing.T) {
				t.Parallel()
				n := newNMS(t)
				d := newOddDevice(t, n)
				odd.make(d)
				addr := freeAddr("127.0.0.1")
				waiting := c.wait(n, nil, addr, "behind a NAT")
				d.Call(addr)
				finish(t, waiting)
			})
		}
	}
}

// The station holds each of them over its keepalives, and stock ssh does, too.
func TestOddDevicesAreHeld(t *testing.T) {
	t.Parallel()
	for _, odd := range oddities {
		t.Run(odd.name, func(t *testing.T) {
			t.Parallel()
			n := newNMS(t)
			d := newOddDevice(t, n)
			odd.make(d)
			s := startStation(n, "--keepalive", "1s", "--keepalive-time", "1s")
			s.Know("edge7", d.hostKey, "")
			d.Call(s.addr)
			up := s.AwaitState("edge7", nmsproto.Connected)
			addr := freeAddr("127.0.0.1")
			stock := n.Netconf(addr, "-o", "ServerAliveInterval=1", "-o", "ServerAliveCountMax=1")
			d.Call(addr)
			stock.Hello(nil)
			addr = freeAddr("127.0.0.1")
			// The time is what is tested: five keepalives.
			console := n.Console(addr, "--keepalive", "1s", "--timeout", "5s", "--create-subscription")
			d.Call(addr)
			console.MustExit(0)
			stock.Ask("get-config", `<get-config><source><running/></source></get-config>`, "<data")
			stock.Close()
			session := s.Connect("edge7")
			session.Hello(nil)
			session.Close()
			if now := s.AwaitState("edge7", nmsproto.Connected); now.Calls != 1 || !now.Since.Equal(*up.Since) {
				t.Errorf("it is %+v, and was %+v", now, up)
			}
		})
	}
}
