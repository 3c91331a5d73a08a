// Package dhcp_test holds the hooks of packaging/dhcp to what docs/oran.md says
// of them: what callhome-dhcp makes of an option 43, and what it refuses.
package dhcp_test

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"callhome/test/sandbox"
)

const script = "../../packaging/dhcp/callhome-dhcp"

// shells are those that the hooks may meet on a device.
var shells = [][]string{{"sh"}, {"bash"}, {"busybox", "sh"}}

// tree is a root directory of its own for one run, with conf as dhcp.conf.
func tree(t *testing.T, conf string) string {
	t.Helper()
	root := t.TempDir()
	for _, dir := range []string{"etc/callhome", "var/lib/callhome", "bin"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(root, "etc/callhome/dhcp.conf"), conf, 0o644)
	return root
}

func write(t *testing.T, name, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// run gives a lease to callhome-dhcp in a shell.
func run(t *testing.T, shell []string, root, iface, value string, option ...string) (stdout, stderr string, status int) {
	t.Helper()
	sandbox.Need(t, shell[0])
	args := append(append(append([]string{}, shell[1:]...), script, iface, value), option...)
	cmd := exec.Command(shell[0], args...)
	cmd.Env = append(os.Environ(), "CALLHOME_DHCP_ROOT="+root)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// sub is one sub-option.
func sub(tag byte, value string) string { return string([]byte{tag, byte(len(value))}) + value }

func plain(value string) string { return hex.EncodeToString([]byte(value)) }

// colons writes an option as dhclient does.
func colons(value string) string {
	var octets []string
	for i := range len(value) {
		octets = append(octets, fmt.Sprintf("%x", value[i]))
	}
	return strings.Join(octets, ":")
}

const a1, a2 = "\xc0\x00\x02\x01", "\xc0\x00\x02\x02"

func TestControllers(t *testing.T) {
	for name, tt := range map[string]struct{ conf, value, want string }{
		"one address":               {"", sub(0x81, a1), "192.0.2.1\n"},
		"two in one":                {"", sub(0x81, a1+a2), "192.0.2.1\n192.0.2.2\n"},
		"two in two":                {"", sub(0x81, a1) + sub(0x81, a2), "192.0.2.1\n192.0.2.2\n"},
		"a name":                    {"", sub(0x82, "smo-1.example.net"), "smo-1.example.net\n"},
		"a name with its dot":       {"", sub(0x82, "smo.example."), "smo.example\n"},
		"a name with NULs behind":   {"", sub(0x82, "smo.example\x00\x00"), "smo.example\n"},
		"a name with underscores":   {"", sub(0x82, "_smo_1.example"), "_smo_1.example\n"},
		"NULs behind the option":    {"", sub(0x82, "smo.example") + "\x00\x00", "smo.example\n"},
		"both":                      {"", sub(0x82, "smo.example") + sub(0x81, a1), "192.0.2.1\n"},
		"both, the name":            {"CALLHOME_DHCP_PREFER=name\n", sub(0x81, a1) + sub(0x82, "smo.example"), "smo.example\n"},
		"SSH":                       {"", sub(0x81, a1) + sub(0x86, "\x00"), "192.0.2.1\n"},
		"others' sub-options":       {"", sub(1, "\x7f\x00\x00\x01") + sub(0x83, "x;y") + sub(0x81, a1), "192.0.2.1\n"},
		"padding and the end":       {"", "\x00\x00" + sub(0x81, a1) + "\xff;;;", "192.0.2.1\n"},
		"the older class":           {"CALLHOME_DHCP_LEGACY=yes\n", sub(1, a2) + sub(0x81, a1), "192.0.2.2\n"},
		"nothing":                   {"", "", ""},
		"nothing of ours":           {"", sub(5, "x"), ""},
		"of another interface":      {"CALLHOME_DHCP_INTERFACE=mgmt\n", sub(0x81, a1), ""},
		"of the interface":          {"CALLHOME_DHCP_INTERFACE=eth0.7\n", sub(0x81, a1), "192.0.2.1\n"},
		"as many as are understood": {"", sub(0x81, strings.Repeat(a1, 8)), strings.Repeat("192.0.2.1\n", 8)},
	} {
		for _, shell := range shells {
			root := tree(t, tt.conf+"CALLHOME_DHCP_MODE=print\n")
			for _, value := range []string{plain(tt.value), colons(tt.value), strings.ToUpper(plain(tt.value))} {
				out, errs, status := run(t, shell, root, "eth0.7", value)
				if out != tt.want || errs != "" || status != 0 {
					t.Errorf("%s, %v, %q: %d %q %q, want %q", name, shell, value, status, out, errs, tt.want)
				}
			}
		}
	}
}

// The first server to answer DHCP sets these values. None may make anything
// happen, and what is said of it is one line without a byte of theirs.
func TestHostileOptions(t *testing.T) {
	good := sub(0x81, a1)
	values := map[string]string{
		"no hexadecimal":          "8104zz",
		"a command":               "$(touch pwned)",
		"a command's end":         "8104c0000201;touch pwned",
		"backquotes":              "`touch pwned`",
		"a line":                  plain(good) + "\ntouch pwned",
		"an option":               "--config",
		"a glob":                  "*",
		"half a byte":             "8104c000020",
		"an empty byte":           "81::4",
		"a byte of three digits":  "081:4:c0:0:2:1",
		"too long":                strings.Repeat("00", 1025),
		"a name with a command":   plain(sub(0x82, "$(touch pwned).example")),
		"a name with a line":      plain(good + sub(0x82, "a.example\ntouch pwned")),
		"a NUL in a name":         plain(sub(0x82, "a\x00.example\x00")),
		"a name of NULs":          plain(sub(0x82, "\x00\x00")),
		"a name with a space":     plain(sub(0x82, "a.example --config /x")),
		"a name with a quote":     plain(sub(0x82, `a.example","x":"`)),
		"a name with a slash":     plain(sub(0x82, "../../etc/passwd")),
		"a name in UTF-8":         plain(sub(0x82, "exämple.net")),
		"a name with a percent":   plain(sub(0x82, "a%n.example")),
		"a name with a backslash": plain(sub(0x82, `a\0056b.example`)),
		"a name as an option":     plain(sub(0x82, "-oProxyCommand.example")),
		"an empty label":          plain(sub(0x82, "a..example")),
		"only a dot":              plain(sub(0x82, ".")),
		"an empty name":           plain(sub(0x82, "")),
		"a number as a name":      plain(sub(0x82, "127.0.0.1")),
		"a name too long":         plain(sub(0x82, strings.Repeat("a", 254))),
		"three bytes of address":  plain(sub(0x81, "\xc0\x00\x02")),
		"no address":              plain(sub(0x81, "")),
		"loopback":                plain(good + sub(0x81, "\x7f\x00\x00\x01")),
		"multicast":               plain(sub(0x81, "\xe0\x00\x00\x01")),
		"broadcast":               plain(sub(0x81, "\xff\xff\xff\xff")),
		"this network":            plain(sub(0x81, "\x00\x00\x00\x00")),
		"nine addresses":          plain(sub(0x81, strings.Repeat(a1, 9))),
		"a length past the end":   plain(good + "\x81\xff" + a1),
		"no length":               plain(good + "\x81"),
		"TLS":                     plain(good + sub(0x86, "\x01")),
		"a transport of 2 bytes":  plain(good + sub(0x86, "\x00\x00")),
	}
	for name, value := range values {
		for _, shell := range shells {
			root := tree(t, "CALLHOME_DHCP_MODE=print\n")
			out, errs, status := run(t, shell, root, "eth0", value)
			if out != "" || status != 65 || strings.Count(errs, "\n") != 1 || !strings.HasPrefix(errs, "callhome-dhcp: DHCP option 43 on eth0 is refused: ") || strings.Contains(errs, "pwned") {
				t.Errorf("%s, %v: %d %q %q, want 65 and one line", name, shell, status, out, errs)
			}
			if _, err := os.Stat("pwned"); err == nil {
				t.Fatalf("%s, %v: it was executed", name, shell)
			}
		}
	}
	for _, iface := range []string{"", "eth0;touch pwned", "../eth0", "a b", "eth0\n", "interface-of-16-", "$(touch pwned)"} {
		out, errs, status := run(t, shells[0], tree(t, "CALLHOME_DHCP_MODE=print\n"), iface, plain(good))
		if out != "" || status != 64 || strings.Contains(errs, "touch") {
			t.Errorf("interface %q: %d %q %q, want 64", iface, status, out, errs)
		}
	}
}

// uri is an entry of RFC 8572's bootstrap-server-list, sub6 a sub-option of DHCPv6.
func uri(text string) string { return string([]byte{byte(len(text) >> 8), byte(len(text))}) + text }

func sub6(tag byte, value string) string {
	return string([]byte{0, tag, byte(len(value) >> 8), byte(len(value))}) + value
}

const (
	oran = "\x00\x00\xcf\x9c" // enterprise 53148
	v6   = "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01"
	link = "\xfe\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01"
)

// The other options are read only where the setting names them.
func TestOtherOptions(t *testing.T) {
	for name, tt := range map[string]struct{ conf, option, value, want string }{
		"143, a name":               {"", "143", uri("https://sztp.example"), "sztp.example\n"},
		"143, a port and a path":    {"", "143", uri("HTTPS://sztp.example:8443/x?y#z"), "sztp.example\n"},
		"143, addresses":            {"", "143", uri("https://192.0.2.1") + uri("https://[2001:db8::1]:443/"), "192.0.2.1\n2001:db8::1\n"},
		"143, NULs behind":          {"", "143", uri("https://sztp.example\x00"), "sztp.example\n"},
		"143, nothing":              {"", "143", "", ""},
		"17, an address":            {"", "17", oran + sub6(0x81, v6), "2001:db8:0:0:0:0:0:1\n"},
		"17, two":                   {"", "17", oran + sub6(0x81, v6+v6[:15]+"\x02"), "2001:db8:0:0:0:0:0:1\n2001:db8:0:0:0:0:0:2\n"},
		"17, link-local":            {"", "17", oran + sub6(0x81, link), "fe80:0:0:0:0:0:0:1%eth0\n"},
		"17, a name and SSH":        {"", "17", oran + sub6(0x82, "smo.example\x00") + sub6(0x86, "\x00"), "smo.example\n"},
		"17, others' sub-options":   {"", "17", oran + sub6(5, "\x00\xff;") + sub6(0x82, "smo.example"), "smo.example\n"},
		"17, another enterprise":    {"", "17", "\x00\x00\x00\x09" + sub6(0x82, "smo.example"), ""},
		"17, the enterprise's":      {"CALLHOME_DHCP_ENTERPRISE=9\n", "17", "\x00\x00\x00\x09" + sub6(0x82, "smo.example"), "smo.example\n"},
		"43, where it is not named": {"CALLHOME_DHCP_OPTIONS=143\n", "43", sub(0x81, a1), ""},
	} {
		conf := "CALLHOME_DHCP_MODE=print\nCALLHOME_DHCP_OPTIONS=43 143 17\n" + tt.conf
		for _, shell := range shells {
			for _, value := range []string{plain(tt.value), colons(tt.value)} {
				if out, errs, status := run(t, shell, tree(t, conf), "eth0", value, tt.option); out != tt.want || errs != "" || status != 0 {
					t.Errorf("%s, %v: %d %q %q, want %q", name, shell, status, out, errs, tt.want)
				}
			}
			if out, errs, status := run(t, shell, tree(t, "CALLHOME_DHCP_MODE=print\n"), "eth0", plain(tt.value), tt.option); tt.option != "43" && out+errs != "" || status != 0 {
				t.Errorf("%s, %v, without the setting: %d %q %q", name, shell, status, out, errs)
			}
		}
	}
}

func TestHostileOtherOptions(t *testing.T) {
	for name, tt := range map[string]struct{ option, value string }{
		"143, http":                 {"143", uri("http://sztp.example")},
		"143, another scheme":       {"143", uri("ssh://sztp.example")},
		"143, a user name":          {"143", uri("https://user:pwned@sztp.example")},
		"143, a command":            {"143", uri("https://$(touch pwned).example")},
		"143, a space":              {"143", uri("https://a.example --config /pwned")},
		"143, a quote":              {"143", uri("https://a'pwned'.example")},
		"143, an option":            {"143", uri("https://-oProxyCommand.example")},
		"143, loopback":             {"143", uri("https://127.0.0.1")},
		"143, loopback of IPv6":     {"143", uri("https://[::1]")},
		"143, a mapped address":     {"143", uri("https://[::ffff:127.0.0.1]")},
		"143, multicast of IPv6":    {"143", uri("https://[FF02::1]")},
		"143, no host":              {"143", uri("https:///pwned")},
		"143, a number":             {"143", uri("https://2130706433")},
		"143, octal":                {"143", uri("https://0300.0.2.1")},
		"143, five numbers":         {"143", uri("https://192.0.2.1.1")},
		"143, 256":                  {"143", uri("https://192.0.2.256")},
		"143, a very large number":  {"143", uri("https://192.0.2.18446744073709551617")},
		"143, a NUL inside":         {"143", uri("https://a\x00.example")},
		"143, a length past it":     {"143", "\x01\x00https://a.example"},
		"143, half a length":        {"143", uri("https://a.example") + "\x00"},
		"143, an empty URI":         {"143", uri("")},
		"143, nine":                 {"143", strings.Repeat(uri("https://a.example"), 9)},
		"17, three bytes":           {"17", oran[:3]},
		"17, half a sub-option":     {"17", oran + "\x00\x81\x00"},
		"17, a length past it":      {"17", oran + "\x00\x81\xff\xff" + v6},
		"17, half an address":       {"17", oran + sub6(0x81, v6[:8])},
		"17, loopback":              {"17", oran + sub6(0x81, strings.Repeat("\x00", 15)+"\x01")},
		"17, unspecified":           {"17", oran + sub6(0x81, strings.Repeat("\x00", 16))},
		"17, a mapped address":      {"17", oran + sub6(0x81, strings.Repeat("\x00", 10)+"\xff\xff\x7f\x00\x00\x01")},
		"17, multicast":             {"17", oran + sub6(0x81, "\xff"+v6[1:])},
		"17, TLS":                   {"17", oran + sub6(0x82, "smo.example") + sub6(0x86, "\x01")},
		"17, a name with a command": {"17", oran + sub6(0x82, "$(touch pwned).example")},
		"17, a NUL in a name":       {"17", oran + sub6(0x82, "smo\x00.example")},
	} {
		conf := "CALLHOME_DHCP_MODE=print\nCALLHOME_DHCP_OPTIONS=143 17\n"
		for _, shell := range shells {
			out, errs, status := run(t, shell, tree(t, conf), "eth0", plain(tt.value), tt.option)
			if out != "" || status != 65 || strings.Count(errs, "\n") != 1 || !strings.Contains(errs, " option "+tt.option+" on eth0 is refused: ") || strings.Contains(errs, "pwned") {
				t.Errorf("%s, %v: %d %q %q, want 65 and one line", name, shell, status, out, errs)
			}
			if _, err := os.Stat("pwned"); err == nil {
				t.Fatalf("%s, %v: it was executed", name, shell)
			}
		}
	}
	if out, errs, status := run(t, shells[0], tree(t, ""), "eth0", "00", "60"); out != "" || status != 64 || !strings.Contains(errs, "43, 143 or 17") {
		t.Errorf("an unknown option: %d %q %q", status, out, errs)
	}
}

func TestWrongSettings(t *testing.T) {
	for conf, want := range map[string]string{
		"CALLHOME_DHCP_MODE=explode\n":                       "CALLHOME_DHCP_MODE=configure",
		"CALLHOME_DHCP_MODE=print\nCALLHOME_DHCP_PREFER=x\n": "CALLHOME_DHCP_PREFER=address",
	} {
		if _, errs, status := run(t, shells[0], tree(t, conf), "eth0", plain(sub(0x81, a1))); status != 78 || !strings.Contains(errs, want) {
			t.Errorf("%q: %d %q, want 78 and %s", conf, status, errs, want)
		}
	}
}

// stub is a program that notes how it was called.
func stub(t *testing.T, root, name, more string) {
	write(t, filepath.Join(root, "bin", name), "#!/bin/sh\nprintf '"+name+"' >> '"+root+"/calls'\nprintf ' [%s]' \"$@\" >> '"+root+"/calls'\necho >> '"+root+"/calls'\n"+more, 0o755)
}

func TestCalls(t *testing.T) {
	value := plain(sub(0x81, a1+a2))
	for mode, want := range map[string]string{
		"call":    "callhome-mgr [call] [--wait] [none] [--] [192.0.2.1]\ncallhome-mgr [call] [--wait] [none] [--] [192.0.2.2]\n",
		"trigger": "callhome-trigger [--handover] [detach] [--] [192.0.2.1]\ncallhome-trigger [--handover] [detach] [--] [192.0.2.2]\n",
	} {
		for _, shell := range shells {
			root := tree(t, "CALLHOME_DHCP_MODE="+mode+"\n")
			stub(t, root, "callhome-mgr", "exit 69\n")
			stub(t, root, "callhome-trigger", "exit 69\n")
			// The first one that does not answer keeps the second from nothing.
			if _, errs, status := run(t, shell, root, "eth0", value); status != 69 {
				t.Errorf("%s, %v: %d %q, want 69", mode, shell, status, errs)
			}
			if got := read(t, root+"/calls"); got != want {
				t.Errorf("%s, %v: called\n%swant\n%s", mode, shell, got, want)
			}
		}
	}
}

func TestConfigure(t *testing.T) {
	for _, shell := range shells {
		root := tree(t, "CALLHOME_DHCP_INIT=--user netconf=/etc/k.pub --netconf-server yuma\n")
		// A document is what it was asked for with.
		stub(t, root, "callhome-mgr", `test "$1" = reload || echo "$*"`+"\n")
		document := root + "/etc/callhome/callhome.json"
		if err := os.Remove(root + "/var/lib/callhome"); err != nil {
			t.Fatal(err) // it is made where it is not there
		}
		lease := func(value string, want int) string {
			t.Helper()
			_, errs, status := run(t, shell, root, "eth0", plain(value))
			if status != want {
				t.Fatalf("%v: status %d %q, want %d", shell, status, errs, want)
			}
			return errs
		}
		reloads := func() int { return strings.Count(read(t, root+"/calls"), "[reload]") }

		lease(sub(0x81, a1), 0)
		if got, want := read(t, document), "init --each --nms 192.0.2.1 --user netconf=/etc/k.pub --netconf-server yuma\n"; got != want {
			t.Fatalf("%v: %q, want %q", shell, got, want)
		}
		lease(sub(0x81, a1), 0) // a renewal
		if reloads() != 1 {
			t.Errorf("%v: a renewal that changed nothing was reported", shell)
		}
		lease(sub(0x81, a2), 0)
		if got := read(t, document); !strings.Contains(got, "192.0.2.2") || reloads() != 2 {
			t.Errorf("%v: another lease, and %q after %d reloads", shell, got, reloads())
		}
		// Interrupted between the two renames.
		if err := os.Rename(root+"/var/lib/callhome/dhcp.json", root+"/var/lib/callhome/dhcp.json.next"); err != nil {
			t.Fatal(err)
		}
		lease(sub(0x81, a1), 0)
		// An administrator's document stays.
		write(t, document, "{}", 0o644)
		if errs := lease(sub(0x81, a2), 78); !strings.Contains(errs, "it stays") || read(t, document) != "{}" {
			t.Errorf("%v: %q, document %q", shell, errs, read(t, document))
		}
		if left, err := filepath.Glob(document + ".*"); err != nil || left != nil {
			t.Errorf("%v: left behind: %v %v", shell, left, err)
		}
	}
}

func TestAFailedDocumentChangesNothing(t *testing.T) {
	root := tree(t, "")
	stub(t, root, "callhome-mgr", "echo half; exit 78\n")
	if _, errs, status := run(t, shells[0], root, "eth0", plain(sub(0x81, a1))); status != 78 {
		t.Errorf("%d %q, want 78", status, errs)
	}
	if left, err := filepath.Glob(root + "/etc/callhome/callhome.json*"); err != nil || left != nil {
		t.Errorf("written: %v %v", left, err)
	}
}

func TestShellcheck(t *testing.T) {
	sandbox.Need(t, "shellcheck")
	files, err := filepath.Glob("../../packaging/dhcp/*-hook")
	if err != nil || len(files) != 3 {
		t.Fatal(files, err)
	}
	if out, err := exec.Command("shellcheck", append(files, script)...).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
