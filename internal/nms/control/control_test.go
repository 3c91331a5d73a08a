package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"callhome/internal/nms/nmsproto"
	"callhome/internal/nms/station"
	"callhome/internal/proto"
	"callhome/internal/rpc"

	"github.com/hashicorp/go-hclog"
)

// backend sends back each session's bytes in capitals.
type backend struct {
	cancelled chan struct{} // gets one for each session that its peer left
	ending    chan struct{} // "stays" sessions last until it is closed
}

func (*backend) List() nmsproto.DeviceList {
	return nmsproto.DeviceList{Devices: []nmsproto.Device{{ID: "edge7"}}}
}

// Adopt returns in Address who adopted.
func (*backend) Adopt(p nmsproto.AdoptParams, byRoot bool) (nmsproto.Adopted, error) {
	return nmsproto.Adopted{Device: nmsproto.Device{ID: p.ID, Address: fmt.Sprint("root: ", byRoot)}}, nil
}

func (*backend) Remove(p nmsproto.RemoveParams) error { return missing(p.Device) }

func (*backend) Unrevoke(p nmsproto.UnrevokeParams) (nmsproto.Unrevoked, error) {
	return nmsproto.Unrevoked{HostKey: p.Key}, nil
}

func (*backend) Revoke(p nmsproto.RevokeParams) (nmsproto.Revoked, error) {
	return nmsproto.Revoked{HostKeys: []string{p.Key}}, nil
}

func (*backend) Forget(p nmsproto.ForgetParams) error { return missing(p.HostKey) }

func (*backend) Import(p nmsproto.ImportParams, root bool) (nmsproto.Imported, error) {
	return nmsproto.Imported{Added: len(p.Entries)}, nil
}

func (*backend) Export(p nmsproto.ExportParams) (nmsproto.Exported, error) {
	return nmsproto.Exported{Entries: []nmsproto.EntryText{{ID: p.After}}}, nil
}

func missing(what string) error {
	if what == "none" {
		return proto.NewError(proto.CodeNoExists, "there is none")
	}
	return nil
}

func (b *backend) Connect(ctx context.Context, device string, sock station.Duplex) (nmsproto.ConnectResult, error) {
	defer sock.Close()
	status := 3
	switch device {
	case "edge7":
	case "waits":
		_, _ = sock.Write([]byte("x"))
		<-ctx.Done()
		b.cancelled <- struct{}{}
		return nmsproto.ConnectResult{}, ctx.Err()
	case "stays":
		_, _ = sock.Write([]byte("x"))
		<-b.ending
		return nmsproto.ConnectResult{}, nil
	case "talks":
		for {
			if _, err := sock.Write(make([]byte, 1<<10)); err != nil {
				return nmsproto.ConnectResult{}, err
			}
		}
	default:
		return nmsproto.ConnectResult{}, proto.NewError(proto.CodeNoExists, "there is no device "+device)
	}
	text, err := io.ReadAll(sock)
	if err != nil {
		return nmsproto.ConnectResult{}, err
	}
	_, err = sock.Write(bytes.ToUpper(text))
	return nmsproto.ConnectResult{ExitStatus: &status, Stderr: "bye", Received: uint64(len(text))}, err
}

func (*backend) Subscribe() ([]nmsproto.Event, <-chan nmsproto.Event, func()) {
	c := make(chan nmsproto.Event, 1)
	c <- nmsproto.Event{Event: "now"}
	return []nmsproto.Event{{Event: "before"}}, c, func() {}
}

func (*backend) DetailFor(_ context.Context, device string) (nmsproto.DeviceDetail, error) {
	return nmsproto.DeviceDetail{Device: nmsproto.Device{ID: device}}, nil
}

func (*backend) History() nmsproto.History {
	return nmsproto.History{Minutes: make([]nmsproto.Count, 1)}
}
func (*backend) SubscribeAfter(sequence uint64) ([]nmsproto.Event, <-chan nmsproto.Event, func()) {
	return []nmsproto.Event{{Event: "after", Sequence: sequence}}, make(chan nmsproto.Event), func() {}
}

func (*backend) Status() nmsproto.Status { return nmsproto.Status{PID: 5} }
func (*backend) Reload() error           { return nil }

