//go:build integration

package packages

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// releases are Debian's with the oldest and the newest dpkg, systemd and
// OpenSSH that the packages shall work with.
var releases = []string{"bullseye", "trixie"}

// await tries until what becomes nil; the last error is what was still wrong.
func await(t *testing.T, patience time.Duration, becomes string, what func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if err = what(); err == nil {
			return
		}
	}
	t.Fatalf("%s: not within %v: %v", becomes, patience, err)
}

// station is a stock ssh that has been called and has the netconf subsystem
// open, which sends back what it gets.
type station struct {
	in  io.Writer
	out *bufio.Reader
	end chan error // receives when ssh has ended
}

// listen starts a stock ssh that waits for a call on the machine's loopback,
// where the tree is, too.
func listen(t *testing.T, d *tree, dir string) *station {
	t.Helper()
	key, err := os.ReadFile(d.root + "/etc/ssh/ssh_host_ed25519_key.pub")
	if err == nil {
		err = os.WriteFile(dir+"/known_hosts", append([]byte("device "), key...), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("ssh", "-F", "none", "-s", "-i", dir+"/key", "-o", "ProxyUseFdpass=yes", "-o", "ProxyCommand="+workshop("fdpass-listen")+" 127.0.0.1:4334",
		"-o", "HostKeyAlias=device", "-o", "HostKeyAlgorithms=ssh-ed25519", "-o", "UserKnownHostsFile="+dir+"/known_hosts", "-o", "BatchMode=yes", "netconf@device", "netconf")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := &station{in: in, out: bufio.NewReader(out), end: make(chan error, 1)}
	ended := make(chan struct{})
	go func() {
		s.end <- cmd.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
	return s
}

// echo shows that the session is alive.
func (s *station) echo(t *testing.T, word string) {
	t.Helper()
	if _, err := fmt.Fprintln(s.in, word); err != nil {
		t.Fatalf("sending %q through the session: %v", word, err)
	}
	line := make(chan string, 1)
	go func() {
		text, err := s.out.ReadString('\n')
		line <- fmt.Sprint(text, err)
	}()
	select {
	case got := <-line:
		if got != word+"\n<nil>" {
			t.Fatalf("the session answered %q to %q", got, word)
		}
	case <-time.After(10 * time.Second):
		t.Fatalf("the session did not answer to %q", word)
	}
}

// startDaemon starts callhome-mgr by hand, as there is no systemd in the tree,
// and returns when it is that version that answers, and not one that is ending.
func startDaemon(t *testing.T, d *tree, version string) {
	t.Helper()
	cmd := d.command("exec callhome-mgr run --log-level error")
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
	await(t, 10*time.Second, "callhome-mgr "+version+" answers", func() error {
		out, err := d.command("callhome-mgr status").CombinedOutput()
		if err == nil && !strings.HasPrefix(string(out), "callhome-mgr "+version+",") {
			err = errors.New("it is another version")
		}
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
}

// theSession is the number and the PID of the one session.
func theSession(t *testing.T, d *tree) (id, pid int) {
	t.Helper()
	var list struct{ Sessions []struct{ Session, PID int } }
	out := d.run(t, "callhome-mgr sessions --json")
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list.Sessions) != 1 {
		t.Fatalf("the sessions are %s (%v), expected one", out, err)
	}
	return list.Sessions[0].Session, list.Sessions[0].PID
}

func expect(t *testing.T, what, out string, parts ...string) {
	t.Helper()
	for _, w := range parts {
		if !strings.Contains(out, w) {
			t.Errorf("%s does not say %q:\n%s", what, w, out)
		}
	}
}

// A device from the installation to the purge. The session that is opened with
// the first version outlives the upgrade, the daemon's restart, the removal and
// a new installation.
func TestDevice(t *testing.T) {
	for _, release := range releases {
		t.Run(release, func(t *testing.T) {
			d := openTree(t, release)
			dir := t.TempDir()
			say(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", dir+"/key")
			d.file(t, "/tmp/formerly.deb", theOne(t, workshop(dirFormerly, "callhome_*.deb")))
			d.file(t, "/tmp/now.deb", theOne(t, workshop(dirNow, "callhome_*.deb")))
			d.file(t, "/tmp/nms_key.pub", dir+"/key.pub")

			// A former package had a profile for callhome-trigger alone.
			d.run(t, `dpkg-deb -R /tmp/formerly.deb /tmp/formerly
				echo '# a profile' > /tmp/formerly/etc/apparmor.d/usr.sbin.callhome-trigger
				echo /etc/apparmor.d/usr.sbin.callhome-trigger >> /tmp/formerly/DEBIAN/conffiles
				dpkg-deb -b /tmp/formerly /tmp/formerly.deb; rm -r /tmp/formerly`)

			out := d.run(t, "dpkg -i /tmp/formerly.deb")
			expect(t, "the installation", out, "there is no /etc/callhome/callhome.json", "callhome-trigger --check")
			expect(t, "callhome-mgr --version", d.run(t, "callhome-mgr --version"), formerly)
			d.run(t, "grep ^callhome: /etc/group; test ! -e /etc/callhome/callhome.json; test -e /usr/share/doc/callhome/third-party-licences.gz")
			d.run(t, "test ! -e /run/sshd") // ssh.service does not run

			// The operator.
			d.run(t, `useradd -m -s /bin/sh netconf
				install -d -m 0700 -o netconf -g netconf ~netconf/.ssh
				install -m 0600 -o netconf -g netconf /tmp/nms_key.pub ~netconf/.ssh/authorized_keys
				sed -i 's/^#AllowUsers/AllowUsers/' /etc/callhome/sshd_config
				echo CALLHOME_SUBSYSTEM=/bin/cat >> /etc/callhome/trigger.conf`)
			expect(t, "callhome-trigger --check", d.run(t, "callhome-trigger --check"), "A call home can be made.")

			startDaemon(t, d, formerly)
			nms := listen(t, d, dir)
			await(t, 20*time.Second, "the call home", func() error {
				out, err := d.command("callhome-mgr call 127.0.0.1 --wait netconf").CombinedOutput()
				if err != nil {
					return fmt.Errorf("%w: %s", err, out)
				}
				return nil
			})
			nms.echo(t, "before")
			id, pid := theSession(t, d)

			out = d.run(t, "dpkg -i /tmp/now.deb")
			expect(t, "the upgrade", out, "the former callhome-mgr still runs", "callhome-mgr stop")
			if strings.Contains(out, "there is no /etc/callhome/callhome.json") {
				t.Errorf("the upgrade says what is for a first installation:\n%s", out)
			}
			d.run(t, "test ! -e /etc/apparmor.d/usr.sbin.callhome-trigger; test -L /usr/sbin/callhome-trigger")
			nms.echo(t, "the program is replaced")
			d.run(t, "callhome-mgr stop")
			startDaemon(t, d, now)
			nms.echo(t, "the daemon is another")
			if newID, newPID := theSession(t, d); newID != id || newPID != pid {
				t.Errorf("session %d with PID %d became session %d with PID %d", id, pid, newID, newPID)
			}
			d.run(t, "grep '^AllowUsers netconf' /etc/callhome/sshd_config; grep CALLHOME_SUBSYSTEM=/bin/cat /etc/callhome/trigger.conf")

			out = d.run(t, "dpkg -r callhome")
			expect(t, "the removal", out, "callhome-mgr is stopped", fmt.Sprintf("PID %d, with 127.0.0.1", pid), "kill -- -PID")
			d.run(t, "test ! -e /usr/sbin/callhome-mgr; test ! -e /usr/sbin/callhome-trigger; test -e /etc/callhome/trigger.conf")
			nms.echo(t, "removed")

			d.run(t, "dpkg -i /tmp/now.deb")
			startDaemon(t, d, now)
			if newID, newPID := theSession(t, d); newID != id || newPID != pid {
				t.Errorf("session %d with PID %d was found again as session %d with PID %d", id, pid, newID, newPID)
			}
			out = d.run(t, "dpkg -r callhome")
			d.run(t, fmt.Sprintf("kill -- -%d", pid)) // as it says
			select {
			case <-nms.end:
			case <-time.After(10 * time.Second):
				t.Errorf("the session goes on after what the removal said ends it:\n%s", out)
			}

			d.run(t, "for i in 1 2; do mkdir -p /run/callhome/log; mount -t tmpfs callhome /run/callhome/log; done") // as two triggers may have
			d.run(t, "dpkg -P callhome")
			// sshd that is ended by a signal leaves its authentication information,
			// a public key; no manager was there to remove it (docs/install.md).
			d.run(t, "rm /tmp/sshauth.*")
			d.run(t, "userdel -r netconf 2>/dev/null; rm /tmp/formerly.deb /tmp/now.deb /tmp/nms_key.pub")
			for _, change := range d.changes(t) {
				t.Errorf("left of the package: %s", change)
			}
			d.run(t, "test ! -e /run/callhome")
		})
	}
}

// The two device packages stand for each other: one takes the other's place,
// and the configuration stays.
func TestTheSmallOneTakesTheOthersPlace(t *testing.T) {
	d := openTree(t, "trixie")
	d.file(t, "/tmp/callhome.deb", theOne(t, workshop(dirNow, "callhome_*.deb")))
	d.file(t, "/tmp/small.deb", theOne(t, workshop(dirNow, "callhome-small_*.deb")))
	d.run(t, "dpkg -i /tmp/callhome.deb; echo CALLHOME_DSCP=16 >> /etc/callhome/trigger.conf")
	if out, err := d.command("dpkg --auto-deconfigure -B -i --force-confold /tmp/small.deb").CombinedOutput(); err != nil {
		t.Fatalf("installing callhome-small in place of callhome: %v\n%s", err, out)
	}
	d.run(t, "echo '{}' > /etc/callhome/callhome.json; dpkg -P callhome; test -e /etc/callhome/callhome.json; grep ^callhome: /etc/group")
	d.run(t, "grep CALLHOME_DSCP=16 /etc/callhome/trigger.conf")
	out, err := d.command("callhome-mgr run --metrics 127.0.0.1:9434").CombinedOutput()
	if err == nil {
		t.Error("callhome-small serves metrics")
	}
	expect(t, "callhome-mgr of callhome-small", string(out), "built without them")
	d.run(t, "dpkg -P callhome-small; rm /tmp/*.deb")
	for _, change := range d.changes(t) {
		t.Errorf("left of the packages: %s", change)
	}
}

func TestManagementStation(t *testing.T) {
	const file = "callhome-nms_*.deb"
	for _, release := range releases {
		t.Run(release, func(t *testing.T) {
			d := openTree(t, release)
			d.file(t, "/tmp/formerly.deb", theOne(t, workshop(dirFormerly, file)))
			d.file(t, "/tmp/now.deb", theOne(t, workshop(dirNow, file)))
			out := d.run(t, "dpkg -i /tmp/formerly.deb")
			expect(t, "the installation", out, "the daemon is not started", "systemctl enable --now callhome-nms")
			expect(t, "callhome-nms version", d.run(t, "callhome-nms version"), formerly)
			d.run(t, "grep ^callhome-nms: /etc/group; echo '# mine' >> /etc/callhome-nms/nms.conf; dpkg -i /tmp/now.deb; grep '# mine' /etc/callhome-nms/nms.conf")
			expect(t, "callhome-nms version", d.run(t, "callhome-nms version"), now)
			d.run(t, "dpkg -r callhome-nms; dpkg -P callhome-nms; rm /tmp/formerly.deb /tmp/now.deb")
			for _, change := range d.changes(t) {
				t.Errorf("left of the package: %s", change)
			}
		})
	}
}
