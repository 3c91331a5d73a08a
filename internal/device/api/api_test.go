package api

import (
	"context"
	"go/ast"
	"go/parser"
	"go/token"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"callhome/internal/proto"
	"callhome/internal/rpc"

	"github.com/hashicorp/go-hclog"
)

// backend records which of its functions was called last.
type backend struct {
	Backend
	called atomic.Value // its name
}

func (b *backend) Call(_ context.Context, p proto.CallParams) (proto.SessionInfo, error) {
	b.called.Store("Call")
	return proto.SessionInfo{Session: 1, Host: p.Host, Opaque: p.Opaque}, nil
}

func (b *backend) Handover(_ context.Context, p proto.HandoverParams, f *os.File) (proto.SessionInfo, error) {
	b.called.Store("Handover")
	return proto.SessionInfo{Session: 2, Host: p.Host}, f.Close()
}

func (b *backend) Kill(id int, peer string) (proto.SessionInfo, error) {
	b.called.Store("Kill")
	return proto.SessionInfo{Session: id, Cause: peer}, nil
}

func (b *backend) Sessions() []proto.SessionInfo {
	b.called.Store("Sessions")
	return []proto.SessionInfo{{Session: 7}}
}

func (b *backend) Status() proto.Status             { b.called.Store("Status"); return proto.Status{PID: 5} }
func (b *backend) AwaitStart(context.Context) error { return nil }
func (b *backend) Restart(client string) ([]string, error) {
	b.called.Store("Restart " + client)
	return []string{client}, nil
}
func (b *backend) Reload() error { b.called.Store("Reload"); return nil }
func (b *backend) Reopen() error { b.called.Store("Reopen"); return nil }
func (b *backend) Shutdown()     { b.called.Store("Shutdown") }
func (b *backend) SubscribeSince() ([]proto.Event, <-chan proto.Event, func()) {
	b.called.Store("SubscribeSince")
	return []proto.Event{{Event: "before"}}, make(chan proto.Event), func() {}
}

// methodNames returns the values of package proto's Method constants.
func methodNames(t *testing.T) (names []string) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "../../proto/proto.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(f, func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok && strings.HasPrefix(spec.Names[0].Name, "Method") {
			name, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, name)
		}
		return true
	})
	return names
}

func TestTheTableHasEveryMethod(t *testing.T) {
	want := methodNames(t)
	if len(want) < 10 {
		t.Fatalf("found only %q", want)
	}
	table := methods(&backend{}, &rpc.Conn{Context: t.Context()})
	for _, name := range want {
		if m, ok := table[name]; !ok || m.Handle == nil {
			t.Errorf("%s is not served", name)
		} else if m.Reading != proto.ReadOnly(name) {
			t.Errorf("%s: the table and package proto disagree on whether it only reads", name)
		}
	}
	for name := range table {
		if !slices.Contains(want, name) {
			t.Errorf("%s is served and no constant of package proto", name)
		}
	}
}

// A request for each method calls the right function of the Backend.
func TestMethodsCallTheBackend(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	b := &backend{}
	done := make(chan error)
	go func() {
		done <- NewServer(b, rpc.Access{Full: []uint32{uint32(os.Getgid())}}, hclog.NewNullLogger()).Serve(l)
	}()
	defer func() {
		l.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	c, err := Dial(path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, tt := range []struct {
		method string
		params any
		calls  string
	}{
		{proto.MethodCallHome, proto.CallParams{Host: "nms"}, "Call"},
		{proto.MethodCallHomeOpaque, proto.CallParams{Host: "nms", Opaque: "x"}, "Call"},
		{proto.MethodUserSessions, nil, "Sessions"},
		{proto.MethodKillUserSession, proto.SessionParams{Session: 3}, "Kill"},
		{proto.MethodReloadConfig, nil, "Reload"},
		{proto.MethodRestartCallHome, proto.RestartParams{Client: "nms"}, "Restart nms"},
		{proto.MethodRestartCallHome, nil, "Restart "},
		{proto.MethodReopenLogs, nil, "Reopen"},
		{proto.MethodWaitStart, nil, "Status"},
		{proto.MethodStatus, nil, "Status"},
		{proto.MethodSubscribe, nil, "SubscribeSince"},
		{proto.MethodHandover, proto.HandoverParams{Host: "nms"}, "Handover"},
		{proto.MethodAdopt, proto.HandoverParams{Host: "nms"}, "Handover"}, // its former name
		{proto.MethodStop, nil, "Shutdown"},
	} {
		b.called.Store("")
		if tt.calls == "Handover" {
			null, err := os.Open(os.DevNull)
			if err != nil {
				t.Fatal(err)
			}
			c.Pass(null)
		}
		if err := c.Call(t.Context(), tt.method, tt.params, nil); err != nil {
			t.Errorf("%s: %v", tt.method, err)
		}
		if b.called.Load() != tt.calls {
			t.Errorf("%s called %q, want %q", tt.method, b.called.Load(), tt.calls)
		}
	}
	if err := c.Call(t.Context(), proto.MethodHandover, proto.HandoverParams{Host: "nms"}, nil); err == nil || !strings.Contains(err.Error(), "no descriptor") {
		t.Errorf("handover without a socket: %v", err)
	}
}
