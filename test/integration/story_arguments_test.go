//go:build integration

package integration

import (
	"testing"
)

// The port has a default, IANA's.
func TestDefaultPort(t *testing.T) {
	t.Parallel()
	inBothWays(t, func(t *testing.T, use func(*device)) {
		link := newLink(t)
		nms := listenIn(t, link.nms, ":4334")
		for _, args := range [][]string{{nmsV4}, {nmsV6}, {"[" + nmsV6 + "]"}, {nmsV4 + ":4334"}, {"[" + nmsV6 + "]:4334"}, {nmsV4, "4334", "opaque"}} {
			device := newDevice(t, "/bin/true")
			device.netns = link.device
			use(device)
			start(t, "callhome-trigger", device.Command(args))
			nms.Accept().Banner()
		}
	})
}

// HOST, PORT and OPAQUE can be options, too.
func TestArgumentsAsOptions(t *testing.T) {
	t.Parallel()
	inBothWays(t, func(t *testing.T, use func(*device)) {
		nms := listen(t, "127.0.0.1:0")
		host, port := splitAddr(t, nms.Addr())
		for _, options := range [][]string{
			{"--host", host, "--port", port, "--opaque", "x"},
			{"--host", nms.Addr()},
		} {
			device := newDevice(t, "/bin/true")
			use(device)
			start(t, "callhome-trigger", device.Command(nil, options...))
			nms.Accept().Banner()
		}
	})
}
