package natstest

import (
	"io"
	"net"
	"sync"
	"testing"
)

// Proxy is the way of one client to a server. It can be cut.
type Proxy struct {
	listener net.Listener
	to       string

	mu    sync.Mutex
	cut   bool
	stall chan struct{} // closed when bytes go on; nil while they do
	conns map[net.Conn]bool
}

// NewProxy returns the way to a server, which ends with the test.
func (s *Servers) NewProxy(t testing.TB, i int) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{listener: l, to: net.JoinHostPort(s.options[i].Host, portText(s.options[i].Port)), conns: make(map[net.Conn]bool)}
	go p.serve()
	t.Cleanup(func() {
		l.Close()
		p.Cut(false)
	})
	return p
}

// URL is where the client finds the proxy.
func (p *Proxy) URL() string { return "nats://" + p.listener.Addr().String() }

// Cut ends all connections and accepts no other; with silence it loses all bytes from now
// on in place of that.
func (p *Proxy) Cut(silence bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if silence {
		if p.stall == nil {
			p.stall = make(chan struct{})
		}
		return
	}
	p.cut = true
	for c := range p.conns {
		c.Close()
	}
}

// Heal lets bytes and connections through again.
func (p *Proxy) Heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = false
	if p.stall != nil {
		close(p.stall)
		p.stall = nil
		for c := range p.conns { // what was lost is lost
			c.Close()
		}
	}
}

func (p *Proxy) serve() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		go p.relay(c)
	}
}

func (p *Proxy) relay(c net.Conn) {
	defer c.Close()
	s, err := net.Dial("tcp", p.to)
	if err != nil {
		return
	}
	defer s.Close()
	p.mu.Lock()
	if p.cut {
		p.mu.Unlock()
		return
	}
	p.conns[c], p.conns[s] = true, true
	p.mu.Unlock()
	var wg sync.WaitGroup
	for _, d := range [][2]net.Conn{{c, s}, {s, c}} {
		wg.Go(func() {
			_, _ = io.Copy(&gate{d[0], p}, d[1])
			d[0].Close()
			d[1].Close()
		})
	}
	wg.Wait()
	p.mu.Lock()
	delete(p.conns, c)
	delete(p.conns, s)
	p.mu.Unlock()
}

// gate is a writer that waits while bytes are lost.
type gate struct {
	io.Writer
	of *Proxy
}

func (g *gate) Write(b []byte) (int, error) {
	g.of.mu.Lock()
	stall := g.of.stall
	g.of.mu.Unlock()
	if stall != nil {
		<-stall
		return 0, io.ErrClosedPipe
	}
	return g.Writer.Write(b)
}
