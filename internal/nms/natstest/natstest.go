// Package natstest runs real NATS servers with JetStream in the process of a test. Tests
// of packages buckets, mirror and cluster use it. No program imports it.
package natstest

import (
	"fmt"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	"callhome/internal/porttest"

	"github.com/nats-io/nats-server/v2/server"
)

// Servers are one server, or a cluster of several.
type Servers struct {
	t       testing.TB
	options []*server.Options
	running []*server.Server
}

// Start starts n servers, which end with the test.
func Start(t testing.TB, n int) *Servers {
	t.Helper()
	return StartWith(t, n, func(*server.Options) {})
}

// StartWith starts n servers with other options.
func StartWith(t testing.TB, n int, change func(*server.Options)) *Servers {
	t.Helper()
	s := &Servers{t: t, running: make([]*server.Server, n)}
	var routes []*url.URL
	dir := t.TempDir()
	for i := range n {
		o := &server.Options{
			Host: "127.0.0.1", Port: reserve(t), ServerName: fmt.Sprint("nats-", i), JetStream: true, StoreDir: filepath.Join(dir, fmt.Sprint(i)), NoLog: true, NoSigs: true,
			JetStreamMaxStore: 16 << 30, // streams reserve space, whatever the disk of a test has
		}
		if n > 1 {
			// A client knows the servers that it was given, and no other.
			o.Cluster = server.ClusterOpts{Name: "test", Host: "127.0.0.1", Port: reserve(t), NoAdvertise: true}
			routes = append(routes, &url.URL{Scheme: "nats", Host: fmt.Sprintf("127.0.0.1:%d", o.Cluster.Port)})
		}
		change(o)
		s.options = append(s.options, o)
	}
	for i, o := range s.options {
		o.Routes = routes
		s.Start(i)
	}
	t.Cleanup(func() {
		for i := range n {
			s.Stop(i)
		}
	})
	s.AwaitLeader()
	return s
}

// reserve returns a port that a server has whenever it is started.
func reserve(t testing.TB) int { return int(porttest.Reserve(t, "127.0.0.1").Port()) }

func portText(port int) string { return fmt.Sprint(port) }

// Start starts a server that was stopped.
func (s *Servers) Start(i int) {
	s.t.Helper()
	o := *s.options[i]
	srv, err := server.NewServer(&o)
	if err != nil {
		s.t.Fatal(err)
	}
	srv.Start()
	if !srv.ReadyForConnections(time.Minute) {
		s.t.Fatal("a NATS server does not start")
	}
	s.running[i] = srv
}

// Stop stops a server.
func (s *Servers) Stop(i int) {
	if s.running[i] != nil {
		s.running[i].Shutdown()
		s.running[i].WaitForShutdown()
		s.running[i] = nil
	}
}

// AwaitLeader waits until JetStream can be used.
func (s *Servers) AwaitLeader() {
	s.t.Helper()
	if len(s.running) == 1 {
		return
	}
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		for _, r := range s.running {
			if r != nil && r.JetStreamIsLeader() && len(r.JetStreamClusterPeers()) == len(s.running) {
				return
			}
		}
	}
	s.t.Fatal("the NATS servers elect no leader")
}

// URLs are the servers' addresses.
func (s *Servers) URLs() (urls []string) {
	for _, o := range s.options {
		urls = append(urls, fmt.Sprintf("nats://127.0.0.1:%d", o.Port))
	}
	return urls
}
