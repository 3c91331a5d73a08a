package sshdexec

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"callhome/internal/lazyregexp"

	"golang.org/x/sys/unix"
)

// Features are the properties of one sshd that differ between versions. The zero
// value stands for an unknown version: no list is checked, and no option is used
// that some version lacks.
type Features struct {
	// Version is how the program names itself, as "OpenSSH_9.2p1 Debian-2".
	Version string
	// ChannelTimeout: it has ChannelTimeout and UnusedConnectionTimeout (9.2 and
	// later).
	ChannelTimeout bool
	// SlowClientAlive: it takes twice the ClientAliveInterval (9.2 to 9.4).
	SlowClientAlive bool
	// The algorithms that it supports, named as in sshd_config(5); nil if
	// unknown.
	HostKeyAlgorithms, KexAlgorithms, Ciphers, MACs []string
}

// probeTimeout bounds each question to a program: a version takes some
// milliseconds.
const probeTimeout = 5 * time.Second

// maxProbeOutput bounds an answer, in bytes; a list of algorithms has 2 KiB.
const maxProbeOutput = 64 << 10

// Probe asks the sshd at path for its version, and the ssh of the same package
// for the algorithms: sshd itself lists only the enabled ones. It fails if path is
// not OpenSSH's sshd. A missing ssh, or one of another version, leaves the lists
// nil.
func Probe(path string) (Features, error) {
	// Up to 8.9 -V is an unknown option: the usage message has the version, and
	// the exit status is 1.
	output, err := ask(path, "-V")
	version := opensshVersion().FindStringSubmatch(output)
	if version == nil {
		if err == nil {
			err = fmt.Errorf("its output has no OpenSSH version")
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
	if output, _ := ask(ssh, "-V"); sameRelease(output, version) {
		f.HostKeyAlgorithms = list(ssh, "HostKeyAlgorithms")
		f.KexAlgorithms = list(ssh, "KexAlgorithms")
		f.Ciphers = list(ssh, "Ciphers")
		f.MACs = list(ssh, "MACs")
	}
	return f, nil
}

var opensshVersion = lazyregexp.New(`OpenSSH_([0-9]{1,4})\.([0-9]{1,4})[^\s,]*`)

// sameRelease reports whether the output of -V names the release of version.
// Another release may support other algorithms.
func sameRelease(output string, version []string) bool {
	v := opensshVersion().FindStringSubmatch(output)
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

// ask runs a program and returns its standard output and error.
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
