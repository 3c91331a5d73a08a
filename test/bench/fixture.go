package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"callhome/internal/device/api"
	"callhome/internal/proto"
	"callhome/internal/sshdexec"

	"golang.org/x/sys/unix"
)

// fixture is what every measurement uses: keys, a subsystem, an sshd command,
// a manager.
type fixture struct {
	dir     string
	root    string           // of the tree in which the device's programs run; "" for none
	command sshdexec.Command // what callhome starts, and the floors start too
	env     []string         // the same for our programs
	log     *os.File
	builds  []build
	manager *daemon // of the first build
}

// build is a set of programs that are measured: those of this build, and with -beside
// those of another one.
type build struct {
	name    string // behind that of a way; "" for this build
	trigger string
	manager *daemon
}

func newFixture(o openssh) (f *fixture, err error) {
	// On tmpfs, as /run is where the manager has its files.
	dir, err := os.MkdirTemp("/dev/shm", "callhome-bench-")
	if errors.Is(err, fs.ErrNotExist) {
		dir, err = os.MkdirTemp("", "callhome-bench-")
	}
	if err != nil {
		return nil, err
	}
	f = &fixture{dir: dir}
	defer func() {
		if err != nil {
			f.end()
		}
	}()
	if o.tree != "" {
		if err := f.mount(o.tree); err != nil {
			return f, err
		}
	}
	config, err := filepath.Abs("packaging/sshd_config")
	if err != nil {
		return f, err
	}
	for _, key := range []string{"host_key", "user_key"} {
		if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f.path(key)).CombinedOutput(); err != nil {
			return f, fmt.Errorf("making a key: %w: %s", err, out)
		}
	}
	// A NETCONF server's hello, and then an open session.
	subsystem := f.path("subsystem")
	if err := os.WriteFile(subsystem, []byte("#!/bin/sh\necho '<hello/>]]>]]>'\nexec cat\n"), 0o755); err != nil {
		return f, err
	}
	f.command = sshdexec.Command{
		Sshd: "/usr/sbin/sshd", Config: config, HostKeys: []string{f.path("host_key")}, Subsystem: subsystem,
		Options: []string{"AuthorizedKeysFile=" + f.path("user_key.pub"), "StrictModes=no", "PermitRootLogin=yes"},
	}
	f.env = append(os.Environ(), "CALLHOME_DEFAULTS=/dev/null", "CALLHOME_SSHD_CONFIG="+config,
		"CALLHOME_HOST_KEY="+f.path("host_key"), "CALLHOME_SUBSYSTEM="+subsystem,
		"CALLHOME_SSHD_OPTION="+strings.Join(f.command.Options, ";"), "CALLHOME_MANAGER_SOCKET="+f.path("none"))
	if err := sshdexec.MakePrivsepDir(); err != nil {
		return f, err
	}
	if f.log, err = os.OpenFile(f.path("log"), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600); err != nil {
		return f, err
	}
	for _, b := range []struct{ dir, name string }{{*bin, ""}, {*beside, " of " + *beside}} {
		if b.dir == "" {
			continue
		}
		manager, err := f.startManagerOf(b.dir, "manager"+strconv.Itoa(len(f.builds)))
		if err != nil {
			return f, err
		}
		f.builds = append(f.builds, build{b.name, programIn(b.dir, "callhome-trigger"), manager})
	}
	f.manager = f.builds[0].manager
	return f, nil
}

func (f *fixture) path(name string) string { return filepath.Join(f.dir, name) }

func (f *fixture) end() {
	for _, b := range f.builds {
		b.manager.end()
	}
	f.unmount()
	os.RemoveAll(f.dir)
}

// daemon is a callhome-mgr of the benchmark's.
type daemon struct {
	cmd    *exec.Cmd
	client *api.Client
}

// startManager starts one; env comes on top of the fixture's.
func (f *fixture) startManager(name string, env ...string) (*daemon, error) {
	return f.startManagerOf(*bin, name, env...)
}

func (f *fixture) startManagerOf(dir, name string, env ...string) (*daemon, error) {
	d := &daemon{cmd: exec.Command(programIn(dir, "callhome-mgr"), "--socket", f.path(name), "run", "--state-dir", f.path(name+".state"), "--state-size", "0", "--log-level", "error")}
	d.cmd.Env, d.cmd.Stderr = append(append([]string(nil), f.env...), env...), f.log
	d.cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	f.inTree(d.cmd)
	if err := d.cmd.Start(); err != nil {
		return nil, err
	}
	var err error
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if d.client, err = api.Dial(f.path(name)); err == nil {
			return d, d.client.Call(context.Background(), proto.MethodWaitStart, nil, nil)
		}
	}
	return nil, err
}

// end ends the daemon and every session it has.
func (d *daemon) end() {
	d.endSessions()
	d.client.Close()
	_ = d.cmd.Process.Signal(unix.SIGTERM)
	_ = d.cmd.Wait()
}

// call asks for a call home to l.
func (d *daemon) call(l net.Listener, wait proto.Wait) error {
	to := l.Addr().(*net.TCPAddr)
	return d.client.Call(context.Background(), proto.MethodCallHome, proto.CallParams{Host: to.IP.String(), Port: uint16(to.Port), Wait: wait}, nil)
}

func listen() (*net.TCPListener, error) {
	return net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
}

func accept(l *net.TCPListener) (*net.TCPConn, error) {
	if err := l.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return nil, err
	}
	return l.AcceptTCP()
}
