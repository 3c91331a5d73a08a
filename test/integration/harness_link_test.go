//go:build integration

package integration

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"callhome/test/sandbox"

	"golang.org/x/sys/unix"
)

// link is a cable between a device and a management station, each in a network
// namespace of its own. The addresses are the same on every link (RFC 5737,
// RFC 3849).
type link struct {
	t           *testing.T
	device, nms string // paths of the namespaces
	port        string // name of the device's interface
}

const (
	deviceV4, deviceV6 = "192.0.2.1", "2001:db8::1"
	nmsV4, nmsV6       = "192.0.2.2", "2001:db8::2"
	deadV4, deadV6     = "192.0.2.3", "2001:db8::3" // the station's, too; see Swallow
)

var (
	lastLink atomic.Uint32
	netnsMu  sync.Mutex // `ip netns add` makes /run/netns a shared mount, once
)

func newLink(t *testing.T) *link {
	t.Helper()
	id := lastLink.Add(1)
	device := newNetns(t, fmt.Sprintf("device%d", id))
	return connect(t, device, fmt.Sprintf("d%d", id), newNetns(t, fmt.Sprintf("nms%d", id)))
}

func newNetns(t *testing.T, name string) string {
	t.Helper()
	sandbox.Need(t, "ip")
	netnsMu.Lock()
	defer netnsMu.Unlock()
	ip(t, "netns add "+name)
	ip(t, "-n "+name+" link set lo up")
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", name).Run() })
	return "/run/netns/" + name
}

// connect lays a cable; the interface is called port on the device and "port"
// on the station.
func connect(t *testing.T, device, port, nms string) *link {
	t.Helper()
	d, n := strings.TrimPrefix(device, "/run/netns/"), strings.TrimPrefix(nms, "/run/netns/")
	ip(t, "link add "+port+" netns "+d+" type veth peer name port netns "+n)
	// nodad: an address is good at once instead of after a second.
	ip(t, "-n "+d+" addr add "+deviceV4+"/24 dev "+port)
	ip(t, "-n "+d+" addr add "+deviceV6+"/64 nodad dev "+port)
	ip(t, "-n "+d+" link set "+port+" up")
	for _, a := range []string{nmsV4 + "/24", nmsV6 + "/64 nodad", deadV4 + "/24", deadV6 + "/64 nodad"} {
		ip(t, "-n "+n+" addr add "+a+" dev port")
	}
	ip(t, "-n "+n+" link set port up")
	return &link{t, device, nms, port}
}

// Swallow lets every packet to the dead addresses vanish without an answer.
func (l *link) Swallow() {
	l.t.Helper()
	sandbox.Need(l.t, "nft")
	l.nft("table inet dead { chain in { type filter hook input priority 0; " +
		"ip daddr " + deadV4 + " drop; ip6 daddr " + deadV6 + " drop; }; }")
}

// nft adds rules on the station's side.
func (l *link) nft(rules string) {
	l.t.Helper()
	cmd := exec.Command("/usr/bin/nsenter", "--net="+l.nms, "--", "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		l.t.Fatalf("nft: %v\n%s", err, out)
	}
}

// atNetns calls do inside a network namespace: on a thread that goes there and
// ends with it.
func atNetns[T any](t *testing.T, netns string, do func() T) T {
	t.Helper()
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		var r result
		defer func() { done <- r }()
		runtime.LockOSThread()
		f, err := os.Open(netns)
		if err != nil {
			r.err = err
			return
		}
		defer f.Close()
		if r.err = unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); r.err == nil {
			r.value = do()
		}
	}()
	r := <-done
	if r.err != nil {
		t.Fatalf("entering %s: %v", netns, r.err)
	}
	return r.value
}

func ip(t *testing.T, args string) {
	t.Helper()
	if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v\n%s", args, err, out)
	}
}
