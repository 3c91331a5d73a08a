//go:build integration

package integration

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// fixedPauseMedian is the median with which clients are back that call every
// five seconds: half of that, by arithmetic. Growing pauses must not be slower. What the
// machine needs for so many sessions comes on top: what it took at the start.
const fixedPauseMedian = 2500 * time.Millisecond

// Two hundred clients are kept connected with one NMS. It is restarted and all
// are back; it is away for 20 s and all are back, in a median below that of a
// fixed pause of 5 s. All defaults; a stub
// stands in for sshd, so that its cost does not hide ours.
func TestTwoHundredClients(t *testing.T) {
	t.Parallel()
	const crowd, refused = 200, 20 * time.Second
	s := newStubSite(t)
	nms := s.nms.NewStation(freeAddr("127.0.0.1"))
	nms.serve = nms.Hold
	nms.Open()
	list := s.Crowd(crowd, nms.Addr)
	for _, client := range list {
		delete(client, "callhome:backoff")
	}
	begin := time.Now()
	k := s.Keep(document(list...))
	first := nms.since(begin, 0, crowd)
	k.awaitCrowd(crowd)

	// At once: it is there again before the kernel has reported its absence to all.
	time.Sleep(goodSession) // the life of a session that is answered at once
	begin = time.Now()
	nms.HangUp()
	restarted := nms.since(begin, crowd, crowd)
	k.awaitCrowd(crowd)

	time.Sleep(goodSession)
	nms.Shut()
	nms.HangUp()
	down := time.Now()
	time.Sleep(refused)
	attempts := 0
	for _, c := range k.Status().Clients {
		attempts += c.Failures
	}
	nms.Open()
	begin = time.Now()
	back := nms.since(begin, 2*crowd, crowd)
	k.awaitCrowd(crowd)

	row := func(what string, d []time.Duration) {
		t.Logf("%-38s %9v %9v %9v", what, d[0].Round(time.Millisecond), median(d).Round(time.Millisecond), d[len(d)-1].Round(time.Millisecond))
	}
	t.Logf("%-38s %9s %9s %9s", fmt.Sprintf("%d clients, time to accept", crowd), "first", "median", "last")
	row("daemon started", first)
	row("NMS restarted at once", restarted)
	row(fmt.Sprintf("NMS there again after %v", begin.Sub(down).Round(time.Second)), back)
	t.Logf("attempts of one client meanwhile: %.1f", float64(attempts)/crowd)
	if m, most := median(back), fixedPauseMedian+median(first); m >= most {
		t.Errorf("back in a median of %v, expected less than %v", m, most)
	}
	if last := restarted[crowd-1]; last > 10*time.Second+first[crowd-1] {
		t.Errorf("after the restart the last one was back in %v", last)
	}
	if calls := len(nms.Calls()); calls != 3*crowd {
		t.Errorf("%d calls, expected %d: one for each client and outage", calls, 3*crowd)
	}
}

// goodSession is longer than a session must last to be followed by a call at
// once (internal/device/schedule).
const goodSession = 31 * time.Second

// since returns how long after begin the calls from number after on came, n of
// them, in their order.
func (s *station) since(begin time.Time, after, n int) []time.Duration {
	s.t.Helper()
	s.AwaitCall(3*patience, after+n)
	var out []time.Duration
	for _, c := range s.Calls()[after : after+n] {
		out = append(out, c.at.Sub(begin))
	}
	return out
}

func median(d []time.Duration) time.Duration {
	d = slices.Sorted(slices.Values(d))
	return d[len(d)/2]
}
