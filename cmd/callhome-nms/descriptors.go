package main

import (
	"net"
	"syscall"

	"callhome/internal/daemon"
)

// scarce reports whether a call home has one of the descriptors that the daemon keeps.
func scarce(c net.Conn) bool {
	sc, ok := c.(syscall.Conn)
	return ok && daemon.IsKept(sc, daemon.Kept)
}

// demand is what file descriptors are needed for.
type demand struct {
	devices, each int // a device has its connection, and a device socket
	// unauthenticated are the connections that may not have logged in yet.
	unauthenticated int
}

// descriptors returns how many are needed. A session needs one or two more.
func (d demand) descriptors() uint64 {
	return uint64(d.devices*d.each + d.unauthenticated + daemon.Kept)
}

// checkDescriptors warns when the limit does not suffice for all registered devices, and
// once more after it did.
func (d *backend) checkDescriptors() {
	d.descriptors.Lock()
	defer d.descriptors.Unlock()
	d.demand.devices = d.registry.Len()
	needed := d.demand.descriptors()
	short := needed > daemon.Descriptors()
	if short && !d.short {
		d.log.Warn("too few file descriptors for all registered devices: raise the limit (LimitNOFILE=, ulimit -n)",
			"limit", daemon.Descriptors(), "needed", needed, "devices", d.demand.devices, "of-each", d.demand.each, "also", "two for each session")
	}
	d.short = short
}
