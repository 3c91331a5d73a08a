//go:build integration

package integration

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"callhome/test/sandbox"

	"callhome/internal/nms/nmsproto"
	"callhome/internal/proto"
)

// A station is drained: its device moves to the next endpoint of its document, a device with
// a session when that has ended. Then the kernel refuses calls.
func TestADrainedStationsDevicesMove(t *testing.T) {
	t.Parallel()
	s := newStandingSite(t, "/bin/cat")
	first, second := startStation(s.nms), startStation(s.nms)
	for _, station := range []*served{first, second} {
		station.Know("edge7", strings.TrimSuffix(s.key.file, ".pub"), "")
	}
	client := persistent("nms", s.At(first.addr), s.At(second.addr))
	client["reconnect-strategy"] = object{"max-attempts": 1}
	k := s.Keep(document(client))
	first.AwaitState("edge7", nmsproto.Connected)
	session := first.Connect("edge7")
	sandbox.Await(t, patience, "the session", func() error {
		if d, err := first.device("edge7"); err != nil || d.Sessions != 1 {
			return fmt.Errorf("%+v, %w", d, err)
		}
		return nil
	})

	drain := start(t, "callhome-nms drain", first.Command("drain", "--rate", "5", "--session-time", "1m"))
	drain.AwaitStdout("1 device connected still, 1 of them with sessions")
	contains(t, "the status", first.Run("status"), "draining for ", "1 device connected still, 1 of them with sessions")
	if _, err := net.Dial("tcp", first.addr); err == nil {
		t.Error("it accepts calls")
	}
	session.in.Close()
	session.MustExit(0)
	drain.MustExit(0)
	contains(t, "drain", drain.Stdout(), "no device is connected any more")
	first.AwaitEvent(nmsproto.EventDrained, "ended devices: 1,")
	second.AwaitState("edge7", nmsproto.Connected)
	lost := k.AwaitPublished(patience, "nms", proto.EventLost, 1)
	contains(t, "the device's cause", lost.Session.Cause, "the station is being drained")
	first.Stop()
}
