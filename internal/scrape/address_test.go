package scrape

import (
	"strings"
	"testing"
)

func TestParseAddress(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want Address
		err  string // a part of it
	}{
		{in: "127.0.0.1:9434", want: Address{"tcp", "127.0.0.1:9434"}},
		{in: "127.8.9.1:1", want: Address{"tcp", "127.8.9.1:1"}},
		{in: "[::1]:9434", want: Address{"tcp", "[::1]:9434"}},
		{in: "unix:/run/callhome/metrics.sock", want: Address{"unix", "/run/callhome/metrics.sock"}},
		{in: "unix:/" + strings.Repeat("x", 106), want: Address{"unix", "/" + strings.Repeat("x", 106)}},

		{in: "0.0.0.0:9434", err: "not a loopback address"},
		{in: "[::]:9434", err: "not a loopback address"},
		{in: "192.0.2.1:9434", err: "not a loopback address"},
		{in: "[::ffff:192.0.2.1]:9434", err: "not a loopback address"},
		{in: "[2001:db8::1]:9434", err: "not a loopback address"},
		{in: "[fe80::1%lo]:9434", err: "not a loopback address"},
		// A name may stand for another address tomorrow.
		{in: "localhost:9434", err: "expected a loopback address and port"},
		{in: ":9434", err: "expected a loopback address and port"},
		{in: "9434", err: "expected a loopback address and port"},
		{in: "127.0.0.1", err: "expected a loopback address and port"},
		{in: "127.0.0.1:http", err: "expected a loopback address and port"},
		{in: "127.0.0.1:65536", err: "expected a loopback address and port"},
		{in: "127.0.0.1:0", err: "from 1 to 65535"},
		{in: "", err: "expected a loopback address and port"},
		{in: "unix:", err: "absolute path"},
		{in: "unix:metrics.sock", err: "absolute path"},
		{in: "unix:@metrics", err: "absolute path"},
		{in: "unix:/run/../metrics", err: "absolute path"},
		{in: "unix:/" + strings.Repeat("x", 107), err: "108 bytes"},
	} {
		got, err := ParseAddress(tt.in)
		switch {
		case tt.err == "" && (err != nil || got != tt.want):
			t.Errorf("%q: got %v, %v, want %v", tt.in, got, err, tt.want)
		case tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)):
			t.Errorf("%q: got %v, %v, want an error with %q", tt.in, got, err, tt.err)
		}
	}
}
