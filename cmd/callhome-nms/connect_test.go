package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"callhome/internal/nms/nmsproto"
	"callhome/internal/sysexits"

	"github.com/hashicorp/go-hclog"
	"github.com/urfave/cli/v2"
)

// connectContext returns the context of the command connect with these arguments.
func connectContext(t *testing.T, args ...string) *cli.Context {
	t.Helper()
	set := flag.NewFlagSet("connect", flag.ContinueOnError)
	for _, f := range connectCommand().Flags {
		if err := f.Apply(set); err != nil {
			t.Fatal(err)
		}
	}
	if err := set.Parse(args); err != nil {
		t.Fatal(err)
	}
	return cli.NewContext(cli.NewApp(), set, nil)
}

// The login name is text from outside: it is used only if its end is a valid id.
func TestTheDeviceIsTheArgumentOrInTheLoginName(t *testing.T) {
	for _, tt := range []struct {
		name    string
		args    []string
		logname string
		want    string
		err     string
	}{
		{"an argument", []string{"edge7"}, "dev+edge8", "edge7", ""},
		{"no argument", nil, "dev+edge8", "", "expected one DEVICE"},
		{"two arguments", []string{"a", "b"}, "", "", "expected one DEVICE"},
		{"an argument that is no id", []string{"../edge7"}, "", "", "device id"},
		{"the login name", []string{"--login-prefix", "dev+"}, "dev+edge7", "edge7", ""},
		{"no prefix", []string{"--login-prefix="}, "edge7", "edge7", ""},
		{"no prefix and no name", []string{"--login-prefix="}, "", "", "device id"},
		{"another login name", []string{"--login-prefix", "dev+"}, "root", "", `the login name "root" does not begin with "dev+"`},
		{"no login name", []string{"--login-prefix", "dev+"}, "", "", "does not begin"},
		{"only the prefix", []string{"--login-prefix", "dev+"}, "dev+", "", "device id"},
		{"an option", []string{"--login-prefix", "dev+"}, "dev+--socket=/x", "", "device id"},
		{"a path", []string{"--login-prefix", "dev+"}, "dev+../../x", "", "device id"},
		{"a command", []string{"--login-prefix", "dev+"}, "dev+edge7;id", "", "device id"},
		{"a line", []string{"--login-prefix", "dev+"}, "dev+edge7\nx", "", "device id"},
		{"both", []string{"--login-prefix", "dev+", "edge8"}, "dev+edge7", "", "got both"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := deviceOf(connectContext(t, tt.args...), func(name string) string {
				if name != "LOGNAME" {
					t.Errorf("asked for %s", name)
				}
				return tt.logname
			})
			if got != tt.want || tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err) || sysexits.Code(err) != sysexits.Usage) {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

func TestTheSubsystemsExitStatusIsTheProgramsOwn(t *testing.T) {
	status := func(n int) *int { return &n }
	for _, tt := range []struct {
		r    nmsproto.ConnectResult
		want int
	}{
		{nmsproto.ConnectResult{}, 0},
		{nmsproto.ConnectResult{ExitStatus: status(0)}, 0},
		{nmsproto.ConnectResult{ExitStatus: status(3)}, 3},
		{nmsproto.ConnectResult{ExitStatus: status(-1)}, 255},
		{nmsproto.ConnectResult{ExitStatus: status(256)}, failed},
		{nmsproto.ConnectResult{ExitStatus: status(0x7fffff00)}, failed},
		{nmsproto.ConnectResult{Signal: "SEGV\n"}, signalled},
	} {
		err := exitOf("edge7", tt.r)
		got := sysexits.Code(err)
		if s, ok := err.(exitStatus); ok {
			got = int(s)
		}
		if got != tt.want {
			t.Errorf("%+v: exit status %d (%v), want %d", tt.r, got, err, tt.want)
		}
	}
}

func TestADevicesStderrControlsNoTerminal(t *testing.T) {
	var out bytes.Buffer
	passOn(&out, nmsproto.ConnectResult{Stderr: "no license\n\x1b]0;x\x07\u009b2J\u202e"})
	if got, want := out.String(), "no license\n\ufffd]0;x\ufffd\ufffd2J\ufffd"; got != want {
		t.Errorf("%q was printed, want %q", got, want)
	}
}

func TestUsageIsExitStatus64(t *testing.T) {
	for _, args := range [][]string{
		{"no-such-command"}, {"connect"}, {"devices", "adopt", "x"}, {"devices", "remove"}, {"devices", "remove", "a", "b"}, {"devices", "revoke"}, {"devices", "forget"}, {"devices", "adopt", "x", "--id", "a", "--label", "b"}, {"serve", "x"},
		{"devices", "no-such"}, {"serve", "--no-such"}, {"devices", "accounts", "--prefix", "a:b"}, {"devices", "accounts", "--prefix", "a", "extra"},
		{"serve", "--registry", t.TempDir(), "--key-file", "/a", "--password-file", "/b"},
		{"serve", "--registry", t.TempDir(), "--proxy-from", "x"},
	} {
		if got := run(context.Background(), slices.Concat([]string{"callhome-nms"}, args)); got != sysexits.Usage {
			t.Errorf("%v: exit status %d", args, got)
		}
	}
	if got := run(context.Background(), []string{"callhome-nms", "devices", "--socket", t.TempDir() + "/none"}); got != sysexits.Unavailable {
		t.Errorf("without a daemon: exit status %d", got)
	}
}

// Text of a peer stays on its line, on the terminal and in the log.
func TestTextFromOutsideStaysOnItsLine(t *testing.T) {
	now := time.Now()
	var out bytes.Buffer
	evil := "x\x1b[2J\r\ny"
	deviceTable(&out, nmsproto.DeviceList{
		Devices:  []nmsproto.Device{{ID: "edge7", State: nmsproto.Lost, Since: &now, Software: evil, LastError: evil, ErrorTime: &now, Labels: map[string]string{evil: evil}}},
		Unknown:  []nmsproto.Unknown{{HostKey: "SHA256:x", Software: evil, Certificate: evil, Last: now}},
		Problems: []nmsproto.Problem{{File: evil, Error: evil}},
	}, 0)
	printEvent(&out, nmsproto.Event{Time: now, Event: nmsproto.EventRefused, Software: evil, Certificate: evil, Cause: evil, Unsaid: 3})
	logEvent(hclog.New(&hclog.LoggerOptions{Output: &out, DisableTime: true}), nmsproto.Event{Event: nmsproto.EventRefused, Device: "edge7", Software: evil, Cause: evil, Unsaid: 3})
	if text := out.String(); strings.ContainsAny(text, "\x1b\r") || strings.Count(text, "\n") != 11 || !strings.Contains(text, `[WARN]  refused: device=edge7`) {
		t.Errorf("%d lines:\n%s", strings.Count(text, "\n"), fmt.Sprintf("%q", text))
	}
}
