//go:build integration

package integration

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"callhome/test/sandbox"

	"golang.org/x/sys/unix"
)

// device is the side that calls home: a host key, the keys it lets in, a
// NETCONF server's subsystem command, and callhome-trigger.
type device struct {
	t              *testing.T
	hostKey        string   // private key file
	authorizedKeys string   // file
	options        []string // of every call
	defaults       bool     // those stand in a defaults file, not on the command line
	netns          string   // network namespace it lives in; "" for ours
	root           string   // tree it lives in; "" for ours
	programs       string   // directory of callhome-trigger and callhome-mgr
	bare           bool     // it has no /etc/callhome and no PAM service of callhome's
}

// newDevice makes a device whose netconf subsystem is that command.
func newDevice(t *testing.T, subsystem string) *device {
	t.Helper()
	sandbox.Need(t, "/usr/sbin/sshd")
	dir := tempDir(t)
	d := &device{t: t, programs: binDir, hostKey: newKey(t, dir, "hostkey"), authorizedKeys: writeFile(t, filepath.Join(dir, "authorized_keys"), "", 0o644)}
	d.options = []string{
		"--host-key", d.hostKey,
		"--sshd-option", "AuthorizedKeysFile=" + d.authorizedKeys,
		"--subsystem", subsystem,
	}
	return d
}

// newSite is a device and the management station that it belongs to: each
// knows the other's key.
func newSite(t *testing.T, subsystem string) (*device, *nms) {
	t.Helper()
	d, n := newDevice(t, subsystem), newNMS(t)
	d.LetIn(n)
	n.Know(d)
	return d, n
}

// LetIn lets the station log in with its key.
func (d *device) LetIn(n *nms) {
	d.t.Helper()
	if err := appendFile(d.authorizedKeys, publicKey(d.t, n.key)+"\n"); err != nil {
		d.t.Fatal(err)
	}
}

// Command is callhome-trigger with the device's options, further ones, and the
// args HOST PORT OPAQUE; nothing is started.
func (d *device) Command(args []string, options ...string) *exec.Cmd {
	all := append(append([]string(nil), d.options...), options...)
	env := []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	if d.defaults {
		env = append(env, "CALLHOME_DEFAULTS="+d.writeDefaults(all))
		all = nil
	}
	cmd := d.here(append(append([]string{d.programs + "/callhome-trigger"}, all...), args...)...)
	cmd.Env = env
	return cmd
}

// Manager is callhome-mgr with these arguments, and the device's options for its
// settings; nothing is started.
func (d *device) Manager(args ...string) *exec.Cmd {
	cmd := d.here(append([]string{d.programs + "/callhome-mgr"}, args...)...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "CALLHOME_DEFAULTS=" + d.writeDefaults(d.options)}
	cmd.SysProcAttr.Setpgid = true
	return cmd
}

