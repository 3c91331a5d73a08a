package sshdexec

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Features is what one sshd can do, where the versions differ. The zero value
// knows nothing: no list is checked against, and no option that is not in
// every version is used.
type Features struct {
	// Version is how the program names itself, as "OpenSSH_9.2p1 Debian-2".
	Version string
	// ChannelTimeout says that it has ChannelTimeout and
	// UnusedConnectionTimeout (9.2 and later).
	ChannelTimeout bool
	// SlowClientAlive says that it takes twice the ClientAliveInterval (9.2 to
	// 9.4).
	SlowClientAlive bool
	// The algorithms that it knows, in sshd_config(5)'s words; nil where that
	// could not be found out.
	HostKeyAlgorithms, KexAlgorithms, Ciphers, MACs []string
}

// probeTimeout bounds each question to a program: a version takes some
// milliseconds.
const probeTimeout = 5 * time.Second

// maxProbeOutput bounds an answer, in bytes; a list of algorithms has 2 KiB.
const maxProbeOutput = 64 << 10

// Probe asks the sshd at path for its version, and the ssh of the same package
// for the algorithms: sshd itself lists only those that it would use. The error
// says that there is no OpenSSH sshd; an ssh that is missing or of another
// version is no error, and leaves the lists nil.
func Probe(path string) (Features, error) {
	// Up to 8.9 the program does not know -V and says its version all the
	// same, with exit status 1.
	said, err := ask(path, "-V")
	version := opensshVersion.FindStringSubmatch(said)
	if version == nil {
		if err == nil {
			err = fmt.Errorf("it does not say its version")
		}
		return Features{}, fmt.Errorf("asking %s for its version: %w", path, err)
	}
	f := Features{Version: version[0]}
	major, _ := strconv.Atoi(version[1])
	minor, _ := strconv.Atoi(version[2])
	number := major*100 + minor
	f.ChannelTimeout = number >= 902
	f.SlowClientAlive = number >= 902 && number <= 904
	ssh := sshBeside(path)
	if said, _ := ask(ssh, "-V"); sameRelease(said, version) {
		f.HostKeyAlgorithms = list(ssh, "HostKeyAlgorithms")
		f.KexAlgorithms = list(ssh, "KexAlgorithms")
		f.Ciphers = list(ssh, "Ciphers")
		f.MACs = list(ssh, "MACs")
	}
	return f, nil
}

var opensshVersion = regexp.MustCompile(`OpenSSH_([0-9]{1,4})\.([0-9]{1,4})[^\s,]*`)

// sameRelease reports whether said names the release that version does.
// Another release may know other algorithms.
func sameRelease(said string, version []string) bool {
	v := opensshVersion.FindStringSubmatch(said)
	return v != nil && v[1] == version[1] && v[2] == version[2]
}

// sshBeside returns where the ssh of an installation is: PREFIX/sbin/sshd has
// PREFIX/bin/ssh.
func sshBeside(sshd string) string {
	dir := filepath.Dir(sshd)
	if filepath.Base(dir) == "sbin" {
		dir = filepath.Join(filepath.Dir(dir), "bin")
	}
	return filepath.Join(dir, "ssh")
}

// list returns what `ssh -Q what` prints, nil where it fails.
func list(ssh, what string) []string {
	out, err := ask(ssh, "-Q", what)
	if err != nil {
		return nil
	}
	return strings.Fields(out)
}

// ask runs a program for what it prints, on either descriptor.
func ask(path string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), probeTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = Environ()
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	var out bounded
	cmd.Stdout, cmd.Stderr = &out, &out
	// The program's children may hold its descriptors; it is waited for alone.
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	if ctx.Err() != nil {
		err = fmt.Errorf("no answer within %v: %w", probeTimeout, os.ErrDeadlineExceeded)
	}
	return out.String(), err
}

// bounded keeps the first maxProbeOutput bytes of what is written to it.
type bounded struct{ strings.Builder }

func (b *bounded) Write(p []byte) (int, error) {
	b.Builder.Write(p[:min(len(p), maxProbeOutput-b.Len())])
	return len(p), nil
}
