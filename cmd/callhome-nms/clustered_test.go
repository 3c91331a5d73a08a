package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"callhome/internal/sysexits"

	"github.com/hashicorp/go-hclog"
)

// TestAStationWarnsBeforeItsCertificateExpires: daily in the last 30 days, and after that.
func TestAStationWarnsBeforeItsCertificateExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex // of the logger, which writes to out
		var out bytes.Buffer
		var expires atomic.Pointer[time.Time]
		in := func(d time.Duration) { at := time.Now().Add(d); expires.Store(&at) }
		in(31*24*time.Hour + time.Minute)
		ctx, cancel := context.WithCancel(t.Context())
		go watchExpiry(ctx, func() time.Time { return *expires.Load() }, hclog.New(&hclog.LoggerOptions{Output: &out, Mutex: &mu}))
		said := func(soon, expired int) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if s, e := strings.Count(out.String(), "expires soon"), strings.Count(out.String(), "has expired"); s != soon || e != expired {
				t.Errorf("%d warnings and %d errors, want %d and %d:\n%s", s, e, soon, expired, out.String())
			}
		}
		said(0, 0)
		time.Sleep(3 * 24 * time.Hour)
		said(2, 0)
		time.Sleep(29 * 24 * time.Hour)
		said(30, 1)
		in(365 * 24 * time.Hour) // it was renewed
		time.Sleep(5 * 24 * time.Hour)
		said(30, 1)
		cancel()
	})
}

// TestAWrongClusterStartsNothing: an empty --cluster, as of a unit's variable that is not
// set, must not make a station that is alone.
func TestAWrongClusterStartsNothing(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	ca := filepath.Join(dir, "ca")
	if code, out := clusterOutput(t, "--directory", ca, "a"); code != sysexits.OK {
		t.Fatalf("cluster init: %d\n%s", code, out)
	}
	alone := []string{"serve", "--registry", dir, "--device-sockets", "", "--listen", "127.0.0.1:0"}
	serve := slices.Concat(alone, []string{"--peer-listen", "127.0.0.1:0", "--peer-directory", filepath.Join(ca, "a")})
	unreadable := t.TempDir()
	if err := os.Mkdir(filepath.Join(unreadable, ".cluster"), 0o700); err != nil {
		t.Fatal(err)
	}
	buckets := []string{"cluster", "buckets"}
	missing := filepath.Join(dir, "missing")
	for _, tt := range []struct {
		command []string
		options []string
		code    int
		want    string
	}{
		{serve, []string{"--cluster", ""}, sysexits.Usage, "--cluster: expected nats://HOST"},
		{serve, []string{"--cluster", "nats://a,"}, sysexits.Usage, "--cluster: expected nats://HOST"},
		{serve, []string{"--cluster", "nats://a", "--station", "a.b"}, sysexits.Usage, `--station: station "a.b": expected`},
		{serve, []string{"--cluster", "nats://a", "--station", "a", "--peer-address", "host"}, sysexits.Usage, `--peer-address "host": expected HOST:PORT`},
		{serve, []string{"--cluster", "nats://a", "--station", "a", "--peer-address", "host:99999"}, sysexits.Usage, `--peer-address "host:99999": expected HOST:PORT`},
		{serve, []string{"--cluster", "nats://a", "--station", "a", "--cluster-credentials", missing}, sysexits.NoInput, "no such file"},
		{serve, []string{"--cluster", "nats://a", "--station", "a", "--cluster-ca", file}, sysexits.Config, "failed to parse root certificate"},
		{serve, []string{"--cluster", "nats://a", "--station", "a", "--registry", unreadable}, sysexits.NoInput, "reading which files of the registry are copies"},
		{alone, []string{"--station", "a"}, sysexits.Usage, "--station: expected --cluster too"},
		{alone, []string{"--peer-listen", ":0"}, sysexits.Usage, "--peer-listen: expected --cluster too"},
		{alone, []string{"--peer-address", "a:1"}, sysexits.Usage, "--peer-address: expected --cluster too"},
		{alone, []string{"--peer-directory", dir}, sysexits.Usage, "--peer-directory: expected --cluster too"},
		{alone, []string{"--cluster-credentials", file}, sysexits.Usage, "--cluster-credentials: expected --cluster too"},
		{alone, []string{"--cluster-ca", file}, sysexits.Usage, "--cluster-ca: expected --cluster too"},
		{alone, []string{"--cluster-cert", file}, sysexits.Usage, "--cluster-cert: expected --cluster too"},
		{alone, []string{"--cluster-key", file}, sysexits.Usage, "--cluster-key: expected --cluster too"},
		{buckets, []string{"--cluster", "nats://a", "--cluster-cert", file, "--cluster-key", file}, sysexits.Config, "loading client certificate"},
		{buckets, []string{"--cluster", "http://a"}, sysexits.Usage, "--cluster: expected nats://HOST"},
		{buckets, []string{"--cluster", "nats://a:x:y"}, sysexits.Usage, "--cluster: expected nats://HOST"},
		{buckets, []string{"--cluster", "nats://a", "--replicas", "6"}, sysexits.Usage, "1 to 5 --replicas"},
		{buckets, []string{"--cluster", "nats://a", "--cluster-cert", file}, sysexits.Usage, "expected both or none"},
		{buckets, []string{"--cluster", "nats://a", "--cluster-key", file}, sysexits.Usage, "expected both or none"},
		{buckets, []string{"--cluster", "nats://a", "--cluster-ca", missing}, sysexits.NoInput, "no such file"},
	} {
		t.Setenv("CALLHOME_NMS_SOCKET", filepath.Join(t.TempDir(), "s")) // locked until the process ends
		if code, stderr := command(t, nil, slices.Concat(tt.command, tt.options)...); code != tt.code || !strings.Contains(stderr, tt.want) {
			t.Errorf("%v: status %d, want %d\n%swant %q", tt.options, code, tt.code, stderr, tt.want)
		}
	}
}
