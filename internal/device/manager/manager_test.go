package manager

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"callhome/internal/device/session"
	"callhome/internal/device/settings"
	"callhome/internal/proto"
)

func newManager(t *testing.T) *Manager {
	t.Helper()
	s, _, err := settings.Load(nil, nil, func(name string) (string, bool) {
		return "/dev/null", name == settings.DefaultsEnv
	})
	if err != nil {
		t.Fatal(err)
	}
	m, err := New("1", t.TempDir(), &Config{Call: &s.Call})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Restore(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

// A request with an invalid parameter takes no session and no number.
func TestAnInvalidCallIsRefusedWithoutASession(t *testing.T) {
	m := newManager(t)
	for name, p := range map[string]proto.CallParams{
		"no host":            {},
		"an option":          {Host: "-oProxyCommand=x"},
		"a line of its own":  {Host: "nms\nnms"},
		"opaque too long":    {Host: "nms", Opaque: strings.Repeat("x", proto.MaxOpaque+1)},
		"a NUL":              {Host: "nms", Opaque: "a\x00b"},
		"not UTF-8, decoded": {Host: "nms", Opaque: "a\ufffdb"},
		"not UTF-8":          {Host: "nms", Opaque: "a\xffb"},
		"an unknown wait":    {Host: "nms", Wait: "tomorrow"},
	} {
		_, err := m.Call(t.Context(), p)
		var e *proto.Error
		if !errors.As(err, &e) || e.Code != proto.CodeBadType {
			t.Errorf("%s: %v", name, err)
		}
	}
	if st := m.Status(); st.Calls != 0 || st.Sessions != 0 || len(st.Recent) != 0 {
		t.Errorf("the manager is %+v", st)
	}
}

// The limit counts admitted sessions without a number too, so that concurrent
// requests cannot exceed it.
func TestTheLimitHoldsForConcurrentCalls(t *testing.T) {
	m := newManager(t)
	var admitted atomic.Int32
	var wg sync.WaitGroup
	for range 2 * maxCalls {
		wg.Go(func() {
			if m.admit() == nil {
				admitted.Add(1)
			}
		})
	}
	wg.Wait()
	if n := admitted.Load(); n != maxCalls {
		t.Errorf("%d sessions were admitted, the limit is %d", n, maxCalls)
	}
	m.abandon()
	if err := m.admit(); err != nil {
		t.Errorf("one session below the limit: %v", err)
	}
}

func TestAStoppingManagerRefusesCalls(t *testing.T) {
	m := newManager(t)
	m.Stop()
	_, err := m.Call(t.Context(), proto.CallParams{Host: "192.0.2.1"})
	var e *proto.Error
	if !errors.As(err, &e) || e.Code != proto.CodeShutdown {
		t.Errorf("got %v", err)
	}
}

// Between Stop and Close sessions still end, and their events are published.
func TestEventsArePublishedUntilClose(t *testing.T) {
	m := newManager(t)
	_, events, cancel := m.SubscribeSince()
	defer cancel()
	m.Stop()
	m.publish(proto.Event{Event: proto.EventClosed})
	m.Close()
	if e, open := <-events; !open || e.Event != proto.EventClosed {
		t.Errorf("got %+v, open %v", e, open)
	}
	if _, open := <-events; open {
		t.Error("the channel is open after Close")
	}
}

func TestAWaitingCallReturnsTheContextsCause(t *testing.T) {
	m := newManager(t)
	for _, tt := range []struct {
		name  string
		cause error
		want  proto.Code
	}{
		{"the daemon stops", proto.NewError(proto.CodeShutdown, "stopping"), proto.CodeShutdown},
		{"the peer has disconnected", errors.New("disconnected"), proto.CodeUnavailable},
	} {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(tt.cause)
		_, err := await(ctx, session.New(&m.env, 1, proto.CallParams{Host: "nms"}, "manager", session.Owner{}), proto.StateServing)
		var e *proto.Error
		if !errors.As(err, &e) || e.Code != tt.want {
			t.Errorf("%s: got %v, want code %d", tt.name, err, tt.want)
		}
	}
}

func TestLogLinesDoNotDisplaceOtherEvents(t *testing.T) {
	m := newManager(t)
	m.publish(proto.Event{Event: proto.EventConnected})
	for range 10000 {
		m.publish(proto.Event{Event: proto.EventLog})
	}
	last, _, cancel := m.SubscribeSince()
	defer cancel()
	if len(last) == 0 || last[0].Event != proto.EventConnected {
		t.Errorf("of %d remembered events the first is %+v", len(last), last[:min(1, len(last))])
	}
}

func TestEachWaitHasItsState(t *testing.T) {
	for _, w := range []proto.Wait{"", proto.WaitNone, proto.WaitTCP, proto.WaitSSH, proto.WaitNetconf} {
		if waits[w] == "" {
			t.Errorf("wait %q has no state", w)
		}
	}
}
