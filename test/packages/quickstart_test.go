//go:build integration

package packages

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"callhome/test/docs/markdown"
	"callhome/test/skips"

	"golang.org/x/sys/unix"
)

// withNetconfd is Debian 13 with what the quick start needs beside our packages:
// the NETCONF server of the device and the station's ncclient.
const withNetconfd = "trixie-netconfd"

// noTree is the file of the workshop that says why there is no such tree.
const noTree = "no-tree"

// buildTree makes it, if it is not cached yet, with the apt of the tree that it
// is made of: it needs the network, which the stories have not.
func buildTree() error {
	from, dir := filepath.Join(trees(), "trixie"), filepath.Join(trees(), withNetconfd)
	if _, err := os.Stat(dir + "/usr/sbin/netconfd"); err == nil {
		return nil
	}
	if _, err := os.Stat(from + "/usr/sbin/sshd"); err != nil {
		return fmt.Errorf("no Debian trixie tree in %s; make integration makes it", trees())
	}
	// Two runs at once, or one that was ended, must not leave half a tree under
	// the name.
	half, err := os.MkdirTemp(trees(), withNetconfd+".new-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(half)
	cmd := exec.Command("timeout", "-k", "5", "300", "sh", "-ec", `
		mount --make-rprivate /
		cp -a "$1/." "$2"
		mount -t proc proc "$2/proc"
		mount --rbind /dev "$2/dev"
		cp "$2/etc/resolv.conf" "$2/run/resolv.conf" 2>/dev/null || :
		cat /etc/resolv.conf > "$2/etc/resolv.conf"
		chroot "$2" sh -ec 'apt-get -q update; apt-get -q -y --no-install-recommends install netconfd python3-ncclient; apt-get clean; rm -rf /var/lib/apt/lists/*'
		if [ -e "$2/run/resolv.conf" ]; then cat "$2/run/resolv.conf" > "$2/etc/resolv.conf"; rm "$2/run/resolv.conf"; fi`, "sh", from, half)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C", "PATH=/usr/sbin:/usr/bin:/sbin:/bin")
	cmd.SysProcAttr = &unix.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	if out, err := cmd.CombinedOutput(); err != nil {
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		return fmt.Errorf("installing netconfd and ncclient in a Debian tree: %w: %s", err, lines[len(lines)-1])
	}
	err = os.Rename(half, dir)
	if _, there := os.Stat(dir + "/usr/sbin/netconfd"); there == nil {
		return nil // made by us, or meanwhile by another run
	}
	return err
}

// quickStart are the blocks of README's "Install and connect" and of
// docs/quickstart.md, in the order in which a user reads them.
type quickStart struct {
	stationInstall, device, daemon, adopt, console    string // README
	through, ssh, ncclient, purgeDevice, purgeStation string // docs/quickstart.md
}

func readQuickStart(t *testing.T) (q quickStart) {
	t.Helper()
	places := []*string{&q.stationInstall, &q.device, &q.daemon, &q.adopt, &q.console, &q.through, &q.ssh, &q.ncclient, &q.purgeDevice, &q.purgeStation}
	var found []string
	for _, name := range []string{"README.md", "docs/quickstart.md"} {
		text, err := os.ReadFile("../../" + name)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range markdown.Blocks(name, string(text)) {
			if b.Marker == "tested by: "+t.Name() {
				found = append(found, b.Text)
			}
		}
	}
	if len(found) != len(places) {
		t.Fatalf("the documents have %d blocks for %s, which knows %d", len(found), t.Name(), len(places))
	}
	for i, place := range places {
		*place = found[i]
	}
	return q
}

// Messages of a NETCONF client.
const (
	hello     = `<hello xmlns="urn:ietf:params:xml:ns:netconf:base:1.0"><capabilities><capability>urn:ietf:params:netconf:base:1.0</capability></capabilities></hello>`
	getConfig = `<rpc xmlns="urn:ietf:params:xml:ns:netconf:base:1.0" message-id="%s"><get-config><source><running/></source></get-config></rpc>`
	bye       = `<rpc xmlns="urn:ietf:params:xml:ns:netconf:base:1.0" message-id="bye"><close-session/></rpc>`
)

// ask wants the running configuration through the session.
func (k *talk) ask(t *testing.T, id string) {
	t.Helper()
	before := len(k.said())
	k.say(t, fmt.Sprintf(getConfig, id))
	k.await(t, `message-id="`+id+`"`)
	await(t, 10*time.Second, "the answer is whole", func() error {
		if answer := k.said()[before:]; !strings.Contains(answer, "<data") || !strings.Contains(answer, "]]>]]>") {
			return fmt.Errorf("it is %q", answer)
		}
		return nil
	})
}

// notOurs is what systemd, apt, the operator and this test write, and nothing else.
var notOurs = []string{"/etc/.updated", "/var/.updated", "/var/lib/systemd/timers", "/var/lib/apt/", "/root/", "/etc/hosts:", "/story"}

// The documents' first day to the letter and in their order, on two machines with
// systemd and a wire between them: the packages installed, the calls taken by
// callhome-nms, by stock ssh and by ncclient, each shown the configuration; a session
// that outlives the upgrade and the removal; and nothing left of the packages.
func TestQuickStart(t *testing.T) {
	if why, err := os.ReadFile(workshop(noTree)); err == nil {
		skips.Story(t, string(why))
	}
	q := readQuickStart(t)
	device, station := boot(t, "device", withNetconfd), boot(t, "station", withNetconfd)
	link(t, device, station, "192.0.2.1/24", "192.0.2.2/24")
	put := func(m *machine, name, from string) {
		t.Helper()
		m.file(t, "/root/"+name, from)
	}
	version := func(dir, name string) string { return theOne(t, workshop(dir, name+"_*.deb")) }
	put(device, "callhome_1.deb", version(dirFormerly, "callhome"))
	put(station, "callhome-nms_1.deb", version(dirFormerly, "callhome-nms"))
	device.run(t, "echo '192.0.2.2 nms.example.net' >> /etc/hosts")

	station.run(t, q.stationInstall)
	put(device, "nms.pub", station.root+"/root/nms.pub")
	said := device.run(t, q.device)
	expect(t, "the device", said, "callhome-mgr "+formerly, "nms.example.net")
	put(station, "edge7.pub", device.root+"/root/edge7.pub")

	// ncclient cannot listen on a port that was in use in the last minute, which is not
	// waited for.
	say(t, "nsenter", "--target", fmt.Sprint(station.pid), "--net", "sh", "-c", "echo 0 > /proc/sys/net/ipv4/tcp_max_tw_buckets")
	station.run(t, q.daemon)
	await(t, 40*time.Second, "the device is adopted", func() error {
		out, err := station.try(q.adopt)
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	await(t, 20*time.Second, "the console shows the configuration", func() error {
		out, err := station.try(q.console)
		if err == nil && !strings.Contains(out, "<data") {
			err = os.ErrInvalid
		}
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})

	through := station.talk(t, q.through)
	through.await(t, "]]>]]>")
	through.say(t, hello)
	time.Sleep(time.Second) // netconfd forgets a request that follows its hello too closely
	through.ask(t, "through")
	sshd := station.run(t, `ps -o uid=,args= -C sshd,sshd-session`)
	if strings.Contains(sshd, " 0 ") || !strings.Contains(sshd, "edge7") {
		t.Errorf("the operator's sshd is\n%s", sshd)
	}
	through.say(t, bye)
	through.await(t, `message-id="bye"`)
	<-through.end

	ssh := station.talk(t, q.ssh)
	ssh.await(t, "]]>]]>")
	ssh.say(t, hello)
	time.Sleep(time.Second) // netconfd forgets a request that follows its hello too closely
	ssh.ask(t, "before")
	sessions := func() string {
		return device.run(t, `callhome-mgr sessions --json | grep -o '"session":[0-9]*\|"pid":[0-9]*'`)
	}
	before := sessions()

	put(device, "callhome_2.deb", version(dirNow, "callhome"))
	device.run(t, "rm callhome_1.deb; apt install ./callhome_*.deb")
	expect(t, "callhome-mgr status", device.run(t, "callhome-mgr status"), "callhome-mgr "+now)
	if after := sessions(); after != before {
		t.Errorf("the sessions were %s before the upgrade, and are %s", before, after)
	}
	ssh.ask(t, "upgraded")
	ssh.say(t, bye)
	ssh.await(t, `message-id="bye"`)
	<-ssh.end

	await(t, time.Minute, "ncclient shows the configuration", func() error {
		out, err := station.try(q.ncclient) // it waits ten seconds for a call
		if err == nil && !strings.Contains(out, "<data") {
			err = os.ErrInvalid
		}
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})

	device.run(t, q.purgeDevice)
	station.run(t, q.purgeStation)
	const ours = "find /etc /usr /var/lib /run /root -name '*callhome*' -not -path '/var/lib/dpkg/*' -not -path '/root/*.deb'"
	device.run(t, "userdel -rf netconf 2> /dev/null")
	for _, m := range []*machine{device, station} {
		if left := m.run(t, ours); left != "" {
			t.Errorf("left on the %s:\n%s", m.name, left)
		}
		for _, change := range m.changes(t) {
			if !slices.ContainsFunc(notOurs, func(prefix string) bool { return strings.HasPrefix(change, prefix) }) {
				t.Errorf("changed on the %s: %s", m.name, change)
			}
		}
	}
}
