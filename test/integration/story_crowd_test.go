//go:build integration

package integration

import (
	"errors"
	"fmt"
	"testing"

	"callhome/test/sandbox"
)

// Fifty call homes at once: all sessions live at the same moment, each with
// its own NETCONF session, and when they end none is left over.
func TestFiftySessionsAtOnce(t *testing.T) {
	const crowd = 50
	server := startNetconfd(t)
	device, nms := newSite(t, server.Subsystem())
	var sessions []*netconf
	var addrs []string
	for range crowd {
		addr := freeAddr("127.0.0.1")
		addrs = append(addrs, addr)
		// The default key exchange alone would take a minute of two processors.
		sessions = append(sessions, nms.startNetconf(addr, "-o", "KexAlgorithms=curve25519-sha256", "-o", "ConnectTimeout=60"))
	}
	for i, s := range sessions {
		s.AwaitListening(addrs[i])
	}
	var calls []*process
	for _, addr := range addrs {
		calls = append(calls, device.Call(addr, "--ssh-connection-port", yumaPort))
	}

	ids := make(map[string]bool)
	for _, s := range sessions {
		s.Hello(server)
		if ids[s.ID] {
			t.Fatalf("two sessions have the id %s", s.ID)
		}
		ids[s.ID] = true
	}
	var all []proc
	for _, call := range calls {
		call.Running()
		all = append(all, call.Family()...)
	}
	if len(all) < 2*crowd {
		t.Errorf("%d processes for %d sessions", len(all), crowd)
	}
	for _, s := range sessions {
		s.Close()
	}
	for _, call := range calls {
		call.Exit(patience)
	}
	sandbox.Await(t, patience, "end of the crowd", func() error {
		var errs []error
		for _, p := range all {
			if now, ok := lookup(p.pid); ok && now.started == p.started {
				errs = append(errs, fmt.Errorf("left: %v", now))
			}
		}
		return errors.Join(errs...)
	})
}
