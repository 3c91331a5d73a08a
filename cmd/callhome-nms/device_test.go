package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"callhome/internal/nms/nmsproto"
)

func TestOneDeviceIsShownWithItsHistory(t *testing.T) {
	at := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	d := nmsproto.DeviceDetail{
		Device:    nmsproto.Device{ID: "edge7", State: nmsproto.NeverSeen, Software: "SSH-2.0-\x1b[2J"},
		RoundTrip: 1234567, HostKeys: []string{"SHA256:a", "SHA256:b"},
		History:    []nmsproto.Record{{Time: at, Times: 3, Event: nmsproto.EventRefused, Address: "192.0.2.1:1", Cause: "login failed\n"}},
		SessionLog: []nmsproto.SessionRecord{{Begin: at, End: at.Add(time.Minute), Sent: 5}},
	}
	var out bytes.Buffer
	deviceText(&out, d, 0)
	for _, want := range []string{"device           edge7\n", `SSH-2.0-\x1b[2J`, "round trip       1.23ms\n", "SHA256:a SHA256:b", "2026-11-29T12:00:00Z  refused", `login failed\n`, "last sessions:", "1m0s"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "certificate") {
		t.Errorf("it shows what is empty:\n%s", out.String())
	}
}
