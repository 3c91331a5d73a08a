package reconnect

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"callhome/internal/device/config"
	"callhome/internal/device/settings"
	"callhome/internal/proto"
)

// A client is called on demand whether it waits, was given up or is not due; a call
// home or connection that there is already is what the caller gets.
func TestAClientIsCalledOnDemand(t *testing.T) {
	no := 0
	periodic := func(c *config.Client) {
		c.Periodic = &config.Periodic{Period: time.Hour, Anchor: time.Date(2000, 1, 1, 0, 30, 0, 0, time.UTC)}
	}
	for _, tt := range []struct {
		name  string
		conf  func(*config.Client)
		state proto.ClientState // before the demand
		calls int               // before it
	}{
		{"it waits", func(*config.Client) {}, proto.ClientWaiting, 1},
		{"it was given up", func(c *config.Client) { c.MaxCallHomeAttempts = &no }, proto.ClientStopped, 1},
		{"it is not due", periodic, proto.ClientIdle, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			play(t, Options{}, func(m *fakeManager, cs *Clients) {
				c := conf("nms", "a")
				tt.conf(&c)
				cs.Apply(clients(c), &settings.Call{})
				synctest.Wait()
				if tt.calls > 0 {
					m.last().refused()
				}
				is(t, cs, tt.state)
				before := status(t, cs).NextAttempt
				s, err := cs.Call(context.Background(), "nms")
				if err != nil || s.Info().Session == 0 || m.made() != tt.calls+1 {
					t.Fatalf("got %v, %v after %d calls", s, err, m.made())
				}
				is(t, cs, proto.ClientDialing)
				again, err := cs.Call(context.Background(), "nms")
				if err != nil || again != s || m.made() != tt.calls+1 {
					t.Errorf("while it is called: %v, %v, %d calls", again, err, m.made())
				}
				m.last().serves()
				again, err = cs.Call(context.Background(), "nms")
				if err != nil || again != s || m.made() != tt.calls+1 {
					t.Errorf("while it is connected: %v, %v, %d calls", again, err, m.made())
				}
				if tt.state != proto.ClientIdle {
					return
				}
				// A periodic connection keeps its slot.
				m.last().ends(proto.StageSession, proto.EndDisconnected, "done")
				is(t, cs, proto.ClientIdle)
				if next := status(t, cs).NextAttempt; before == nil || next == nil || !next.Equal(*before) {
					t.Errorf("the next slot is %v, before the demand it was %v", next, before)
				}
			})
		})
	}
}

func TestAClientThatCannotBeCalled(t *testing.T) {
	play(t, Options{}, func(m *fakeManager, cs *Clients) {
		off := conf("off", "a")
		off.Enabled = false
		cs.Apply(clients(off), &settings.Call{})
		synctest.Wait()
		for name, want := range map[string]struct {
			code proto.Code
			says string
		}{
			"nsm": {proto.CodeNoExists, `calling client "nsm": the configuration has no such client`},
			"off": {proto.CodeUnavailable, "it is disabled"},
		} {
			_, err := cs.Call(context.Background(), name)
			var e *proto.Error
			if !errors.As(err, &e) || e.Code != want.code || !strings.Contains(err.Error(), want.says) {
				t.Errorf("%s: got %v", name, err)
			}
		}
		ctx, cancel := context.WithCancelCause(context.Background())
		gone := errors.New("gone")
		cancel(gone)
		cs.Apply(clients(conf("nms", "a")), &settings.Call{})
		if s, err := cs.Call(ctx, "nms"); s == nil && !errors.Is(err, gone) {
			t.Errorf("a peer that is gone: %v", err)
		}
	})
}
