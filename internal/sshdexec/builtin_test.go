package sshdexec

import (
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// What is built in is the file that the packages install, no more and no less.
func TestBuiltInIsThePackagedConfiguration(t *testing.T) {
	options := builtIn()
	for _, want := range []string{"AuthenticationMethods=publickey", "PermitRootLogin=prohibit-password", "ForceCommand=exit 1", "DisableForwarding=yes", "LogLevel=VERBOSE"} {
		if !slices.Contains(options, want) {
			t.Errorf("%s is not built in", want)
		}
	}
	for _, o := range options {
		if key, value, ok := strings.Cut(o, "="); !ok || key == "" || value == "" || strings.ContainsAny(key, " #") {
			t.Errorf("%q is no option", o)
		}
	}
}

// Of two settings sshd takes the first: what is built in comes after all others.
func TestWithoutAFileTheBuiltInOptionsComeLast(t *testing.T) {
	c := Command{Sshd: "/s", Subsystem: "/n", Options: []string{"UsePAM=no"}}
	args := c.TestArgs()
	if !slices.Equal(args[:2], []string{"-f", "none"}) {
		t.Errorf("sshd gets %q", args[:2])
	}
	if got := args[len(args)-1]; got != "Banner=none" {
		t.Errorf("the last option is %s", got)
	}
	if ours, last := slices.Index(args, "UsePAM=no"), slices.Index(args, "UsePAM=yes"); ours < 0 || last < ours {
		t.Errorf("UsePAM=no at %d, the built-in one at %d", ours, last)
	}
	c.Config = "/c"
	if args := c.TestArgs(); !slices.Equal(args[:2], []string{"-f", "/c"}) || slices.Contains(args, "UsePAM=yes") {
		t.Errorf("with a file sshd gets %q", args)
	}
}

// sshd itself reads the same settings from the packaged file and from the
// built-in options: no value depends on how sshd parses a line of a file.
func TestSshdReadsTheBuiltInOptionsAsThePackagedFile(t *testing.T) {
	const sshd = "/usr/sbin/sshd"
	if _, err := exec.LookPath(sshd); err != nil {
		t.Skip("no /usr/sbin/sshd here")
	}
	if err := MakePrivsepDir(); err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(t.TempDir(), "key")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	dump := func(config string) string {
		c := Command{Sshd: sshd, Config: config, HostKeys: []string{key}}
		out, err := exec.Command(sshd, append([]string{"-T"}, c.TestArgs()...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("sshd -T with configuration %q: %v: %s", config, err, out)
		}
		return string(out)
	}
	if file, own := dump("../../packaging/sshd_config"), dump(""); file != own {
		t.Errorf("from the file sshd reads\n%s\nfrom the built-in options\n%s", file, own)
	}
}
