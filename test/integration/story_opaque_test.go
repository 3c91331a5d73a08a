//go:build integration

package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"callhome/internal/proto"
)

// everyByte is each byte that an argument can have.
func everyByte() string {
	b := make([]byte, 255)
	for i := range b {
		b[i] = byte(i + 1)
	}
	return string(b)
}

// forged is a line that would look like one of sshd's own.
const forged = "Accepted publickey for root from 192.0.2.66 port 22 ssh2: FORGED"

// hostile arguments, by what they try.
func hostile(dir string) map[string]string {
	pwned := filepath.Join(dir, "pwned")
	return map[string]string{
		"every byte":              everyByte(),
		"command substitution":    "$(touch " + pwned + ")`touch " + pwned + "`",
		"end of the quotes":       `"; touch ` + pwned + `; "`,
		"end of single quotes":    `'; touch ` + pwned + `; '`,
		"a second variable":       `x" LD_PRELOAD=/nonexistent "y=`,
		"a variable of sshd's":    `%u ${HOME} %%h`,
		"a line of its own":       "x\n" + forged + "\r\n" + forged,
		"an sshd option":          "-oPermitTTY=yes\nPermitTTY yes",
		"an option of ours":       "--sshd=/bin/false",
		"a comment":               "# everything behind it",
		"spaces at both ends":     "  two words  ",
		"a terminal's colours":    "\x1b[31mred\x1b[0m\a",
		"bytes that are no UTF-8": "\xff\xfe\x80 ä ☃",
		"the longest":             strings.Repeat("A", 1024),
	}
}

// encoded is how OPAQUE stands in CALLHOME_OPAQUE: control characters and the
// bytes " \ % as in a URI, all others as they are.
func encoded(opaque string) string {
	var b strings.Builder
	for i := range len(opaque) {
		if c := opaque[i]; c < ' ' || c == 0x7f || strings.IndexByte(`"\%`, c) >= 0 {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// OPAQUE is data: whatever is in it arrives in the subsystem's environment and
// does nothing on the way. It becomes no shell argument, no option of sshd's, no
// variable and no log line of its own.
func TestHostileOpaque(t *testing.T) {
	t.Parallel()
	inBothWays(t, func(t *testing.T, use func(*device)) {
		for name := range hostile("") {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				probe := newProbe(t)
				device, nms := newSite(t, probe.Command)
				use(device)
				arrives(t, device, nms, probe, hostile(probe.dir)[name])
			})
		}
	})
}

// arrives makes a call home with an OPAQUE and looks at all that it could do.
func arrives(t *testing.T, device *device, nms *nms, probe *probe, opaque string) {
	t.Helper()
	log := filepath.Join(device.dir(), "sshd.log")
	addr := freeAddr("127.0.0.1")
	ssh := nms.Netconf(addr)
	call := start(t, "callhome-trigger", device.Command(splitArgs(t, addr, opaque), "--sshd-log", log, "--netconf-server", "yuma"))
	call.AwaitFamily("cat")

	env := probe.Environ()
	if got, want := env["CALLHOME_OPAQUE"], encoded(opaque); got != want {
		t.Errorf("CALLHOME_OPAQUE is\n%q, want\n%q", got, want)
	}
	if env["LD_PRELOAD"] != "" || env["y"] != "" {
		t.Errorf("it made variables: %v", env)
	}
	if !strings.HasSuffix(env["SSH_CONNECTION"], " "+yumaPort) {
		t.Errorf("SSH_CONNECTION is %q", env["SSH_CONNECTION"])
	}
	if port := strings.Fields(env["SSH_CONNECTION"])[1]; !strings.HasSuffix(addr, ":"+port) {
		t.Errorf("SSH_CONNECTION is %q", env["SSH_CONNECTION"])
	}
	ssh.in.Close()
	ssh.MustExit(0)
	if _, err := os.Stat(filepath.Join(probe.dir, "pwned")); err == nil {
		t.Error("it was executed")
	}
	// The log's first line is ours and has the argument in it; the others are
	// sshd's, and what they begin with is known.
	var head int
	for line := range strings.Lines(strings.ReplaceAll(readFile(t, log), "\r\n", "\n")) {
		if strings.Contains(line, "callhome-trigger[") {
			head++
		} else if strings.Contains(line, "FORGED") || strings.Contains(line, "PermitTTY") {
			t.Errorf("it made a line of its own: %q", line)
		}
		if strings.ContainsAny(strings.TrimSuffix(line, "\n"), "\x1b\a\r\x00") {
			t.Errorf("control characters are in the log: %q", line)
		}
	}
	if head != 1 {
		t.Errorf("%d lines of ours in the log, want 1", head)
	}
}

// The trigger's own log has OPAQUE in it as one field of one line, in each
// format.
func TestOpaqueInTheLog(t *testing.T) {
	t.Parallel()
	for name := range hostile("") {
		opaque := hostile(runDir)[name]
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			device := newDevice(t, "/bin/true")
			port := freePort() // the port is closed: the log is all there is
			for _, format := range []string{"text", "json"} {
				call := start(t, "callhome-trigger", device.Command([]string{"127.0.0.1", port, opaque}, "--log-level", "debug", "--log-format", format))
				call.MustExit(69)
				text := call.Stderr()
				if !strings.Contains(text, "opaque") {
					t.Errorf("OPAQUE is not in the log:\n%s", text)
				}
				for line := range strings.Lines(text) {
					if format == "json" {
						if err := json.Unmarshal([]byte(line), &map[string]any{}); err != nil {
							t.Errorf("not a line of JSON: %v: %q", err, line)
						}
					} else if !strings.HasPrefix(line, "[") || strings.ContainsAny(strings.TrimSuffix(line, "\n"), "\x1b\a\r") {
						t.Errorf("it made a line of its own: %q", line)
					}
				}
			}
		})
	}
}

