package rpc

import (
	"net"
	"path/filepath"
	"testing"
	"time"

	"callhome/internal/proto"
)

// Whatever comes from the socket, a client ends with an error or an answer, and its
// stream of events ends.
func FuzzClient(f *testing.F) {
	for _, s := range []string{
		`{"jsonrpc":"2.0","id":1,"result":{}}` + "\n", `{"jsonrpc":"2.0","id":1,"error":{"code":6,"message":"x","data":{"retry":true}}}` + "\n",
		`{"jsonrpc":"2.0","method":"event","params":{"event":"closed","session":{"session":1}}}` + "\n", `{"jsonrpc":"2.0","method":` + "\n", "[]\n", "\n", "\xff",
		`{"jsonrpc":"2.0","method":"event","params":7}` + "\n",
	} {
		f.Add([]byte(s))
	}
	dir := f.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { l.Close() })
	f.Fuzz(func(t *testing.T, said []byte) {
		c, err := Dial[proto.Event](l.Addr().String(), Daemon{Name: "the daemon"})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		server, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			defer server.Close()
			_ = server.SetDeadline(time.Now().Add(10 * time.Second))
			buffer := make([]byte, 4<<10)
			_, _ = server.Read(buffer) // the request
			_, _ = server.Write(said)
		}()
		_ = c.Call(t.Context(), proto.MethodStatus, nil, nil)
		go c.Close()
		for range c.Events() {
		}
	})
}
