package rpc

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"callhome/internal/fdpass"
	"callhome/internal/proto"
)

// A request without an id gets no answer, so it is refused and not counted.
func TestARequestWithoutAnIDIsRefused(t *testing.T) {
	stop := `{"jsonrpc":"2.0","method":"kill_user_session","params":{"session":1}}`
	null := `{"jsonrpc":"2.0","id":null,"method":"kill_user_session","params":{"session":1}}`
	for _, tt := range []struct{ name, line string }{
		{"no id", stop},
		{"null", null},
		{"several", "[" + stop + "," + null + "]"},
		{"one of several", "[" + status + "," + stop + "]"},
		{"no method either", `{"jsonrpc":"2.0"}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := &backend{}
			c := dial(t, serve(t, b, full()))
			r := bufio.NewReader(c)
			for range 3 * concurrency {
				if _, err := io.WriteString(c, tt.line+"\n"); err != nil {
					t.Fatal(err)
				}
				if a := answer(t, r); a.ID != 0 || a.Error == nil || a.Error.Code != -32600 || !strings.Contains(a.Error.Message, "id") {
					t.Fatalf("got %+v", a)
				}
			}
			if _, err := io.WriteString(c, status+"\n"); err != nil {
				t.Fatal(err)
			}
			if a := answer(t, r); a.ID != 1 || a.Error != nil {
				t.Errorf("what came behind it got %+v", a)
			}
			b.mu.Lock()
			defer b.mu.Unlock()
			if len(b.killed) > 0 {
				t.Errorf("%d were carried out", len(b.killed))
			}
		})
	}
}

func TestTheSizeOfABatchIsLimited(t *testing.T) {
	c := dial(t, serve(t, &backend{}, full()))
	r := bufio.NewReader(c)
	batch := func(n int) string {
		var all []string
		for i := range n {
			all = append(all, fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"method":"call_home_status"}`, i+1))
		}
		return "[" + strings.Join(all, ",") + "]\n"
	}
	for range 3 {
		if _, err := io.WriteString(c, batch(concurrency)); err != nil {
			t.Fatal(err)
		}
		line, err := r.ReadBytes('\n')
		if err != nil {
			t.Fatal(err)
		}
		var all []proto.Response
		if err := json.Unmarshal(line, &all); err != nil || len(all) != concurrency {
			t.Fatalf("%d answers, %v", len(all), err)
		}
	}
	if _, err := io.WriteString(c, batch(concurrency+1)); err != nil {
		t.Fatal(err)
	}
	if a := answer(t, r); a.Error == nil || !strings.Contains(a.Error.Message, "too many") {
		t.Errorf("got %+v", a)
	}
}

// No more requests are read than are carried out at a time.
func TestRequestsInFlightAreLimited(t *testing.T) {
	b := &backend{block: make(chan struct{})}
	c := dial(t, serve(t, b, full()))
	for i := range 2 * concurrency {
		if _, err := fmt.Fprintf(c, `{"jsonrpc":"2.0","id":%d,"method":"netconf_ssh_call_home","params":{"host":"nms"}}`+"\n", i+1); err != nil {
			t.Fatal(err)
		}
	}
	await(t, func() error {
		if n := b.calls.Load(); n < concurrency {
			return fmt.Errorf("%d calls have begun", n)
		}
		return nil
	})
	// One that needs no waiting is behind them.
	if _, err := io.WriteString(c, `{"jsonrpc":"2.0","id":"behind","method":"call_home_status"}`+"\n"); err != nil {
		t.Fatal(err)
	}
	if err := c.SetReadDeadline(time.Now().Add(10 * pollTime)); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(c)
	if line, err := r.ReadString('\n'); err == nil {
		t.Errorf("it was answered: %s", line)
	}
	if n := b.calls.Load(); n != concurrency {
		t.Errorf("%d calls have begun, want %d", n, concurrency)
	}
	close(b.block)
	if err := c.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	for range 2*concurrency + 1 {
		if _, err := r.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
}

// holding returns the reading end of a pipe that holds text.
func holding(t *testing.T, text string) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := w.WriteString(text); err != nil {
		t.Fatal(err)
	}
	return r
}

// send writes one line with a descriptor, and closes that.
func send(t *testing.T, c *net.UnixConn, line string, f *os.File) {
	t.Helper()
	defer f.Close()
	if err := fdpass.Send(c, []byte(line+"\n"), f); err != nil {
		t.Fatal(err)
	}
}

// A peer need not wait for an answer before it sends the next descriptor.
func TestHandoversInARow(t *testing.T) {
	b := &backend{adopted: make(chan string, concurrency), byHost: true}
	c := dial(t, serve(t, b, full()))
	for i := range concurrency {
		send(t, c, fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"method":"handover","params":{"host":"nms%d"}}`, i+1, i), holding(t, fmt.Sprintf("nms%d", i)))
	}
	r := bufio.NewReader(c)
	for range concurrency {
		if a := answer(t, r); a.Error != nil {
			t.Fatalf("got %+v", a.Error)
		}
		if got := <-b.adopted; got != "" {
			t.Error(got)
		}
	}
}

// A descriptor with a message that takes none is closed; the next message does not
// get it.
func TestADescriptorGoesWithItsMessage(t *testing.T) {
	b := &backend{adopted: make(chan string, 8)}
	for _, tt := range []struct{ name, line string }{
		{"a method without one", status},
		{"no method", `{"jsonrpc":"2.0","id":1,"method":"reboot"}`},
		{"no id", `{"jsonrpc":"2.0","method":"handover","params":{"host":"n"}}`},
		{"no JSON", `hello`},
		{"several", "[" + status + "]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := dial(t, serve(t, b, full()))
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			send(t, c, tt.line, r)
			// It is answered by a line of whatever kind.
			lines := bufio.NewReader(c)
			if _, err := lines.ReadString('\n'); err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(c, `{"jsonrpc":"2.0","id":2,"method":"handover","params":{"host":"n"}}`+"\n"); err != nil {
				t.Fatal(err)
			}
			if a := answer(t, lines); a.Error == nil || !strings.Contains(a.Error.Message, "no descriptor") {
				t.Errorf("the next one got %+v", a)
			}
			// The reading end is closed.
			if _, err := w.WriteString("x"); err == nil {
				t.Error("it is open still")
			}
		})
	}
}
