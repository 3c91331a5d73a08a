package main

import (
	"bytes"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"callhome/internal/fdpass"
	"callhome/internal/porttest"
	"callhome/internal/sysexits"

	"golang.org/x/sys/unix"
)

// command runs the program's main function with its outputs in files.
func command(t *testing.T, stdout *os.File, args ...string) (int, string) {
	t.Helper()
	return commandTo(t, filepath.Join(t.TempDir(), "stderr"), stdout, args...)
}

// commandTo is command with the name of the file for standard error.
func commandTo(t *testing.T, name string, stdout *os.File, args ...string) (int, string) {
	t.Helper()
	stderr, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer stderr.Close()
	oldOut, oldErr := os.Stdout, os.Stderr
	os.Stderr = stderr
	if stdout != nil {
		os.Stdout = stdout
	}
	defer func() { os.Stdout, os.Stderr = oldOut, oldErr }()
	code := run(t.Context(), append([]string{"callhome-nms"}, args...))
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return code, string(text)
}

func TestAUsageErrorIsOneLine(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	t.Setenv("SSH_AUTH_SOCK", "")
	for args, want := range map[string]string{
		"":                                    "no command given",
		"bogus":                               `unknown command "bogus"`,
		"acept":                               `unknown command "acept"; did you mean "accept"?`,
		"devices adpt":                        `unknown command "adpt" of devices; did you mean "adopt"?`,
		"accept --timeuot 5":                  `unknown option "--timeuot"; did you mean "--timeout"?`,
		"accept -timeuot=5":                   `unknown option "-timeuot"; did you mean "--timeout"?`,
		"accept --timeout":                    `--timeout needs a value`,
		"serve --max-per-source x":            `--max-per-source "x": expected a number`,
		"console --commit -x /a":              "--commit does not take -x",
		"console --get -x":                    "-x needs a value",
		"accept --device":                     "--device needs a value",
		"accept":                              "standard output is not the socket",
		"accept x":                            "unexpected argument",
		"accept --device a/b":                 "is not a device's name",
		"accept --timeout soon":               `--timeout "soon": expected a time such as 30`,
		"console":                             "no operation given",
		"console --get":                       "expected one of --listen and --host",
		"console --get --listen --host h":     "expected one of --listen and --host",
		"console --get --listen":              "--listen needs --device",
		"console --listen 127.0.0.1 --get":    "--listen needs --device",
		"console --get --listen x file extra": "unexpected argument",
		"console --get --iter 0 --listen":     "--iter 0: expected a number above 0",
		"console --get --device x --host y -p secret --password-file z": "--password and --password-file exclude each other",
		"console --get --listen --proto tcp":                            `--proto "tcp": expected ssh`,
		"console --get --host h --keepalive 0s":                         "--keepalive 0s: expected a time above 0",
		"console --get -v 1.2":                                          `-v "1.2": expected 1.0 or 1.1`,
		"console --get -s html":                                         `-s "html": expected pretty`,
		"console --commit --db x":                                       "--commit does not take --db",
		"console --get --listen --device a*":                            "is not a device's name",
		"console --get --host h --fingerprint x":                        "is not a fingerprint",
	} {
		code, stderr := command(t, nil, strings.Fields(args)...)
		if code != sysexits.Usage || strings.Count(stderr, "\n") != 1 || !strings.HasPrefix(stderr, "callhome-nms: ") || !strings.Contains(stderr, want) {
			t.Errorf("%q: status %d\n%swant %q", args, code, stderr, want)
		}
	}
}

// ssh returns both ends of the socket that is a ProxyCommand's standard output with
// ProxyUseFdpass.
func ssh(t *testing.T) (*net.UnixConn, *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "ssh"), os.NewFile(uintptr(fds[1]), "stdout")
	defer ours.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(); theirs.Close() })
	return conn.(*net.UnixConn), theirs
}

// dialUntil dials until a program listens.
func dialUntil(t *testing.T, addr string) net.Conn {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			t.Cleanup(func() { c.Close() })
			return c
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// The socket that ssh gets is the device's connection with every byte in it.
func TestAcceptPassesTheSocket(t *testing.T) {
	for _, device := range []string{"", "edge7"} {
		conn, stdout := ssh(t)
		addr := porttest.Reserve(t, "127.0.0.1").String()
		args := []string{"accept", "--listen", addr, "--timeout", "1m"}
		if device != "" {
			args = append(args, "--device", device)
		}
		type result struct {
			code   int
			stderr string
		}
		done, output := make(chan result, 1), filepath.Join(t.TempDir(), "stderr")
		go func() { code, stderr := commandTo(t, output, stdout, args...); done <- result{code, stderr} }()
		if device != "" {
			if _, err := io.WriteString(dialUntil(t, addr), "SSH-2.0-x edge8\r\n"); err != nil {
				t.Fatal(err)
			}
			// Reported before the command ends, as standard error is another one then.
			for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
				text, err := os.ReadFile(output)
				if strings.Contains(string(text), `announces "edge8"`) {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("the other device is not reported: %q, %v", text, err)
				}
			}
		}
		const banner = "DEVICE-ID: edge7\r\nSSH-2.0-x\r\n"
		if _, err := io.WriteString(dialUntil(t, addr), banner); err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(time.Minute))
		n, f, err := fdpass.Recv(conn, make([]byte, 1))
		if err != nil || n != 1 {
			t.Fatal(n, err)
		}
		defer f.Close()
		if r := <-done; r.code != sysexits.OK || device == "" && r.stderr != "" {
			t.Errorf("status %d\n%s", r.code, r.stderr)
		}
		var flags int
		raw, err := f.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		_ = raw.Control(func(fd uintptr) { flags, err = unix.FcntlInt(fd, unix.F_GETFL, 0) })
		if err != nil || flags&unix.O_NONBLOCK != 0 {
			t.Errorf("the socket is not blocking: flags %#x, %v", flags, err)
		}
		fd := int(f.Fd())
		if nodelay, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY); nodelay != 1 || err != nil {
			t.Errorf("TCP_NODELAY is %d, %v", nodelay, err)
		}
		got := make([]byte, len(banner))
		if _, err := io.ReadFull(f, got); err != nil || !bytes.Equal(got, []byte(banner)) {
			t.Errorf("%q, %v", got, err)
		}
	}
}

func TestAcceptReportsWhyItFailed(t *testing.T) {
	_, stdout := ssh(t)
	code, stderr := command(t, stdout, "accept", "--listen", porttest.Reserve(t, "127.0.0.1").String(), "--timeout", "10ms", "--device", "edge7")
	if code != sysexits.Unavailable || !strings.Contains(stderr, "waiting for a call home of edge7: no call in time") {
		t.Errorf("status %d\n%s", code, stderr)
	}
	conn, stdout := ssh(t)
	conn.Close()
	if code, stderr = command(t, stdout, "accept", "--listen", porttest.Reserve(t, "127.0.0.1").String()); code != sysexits.Unavailable || !strings.Contains(stderr, "ssh has ended") {
		t.Errorf("status %d\n%s", code, stderr)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, stdout = ssh(t)
	if code, stderr = command(t, stdout, "accept", "--listen", l.Addr().String()); code != sysexits.Unavailable || !strings.Contains(stderr, "another program has the port") {
		t.Errorf("status %d\n%s", code, stderr)
	}
}
