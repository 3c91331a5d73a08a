package main

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"callhome/internal/ratelimit"
	"callhome/internal/sysexits"

	"github.com/hashicorp/go-hclog"
)

func TestWebRefusesOptionsThatDoNotFit(t *testing.T) {
	for args, want := range map[string]string{
		"--listen 0.0.0.0:80":        "is not a loopback address",
		"--listen [::]":              "is not a loopback address",
		"--listen localhost:80":      "expected a loopback address",
		"--listen unix:web":          "an absolute path",
		"--listen unix:/web":         "needs --url or --trust-user-header",
		"--trust-user-header X-User": "needs --listen unix:PATH",
		"--listen 127.0.0.1:8334 --trust-user-header X-User": "needs --listen unix:PATH",
		"--listen unix:/web --trust-user-header X:User":      "expected the name of a header",
		"--operator ann":                                          "needs --trust-user-header",
		"--proxy-user www-data":                                   "needs --listen unix:PATH",
		"--url nms.example":                                       "expected https://NAME/",
		"--url https://nms.example/path":                          "without a path",
		"--url https://ann:x@nms.example/":                        "expected https://NAME/",
		"--url javascript://nms.example/":                         "expected https://NAME/",
		"--link-time 0s":                                          "above 0",
		"--listen unix:/web --trust-user-header X --url ftp://x/": "expected https://NAME/",
	} {
		err := program.Run(t.Context(), newApp(), slices.Concat([]string{"callhome-nms", "web"}, strings.Fields(strings.Replace(args, "unix:web", "unix:web --url http://x/", 1))))
		if err == nil || !strings.Contains(err.Error(), want) || sysexits.Code(err) != sysexits.Usage {
			t.Errorf("%s: %v", args, err)
		}
	}
}

func TestTheAddressOfThePage(t *testing.T) {
	for text, want := range map[string]string{"127.0.0.1": "127.0.0.1:0", "127.3.2.1:8334": "127.3.2.1:8334", "[::1]:80": "[::1]:80", "::1": "[::1]:0"} {
		if got, err := webAddress(text); err != nil || got.String() != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	seen := make(map[string]bool)
	for range 20 {
		at, err := webAddress("")
		if err != nil || !at.Addr().IsLoopback() || at.Port() != 0 {
			t.Fatalf("%v, %v", at, err)
		}
		seen[at.String()] = true
	}
	if len(seen) < 15 {
		t.Errorf("20 addresses by chance are %v", seen)
	}
}

// The header of a proxy is trusted, so no other user may connect.
func TestOnlyTheProxyIsServed(t *testing.T) {
	for name, served := range map[string]bool{"the proxy": true, "another user": false} {
		t.Run(name, func(t *testing.T) {
			uid := uint32(os.Geteuid())
			if !served {
				uid++
			}
			path := filepath.Join(t.TempDir(), "web")
			inner, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
			if err != nil {
				t.Fatal(err)
			}
			l := &proxyListener{inner, []uint32{uid}, ratelimit.NewWarnings(hclog.NewNullLogger())}
			accepted := make(chan error, 1)
			go func() {
				c, err := l.Accept()
				if err == nil {
					_, err = c.Write([]byte("x"))
					c.Close()
				}
				accepted <- err
			}()
			c, err := (&net.Dialer{}).DialContext(context.Background(), "unix", path)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if text, err := io.ReadAll(c); err != nil || (string(text) == "x") != served {
				t.Errorf("read %q, %v", text, err)
			}
			l.Close()
			if err := <-accepted; served != (err == nil) || !served && !errors.Is(err, net.ErrClosed) {
				t.Errorf("accepting ended with %v", err)
			}
		})
	}
}
