package main

import (
	"os/user"
	"strings"
	"testing"
	"time"

	"callhome/internal/nms/nmsproto"
	"callhome/internal/proto"
	"callhome/internal/sysexits"
)

// What adopt says of the next call is no more than the calls have shown.
func TestWhenADeviceIsBack(t *testing.T) {
	now := time.Now()
	for _, tt := range []struct {
		pause, last time.Duration
		want        string
	}{
		{0, 3 * time.Second, "it called once, 3s ago, so its next call cannot be foreseen;"},
		{8 * time.Second, 4 * time.Second, "its last two calls were 8s apart, the last one 4s ago: the next one comes in about 12s,"},
		{8 * time.Second, time.Minute, "the last one 1m0s ago: the next one is due,"},
		{4 * time.Minute, time.Minute, "the next one comes in about 4m0s,"},
		{time.Hour, time.Minute, "its last two calls were 1h0m0s apart, the last one 1m0s ago: the next one comes in about 59m0s,"},
		{8 * time.Second, -time.Hour, "the last one 0s ago: the next one comes in about 16s,"}, // the clock was set
	} {
		got := whenBack(nmsproto.Unknown{Pause: tt.pause, Last: now.Add(-tt.last)}, now)
		if !strings.Contains(got, tt.want) {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
	for pause, want := range map[time.Duration]string{0: "it called 3 times, station north once and 5s ago,", time.Second: "its last two calls of station north were 1s apart,"} {
		if got := whenBack(nmsproto.Unknown{Station: "north", Calls: 3, Pause: pause, Last: now.Add(-5 * time.Second)}, now); !strings.Contains(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// The users of devices get the daemon's group where their account is in it, and a
// warning where they could not use a device. A supplementary member is a story of
// test/integration.
func TestTheGroupOfADevicesUsers(t *testing.T) {
	first, err := user.LookupGroupId("0")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		uid, gid, group string
		want, doubt     string
	}{
		{"0", "5", "", "5", ""},
		{"0", "5", "no-such-group", "5", ""},
		{"4711", "0", first.Name, "0", ""},
		{"4711", "4711", first.Name, "4711", `the account "someone" is not in the group "` + first.Name + `"`},
		{"4711", "4711", "no-such-group", "4711", `looking up the daemon's group "no-such-group": `},
		{"4711", "4711", "", "4711", "the daemon has no group that may use devices"},
	} {
		gid, doubt := groupOf(&user.User{Uid: tt.uid, Gid: tt.gid, Username: "someone"}, tt.group)
		if gid != tt.want || !strings.HasPrefix(doubt, tt.doubt) || tt.doubt == "" && doubt != "" {
			t.Errorf("%+v: got %s, %q", tt, gid, doubt)
		}
	}
}

// TestAHintIsAboutWhatFailed: "unavailable" is a device's session, or the whole command.
func TestAHintIsAboutWhatFailed(t *testing.T) {
	for _, tt := range []struct {
		err  error
		code int
		hint string
	}{
		{proto.StageError(proto.StageSession, "device edge7 is not connected", proto.ErrorData{}), sysexits.Unavailable, "last connected"},
		{proto.NewError(proto.CodeUnavailable, "the station has no cluster"), sysexits.Unavailable, ""},
		{proto.NewError(proto.CodeNoExists, "there is no device"), sysexits.NoHost, "lists the devices"},
		{sysexits.New(sysexits.NoHost, "another", proto.NewError(proto.CodeNoExists, "no revoked key")), sysexits.NoHost, "another"},
	} {
		got := withExit(tt.err)
		if hint := sysexits.Hint(got); sysexits.Code(got) != tt.code || !strings.Contains(hint, tt.hint) || (hint == "") != (tt.hint == "") {
			t.Errorf("%v: status %d, hint %q", tt.err, sysexits.Code(got), hint)
		}
	}
}
