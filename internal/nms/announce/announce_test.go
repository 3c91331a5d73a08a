package announce

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

const patience = time.Minute

// call returns both ends of a connection, the accepted one first.
func call(t *testing.T) (*net.TCPConn, net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	theirs, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	ours, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	return ours.(*net.TCPConn), theirs
}

// ID leaves all bytes in the socket, also when they come in pieces.
func TestIDLeavesTheBytes(t *testing.T) {
	const line = "DEVICE-ID: edge7\r\nSSH-2.0-OpenSSH_9.2p1 Debian-2\r\n"
	ours, theirs := call(t)
	go func() {
		for _, part := range []string{line[:5], line[5:25], line[25:]} {
			_, _ = io.WriteString(theirs, part)
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if id, err := ID(ctx, ours); id != "edge7" || err != nil {
		t.Fatalf("%q, %v", id, err)
	}
	got := make([]byte, len(line))
	if _, err := io.ReadFull(ours, got); err != nil || string(got) != line {
		t.Errorf("%q, %v", got, err)
	}
}

func TestIDNeedsAVersionString(t *testing.T) {
	for name, row := range map[string]struct{ sent, want string }{
		"closes":           {"SSH-2.0", "it closed the connection"},
		"sends nothing":    {"", "it closed the connection"},
		"sends no version": {strings.Repeat("x\n", most), "no SSH version string"},
	} {
		t.Run(name, func(t *testing.T) {
			ours, theirs := call(t)
			go func() { _, _ = io.WriteString(theirs, row.sent); theirs.Close() }()
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			if id, err := ID(ctx, ours); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("%q, %v", id, err)
			}
		})
	}
	ours, _ := call(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := ID(ctx, ours); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with a silent device: %v", err)
	}
}

func TestTheIDIsInTheVersionOrInALineBeforeIt(t *testing.T) {
	for _, row := range []struct {
		text, id string
		whole    bool
	}{
		{"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u10 edge7\r\n", "edge7", true},
		{"SSH-2.0-dropbear\n", "", true},
		{"SSH-2.0-OpenSSH_9.2p1 edge7", "", false},
		{"MSG-ID: DEVICE-CONN-INFO\r\nDEVICE-ID: edge7\r\nSSH-2.0-x Debian\r\n", "edge7", true},
		{"DEVICE-ID: edge7\r\nDEVICE-ID: edge8\r\nSSH-2.0-x\r\nDEVICE-ID: edge9\r\n", "edge7", true},
		{"DEVICE-ID: edge7\r\nHOST-KEY: ssh-rsa " + strings.Repeat("A", 9000) + "\r\nHMAC: 01\r\nSSH-2.0-x\r\n", "edge7", true},
		{"DEVICE-ID: edge7\r\n", "", false},
		{"", "", false},
	} {
		if id, whole := parse(row.text); id != row.id || whole != row.whole {
			t.Errorf("%q: %q, %v", row.text, id, whole)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("DEVICE-ID: edge7\r\nSSH-2.0-x y\r\n")
	f.Fuzz(func(t *testing.T, text string) {
		if id, whole := parse(text); strings.ContainsAny(id, "\n") || !whole && id != "" {
			t.Errorf("%q: %q, %v", text, id, whole)
		}
	})
}