func (*backend) Drain(p nmsproto.DrainParams) (nmsproto.Drain, error) {
	return nmsproto.Drain{DrainParams: p, Left: 2}, nil
}

func serve(t *testing.T, b *backend) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		done <- NewServer(b, rpc.Access{Full: []uint32{uint32(os.Getgid())}}, hclog.NewNullLogger()).Serve(l)
	}()
	t.Cleanup(func() {
		l.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return path
}

func TestASessionsBytesAndResultComeBack(t *testing.T) {
	s, err := Open(t.Context(), serve(t, &backend{}), "edge7")
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	// The input's end reaches the device, and the device's answer still comes back.
	r, err := s.Join(strings.NewReader("hello"), &out)
	if err != nil || out.String() != "HELLO" || r.ExitStatus == nil || *r.ExitStatus != 3 || r.Stderr != "bye" {
		t.Errorf("got %q, %+v, %v", out.String(), r, err)
	}
}

func TestASessionThatCannotBeOpenedIsAnError(t *testing.T) {
	path := serve(t, &backend{})
	s, err := Open(t.Context(), path, "edge8")
	if err != nil {
		t.Fatal(err)
	}
	// The input does not end, and the station does not read it.
	r, w := io.Pipe()
	go func() { _, _ = w.Write([]byte("hello")) }()
	never := io.Reader(r)
	var e *proto.Error
	if _, err := s.Join(never, io.Discard); !errors.As(err, &e) || e.Code != proto.CodeNoExists {
		t.Errorf("got %v", err)
	}
	if _, err := Open(t.Context(), path+"none", "edge7"); err == nil || !strings.Contains(err.Error(), "callhome-nms serve does not run") {
		t.Errorf("got %v", err)
	}
	c, err := Dial(path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Call(t.Context(), nmsproto.MethodConnect, nmsproto.ConnectParams{Device: "edge7"}, nil); err == nil || !strings.Contains(err.Error(), "has no socket with it") {
		t.Errorf("got %v", err)
	}
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	c.Pass(f)
	if err := c.Call(t.Context(), nmsproto.MethodConnect, nmsproto.ConnectParams{Device: "edge7"}, nil); err == nil || !strings.Contains(err.Error(), "is not a socket") {
		t.Errorf("got %v", err)
	}
}

// A peer that closes its connection, or is killed, ends its session at the station.
func TestAPeerThatLeavesEndsItsSession(t *testing.T) {
	b := &backend{cancelled: make(chan struct{}, 1)}
	s, err := Open(t.Context(), serve(t, b), "waits")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(s, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	select {
	case <-b.cancelled:
	case <-time.After(20 * time.Second):
		t.Fatal("the session goes on")
	}
	if _, err := s.Wait(); err == nil {
		t.Error("it ended without an error")
	}
}

// An interrupt ends a session at once: also if the station does not end it, or if the
// reader takes no bytes.
func TestAnInterruptedSessionEnds(t *testing.T) {
	for _, device := range []string{"stays", "talks"} {
		t.Run(device, func(t *testing.T) {
			b := &backend{ending: make(chan struct{})}
			path := serve(t, b)
			t.Cleanup(func() { close(b.ending) })
			ctx, cancel := context.WithCancel(t.Context())
			s, err := Open(ctx, path, device)
			if err != nil {
				t.Fatal(err)
			}
			in, _ := io.Pipe() // no input comes
			read, out := io.Pipe()
			done := make(chan error, 1)
			go func() {
				_, err := s.Join(in, out)
				done <- err
			}()
			if _, err := io.ReadFull(read, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			cancel()
			select {
			case err := <-done:
				if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "the session with "+device+" was interrupted") {
					t.Errorf("got %v", err)
				}
			case <-time.After(20 * time.Second):
				t.Fatal("it goes on")
			}
		})
	}
}

// A Read ends with the context too.
func TestAnInterruptedReadEnds(t *testing.T) {
	b := &backend{ending: make(chan struct{})}
	path := serve(t, b)
	t.Cleanup(func() { close(b.ending) })
	ctx, cancel := context.WithCancel(t.Context())
	s, err := Open(ctx, path, "stays")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(s, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	cancel()
	_ = s.SetReadDeadline(time.Now().Add(20 * time.Second))
	if n, err := s.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("got %d bytes, %v", n, err)
	}
	if _, err := s.Wait(); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// A reader that fails ends the session.
func TestAReaderThatIsGoneEndsTheSession(t *testing.T) {
	s, err := Open(t.Context(), serve(t, &backend{}), "edge7")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Join(strings.NewReader("hello"), broken{}); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("got %v", err)
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

// Only root may name files of secrets, so the station must know who adopts.
func TestTheStationKnowsWhetherRootAdopts(t *testing.T) {
	for uid, want := range map[uint32]string{0: "root: true", 5: "root: false"} {
		adopt := methods(&backend{}, &rpc.Conn{Context: t.Context(), Peer: rpc.Peer{UID: uid}})[nmsproto.MethodAdopt].Handle
		got, err := adopt(t.Context(), &rpc.Request{Method: nmsproto.MethodAdopt, Params: []byte(`{"id":"edge9","host-key":"SHA256:x"}`)})
		if device, ok := got.(nmsproto.Adopted); !ok || err != nil || device.Address != want {
			t.Errorf("user %d: %+v, %v, want %s", uid, got, err, want)
		}
	}
}

func TestEachMethodReachesTheBackend(t *testing.T) {
	c, err := Dial(serve(t, &backend{}))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var list nmsproto.DeviceList
	var status nmsproto.Status
	var device nmsproto.Device
	var last nmsproto.EventList
	var revoked nmsproto.Revoked
	var unrevoked nmsproto.Unrevoked
	var detail nmsproto.DeviceDetail
	var history nmsproto.History
	var drain nmsproto.Drain
	for method, call := range map[string]struct{ params, result any }{
		nmsproto.MethodDevices:   {nil, &list},
		nmsproto.MethodStatus:    {nil, &status},
		nmsproto.MethodAdopt:     {nmsproto.AdoptParams{ID: "edge9"}, &device},
		nmsproto.MethodRemove:    {nmsproto.RemoveParams{Device: "edge9"}, nil},
		nmsproto.MethodRevoke:    {nmsproto.RevokeParams{Key: "edge9"}, &revoked},
		nmsproto.MethodUnrevoke:  {nmsproto.UnrevokeParams{Key: "SHA256:x"}, &unrevoked},
		nmsproto.MethodForget:    {nmsproto.ForgetParams{HostKey: "SHA256:x"}, nil},
		nmsproto.MethodReload:    {nil, nil},
		nmsproto.MethodDevice:    {nmsproto.DeviceParams{Device: "edge8"}, &detail},
		nmsproto.MethodHistory:   {nil, &history},
		nmsproto.MethodDrain:     {nmsproto.DrainParams{Rate: 7, SessionTime: time.Second}, &drain},
		nmsproto.MethodSubscribe: {nil, &last},
	} {
		if err := c.Call(t.Context(), method, call.params, call.result); err != nil {
			t.Errorf("%s: %v", method, err)
		}
	}
	for method, params := range map[string]any{nmsproto.MethodRemove: nmsproto.RemoveParams{Device: "none"}, nmsproto.MethodForget: nmsproto.ForgetParams{HostKey: "none"}} {
		var e *proto.Error
		if err := c.Call(t.Context(), method, params, nil); !errors.As(err, &e) || e.Code != proto.CodeNoExists {
			t.Errorf("%s: %v", method, err)
		}
	}
	if len(revoked.HostKeys) != 1 || revoked.HostKeys[0] != "edge9" || unrevoked.HostKey != "SHA256:x" {
		t.Errorf("got %+v, %+v", revoked, unrevoked)
	}
	if drain.Rate != 7 || drain.SessionTime != time.Second || drain.Left != 2 {
		t.Errorf("got %+v", drain)
	}
	if list.Devices[0].ID != "edge7" || status.PID != 5 || device.ID != "edge9" || last.Events[0].Event != "before" {
		t.Errorf("got %+v, %+v, %+v, %+v", list, status, device, last)
	}
	if detail.ID != "edge8" || len(history.Minutes) != 1 || status.Access != nmsproto.AccessFull {
		t.Errorf("got %+v, %+v, access %q", detail, history, status.Access)
	}
	if e := <-c.Events(); e.Event != "now" {
		t.Errorf("got %+v", e)
	}
}