// OPAQUE that cannot be carried is refused before any call.
func TestOpaqueThatIsTooLong(t *testing.T) {
	t.Parallel()
	inBothWays(t, func(t *testing.T, use func(*device)) {
		device := newDevice(t, "/bin/true")
		use(device)
		nms := listen(t, "127.0.0.1:0")
		call := start(t, "callhome-trigger", device.Command(splitArgs(t, nms.Addr(), strings.Repeat("A", 1025))))
		call.MustExit(64)
		oneLine(t, call.Stderr(), "OPAQUE", "1024")
		nms.NoCall()
	})
}

// --announce: lines of Junos outbound-ssh's form stand before sshd's version
// string, with OPAQUE as data; without it OPAQUE is not for the station.
func TestAnnouncement(t *testing.T) {
	t.Parallel()
	inBothWays(t, func(t *testing.T, use func(*device)) {
		device := newDevice(t, "/bin/true")
		device.options = append(device.options, "--announce", "--device-id", "rtr-7")
		use(device)
		nms := listen(t, "127.0.0.1:0")
		start(t, "callhome-trigger", device.Command(splitArgs(t, nms.Addr(), "x\r\nSSH-2.0-forged\r\n")))
		peer := nms.Accept()
		for _, want := range []string{"MSG-ID: DEVICE-CONN-INFO\r\n", "MSG-VER: V1\r\n", "DEVICE-ID: rtr-7\r\n", "OPAQUE: x%0D%0ASSH-2.0-forged%0D%0A\r\n"} {
			if line := peer.Line(); line != want {
				t.Errorf("the device says %q, want %q", line, want)
			}
		}
		if banner := peer.Banner(); strings.Contains(banner, "rtr-7") {
			t.Errorf("the version string has the id, too: %q", banner)
		}
		// The manager's own calls too.
		m := startManager(t, device)
		m.MustCallHome(nms.Addr(), proto.WaitTCP)
		peer = nms.Accept()
		for _, want := range []string{"MSG-ID: DEVICE-CONN-INFO\r\n", "MSG-VER: V1\r\n", "DEVICE-ID: rtr-7\r\n"} {
			if line := peer.Line(); line != want {
				t.Errorf("the manager's sshd says %q, want %q", line, want)
			}
		}
		peer.Banner()

		device = newDevice(t, "/bin/true")
		device.options = append(device.options, "--device-id", "rtr-7")
		use(device)
		start(t, "callhome-trigger", device.Command(splitArgs(t, nms.Addr(), "nothing-for-the-station")))
		banner := nms.Accept().Banner()
		if !strings.HasSuffix(banner, " rtr-7\r\n") || strings.Contains(banner, "nothing") {
			t.Errorf("the version string is %q", banner)
		}
	})
}
