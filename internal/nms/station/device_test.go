package station

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"callhome/internal/nms/nmsproto"
	"callhome/internal/nms/registry"
	"callhome/internal/nms/sshtest"

	"golang.org/x/crypto/ssh"
)

// standIn is a device that is an SSH server in this process.
type standIn struct {
	host     ssh.Signer
	user     string
	password string
	// netconf is its subsystem, nil if it has none. It returns the exit status.
	netconf func(ssh.Channel) uint32
	mute    bool // it answers no request
	// loginTime is how long it takes to check the password.
	loginTime time.Duration
	loggedIn  func(ssh.Conn) // called after each login, unless nil
	rekey     uint64         // bytes after which it exchanges keys again; 0: the library's
}

// newStandIn returns a device whose subsystem sends back what it gets.
func newStandIn(t testing.TB) *standIn {
	return &standIn{host: sshtest.NewSigner(t), user: "netconf", password: "secret", netconf: sshtest.Echo}
}

// serve is the device's side of a connection; it returns at its end.
func (d *standIn) serve(conn net.Conn) {
	(&sshtest.Server{Config: serverConfig(d), Netconf: d.netconf, Mute: d.mute, LoggedIn: d.loggedIn}).Serve(conn)
}

func serverConfig(d *standIn) *ssh.ServerConfig {
	config := &ssh.ServerConfig{
		Config:        ssh.Config{RekeyThreshold: d.rekey},
		ServerVersion: "SSH-2.0-StandIn",
		PasswordCallback: func(c ssh.ConnMetadata, p []byte) (*ssh.Permissions, error) {
			time.Sleep(d.loginTime)
			if c.User() != d.user || string(p) != d.password {
				return nil, errors.New("wrong")
			}
			return nil, nil
		},
	}
	config.AddHostKey(d.host)
	return config
}

// site is a station with a registry of its own.
type site struct {
	t testing.TB
	*Station
	dir    string
	events <-chan nmsproto.Event
}

// newSite starts a station whose default login is the stand-ins'.
func newSite(t testing.TB, change func(*Config)) *site {
	t.Helper()
	dir := t.TempDir()
	password := filepath.Join(dir, "password")
	if err := os.WriteFile(password, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, _, err := registry.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	c := Defaults()
	c.Registry, c.Credential = r, Credential{User: "netconf", PasswordFile: password}
	if change != nil {
		change(&c)
	}
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	_, events, cancel := s.Subscribe()
	t.Cleanup(cancel)
	t.Cleanup(s.stop)
	return &site{t, s, dir, events}
}

// know writes an entry with that device's key and further members.
func (s *site) know(id string, d *standIn, more string) {
	s.t.Helper()
	s.write(id, fmt.Sprintf(`{"id": %q, "host-keys": [%q]%s}`, id, sshtest.Line(d.host.PublicKey()), more))
}

func (s *site) write(id, text string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, id+".json"), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.reload()
	if p := s.config.Registry.Problems(); len(p) > 0 {
		s.t.Fatal(p)
	}
}

// reload brings files in force that the test has changed.
func (s *site) reload() {
	s.t.Helper()
	c, err := s.config.Registry.Reload()
	if err != nil {
		s.t.Fatal(err)
	}
	s.RegistryRead(c, err)
}

// from is a connection whose remote address is a given one.
type from struct {
	net.Conn
	address string
}

func (f from) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(mustAddr(f.address)) }

// call is a call home of a device from an address; it returns the device's end.
func (s *site) call(address string, serve func(net.Conn)) net.Conn {
	station, device := sshtest.Pipe()
	go serve(device)
	s.t.Cleanup(func() { device.Close() })
	s.Take(context.Background(), from{station, address})
	return device
}

// await waits for an event and returns it.
func (s *site) await(name string) nmsproto.Event {
	s.t.Helper()
	timeout := time.After(time.Minute)
	for {
		select {
		case e, ok := <-s.events:
			if !ok {
				s.t.Fatalf("the station stopped instead of %s", name)
			}
			if e.Event == name {
				return e
			}
			s.t.Logf("passed over: %+v", e)
		case <-timeout:
			s.t.Fatalf("no event %s", name)
		}
	}
}
