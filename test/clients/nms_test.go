//go:build integration

package clients

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"callhome/test/sandbox"

	"golang.org/x/sys/unix"
)

// nms is a NETCONF client's end of call homes, as far as a story needs one.
type nms struct {
	port string
	// banners has the first line of each connection: of sshd's, if all is well.
	banners chan string
}

// listen accepts call homes, reads the banner of each, and then lets behave do
// with the connection what it likes; nil keeps it open until the other side
// ends it.
func listen(t *testing.T, behave func(net.Conn)) *nms {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	n := &nms{banners: make(chan string, 64)}
	_, n.port, _ = net.SplitHostPort(l.Addr().String())
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(patience))
				r := bufio.NewReader(c)
				banner, _ := r.ReadString('\n')
				n.banners <- banner
				if behave != nil {
					behave(c)
					return
				}
				_, _ = io.Copy(io.Discard, r)
			}()
		}
	}()
	return n
}

// awaitBanner waits until sshd speaks.
func (n *nms) awaitBanner(t *testing.T) {
	t.Helper()
	select {
	case b := <-n.banners:
		if !strings.HasPrefix(b, "SSH-2.0-") {
			t.Fatalf("the NETCONF client was sent %q", b)
		}
	case <-time.After(patience):
		t.Fatal("no banner came")
	}
}

// refusingPort returns a port that refuses connections, and that no other test has.
func refusingPort(t *testing.T) string {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	at, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(at.(*unix.SockaddrInet4).Port)
}

// ssh is the stock ssh as NETCONF client.
type ssh struct {
	port  string
	stdin io.WriteCloser
	lines *bufio.Reader
	cmd   *exec.Cmd
}

// startSSH lets the stock ssh wait for one call home, log in as netop with that
// key, and do what the words say.
func startSSH(t *testing.T, key string, words ...string) *ssh {
	t.Helper()
	built, dir := os.Getenv(insideEnv), t.TempDir()
	s := &ssh{port: freePort(t)}
	args := append([]string{"-F", "none", "-o", "ProxyUseFdpass=yes", "-o", "ProxyCommand=" + built + "/fdpass-listen 127.0.0.1:" + s.port,
		"-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=" + dir + "/known",
		"-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none", "-i", built + "/" + key}, words...)
	s.cmd = exec.Command("ssh", args...)
	log, err := os.Create(dir + "/ssh.log")
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	s.cmd.Stderr = log
	s.cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL, Setpgid: true}
	if s.stdin, err = s.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := s.cmd.StdoutPipe()
	if err == nil {
		err = s.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	s.lines = bufio.NewReader(out)
	t.Cleanup(func() {
		_ = unix.Kill(-s.cmd.Process.Pid, unix.SIGKILL)
		_ = s.cmd.Wait()
		if t.Failed() {
			text, _ := os.ReadFile(dir + "/ssh.log")
			t.Logf("what ssh said:\n%s", text)
		}
	})
	sandbox.Await(t, patience, "the stock ssh to listen", func() error { return listening(s.port) })
	return s
}

// echo sends a line through the session and reads it back.
func (s *ssh) echo(t *testing.T, line string) {
	t.Helper()
	if _, err := io.WriteString(s.stdin, line+"\n"); err != nil {
		t.Fatal(err)
	}
	back, err := s.lines.ReadString('\n')
	if err != nil || back != line+"\n" {
		t.Fatalf("%q came back through the session as %q (%v)", line, back, err)
	}
}

// listening looks into the kernel's table, as a connection would use up the
// one that ssh waits for.
func listening(port string) error {
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return err
	}
	var n int
	fmt.Sscan(port, &n)
	if strings.Contains(string(table), fmt.Sprintf("0100007F:%04X 00000000:0000 0A", n)) {
		return nil
	}
	return errors.New("no program listens on port " + port)
}

// freePort returns a port that no test has: in this network namespace they are
// counted from below what the kernel gives out itself.
func freePort(t *testing.T) string {
	t.Helper()
	for {
		n := ports.Add(1)
		if n > 30000 {
			t.Fatal("all ports are used up")
		}
		port := fmt.Sprint(n)
		if listening(port) != nil {
			return port
		}
	}
}

var ports atomic.Uint32

func init() { ports.Store(10000) }
