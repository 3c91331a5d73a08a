//go:build integration

package integration

import (
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// As many sources as the station has places each send an SSH version and nothing else,
// and come back as soon as they are closed. A device with stock sshd logs in all the
// same, and again after its connection was cut.
func TestSourcesThatSendOnlyAVersionKeepNoDeviceOut(t *testing.T) {
	probe := newProbe(t)
	d, n := newSite(t, probe.Command)
	s := startStation(n)
	s.Know("edge7", d.hostKey, "")
	stop := make(chan struct{})
	defer close(stop)
	for i := range 1024 {
		// Of a /24 network each.
		from := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, byte(128+i>>8), byte(i), 1)}}
		go func() {
			for {
				if c, err := from.Dial("tcp", s.addr); err == nil {
					_, _ = io.WriteString(c, "SSH-2.0-x\r\n")
					gone := make(chan struct{})
					go func() {
						defer close(gone)
						_, _ = io.Copy(io.Discard, c)
					}()
					select {
					case <-gone:
					case <-stop:
					}
					c.Close()
				}
				select {
				case <-stop:
					return
				case <-time.After(50 * time.Millisecond):
				}
			}
		}()
	}
	s.AwaitEvent("refused", "evicted before the login")
	begun := time.Now()
	calls := d.KeepCalling(s.addr)
	up := s.AwaitEvent("up", "edge7")
	t.Logf("up after %v", time.Since(begun))
	// Its address has logged in: now it has priority.
	begun = time.Now()
	for _, p := range calls.Family() {
		if p.pid != calls.pid { // the loop stays
			_ = unix.Kill(p.pid, unix.SIGTERM) // it may have ended
		}
	}
	s.AwaitEvent("down", "edge7")
	again := s.AwaitEvent("up", "edge7")
	t.Logf("up again after %v", time.Since(begun))
	if up.Address == again.Address {
		t.Errorf("twice %s", up.Address)
	}
}