// here is a command where the device lives.
func (d *device) here(argv ...string) *exec.Cmd {
	attr := &unix.SysProcAttr{Chroot: d.root}
	if d.netns != "" {
		if d.root != "" { // the namespaces' names are not there
			argv = append([]string{"/usr/sbin/chroot", d.root}, argv...)
			attr.Chroot = ""
		}
		argv = append([]string{"/usr/bin/nsenter", "--net=" + d.netns, "--"}, argv...)
	}
	if d.bare {
		attr.Chroot = ""
		argv = append([]string{"/usr/bin/unshare", "--mount", "sh", "-ec",
			`mount -t tmpfs tmpfs "$1/etc/callhome"; cp -a "$1/etc/pam.d" "$1/etc/callhome"; rm "$1/etc/callhome/pam.d/callhome"
			mount --bind "$1/etc/callhome/pam.d" "$1/etc/pam.d"; mount -t tmpfs tmpfs "$1/etc/callhome"; root=$1; shift; [ -z "$root" ] || exec chroot "$root" "$@"; exec "$@"`, "sh", d.root}, argv...)
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = "/"
	cmd.SysProcAttr = attr
	return cmd
}

// Call calls home: HOST and PORT from addr, with further options. The exit
// status and stderr of what it returns are the trigger's, and after an exec
// sshd's.
func (d *device) Call(addr string, options ...string) *process {
	d.t.Helper()
	host, port := splitAddr(d.t, addr)
	return start(d.t, "callhome-trigger", d.Command([]string{host, port}, options...))
}

// UseDefaultsFile has every option of a call in a defaults file, so that the
// command line has arguments alone.
func (d *device) UseDefaultsFile() { d.defaults = true }

// writeDefaults writes options, as they would stand on a command line, in the
// form of systemd's EnvironmentFile.
func (d *device) writeDefaults(options []string) string {
	d.t.Helper()
	values := make(map[string][]string)
	var keys []string
	for i := 0; i < len(options); i++ {
		key := "CALLHOME_" + strings.ToUpper(strings.ReplaceAll(strings.TrimPrefix(options[i], "--"), "-", "_"))
		value := "true"
		if i+1 < len(options) && !strings.HasPrefix(options[i+1], "--") {
			i++
			value = options[i]
		}
		if values[key] == nil {
			keys = append(keys, key)
		}
		values[key] = append(values[key], value)
	}
	var text strings.Builder
	for _, key := range keys {
		quoted := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "$", `\$`, "`", "\\`").Replace(strings.Join(values[key], ";"))
		fmt.Fprintf(&text, "%s=\"%s\"\n", key, quoted)
	}
	return writeFile(d.t, filepath.Join(tempDir(d.t), "trigger.conf"), text.String(), 0o644)
}

func (d *device) dir() string { return filepath.Dir(d.hostKey) }

// AwaitFamily waits until the process has become sshd with a subsystem below
// it that runs the command, and returns them all.
func (p *process) AwaitFamily(command string) []proc {
	p.t.Helper()
	return p.awaitFamily(func(q proc) bool { return cmdline(q.pid) == command }, command)
}

// AwaitPreauth waits until sshd waits for a login with its unprivileged child
// and returns both. It is for a station that leaves it at that: a client that
// goes on may be too fast to see it.
func (p *process) AwaitPreauth() []proc {
	p.t.Helper()
	return p.awaitFamily(func(q proc) bool { return q.parent == p.pid && q.state != 'Z' }, "child of sshd")
}

func (p *process) awaitFamily(wanted func(proc) bool, what string) (all []proc) {
	p.t.Helper()
	sandbox.Await(p.t, patience, what, func() error {
		all = p.Family()
		for _, q := range all[1:] {
			if wanted(q) {
				return nil
			}
		}
		return errors.New("not in the process table")
	})
	return all
}

// Family returns the process as it was when it started, and after it whatever
// descends from it or is in its session now.
func (p *process) Family() []proc {
	all := []proc{p.self}
	for _, q := range family(p.pid) {
		if q.pid != p.pid {
			all = append(all, q)
		}
	}
	return all
}

// Watch looks again and again, until the function it returns is called; that
// returns every process of the session that was seen. A client that goes on by
// itself cannot be asked to wait for one look.
func (p *process) Watch() (seen func() []proc) {
	stop, stopped := make(chan struct{}), make(chan struct{})
	all := []proc{p.self}
	go func() {
		defer close(stopped)
		for {
			for _, q := range p.Family()[1:] {
				if !slices.ContainsFunc(all, func(known proc) bool { return known.pid == q.pid && known.started == q.started }) {
					all = append(all, q)
				}
			}
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	return func() []proc {
		close(stop)
		<-stopped
		return all
	}
}

// ways are the two ways to configure the trigger: options on
// the command line, and arguments alone with all else in the defaults file, as a
// NETCONF server calls it. The second is another path through the program.
var ways = []struct {
	name string
	use  func(*device)
}{
	{"flags", func(*device) {}},
	{"defaults file", (*device).UseDefaultsFile},
}

// inBothWays runs a story once for each way.
func inBothWays(t *testing.T, story func(t *testing.T, use func(*device))) {
	for _, way := range ways {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			story(t, way.use)
		})
	}
}

// splitArgs are HOST and PORT of an address.
func splitArgs(t *testing.T, addr string, opaque ...string) []string {
	t.Helper()
	host, port := splitAddr(t, addr)
	return append([]string{host, port}, opaque...)
}
