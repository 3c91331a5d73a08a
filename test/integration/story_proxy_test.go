//go:build integration

package integration

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// proxy is a small SOCKS5 or HTTP CONNECT server of the story's own. It waits
// for the station's first bytes and sends them in one piece with its own
// answer: who reads on behind the answer swallows the start of SSH.
type proxy struct {
	t           *testing.T
	Addr        string
	credentials string // user:password; "" asks for none
	refuse      bool   // the way on
	silent      bool   // says nothing at all

	mu    sync.Mutex
	asked []string // addresses; guarded by mu
}

func (p *proxy) start(serve func(*proxy, net.Conn) error) *proxy {
	p.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { l.Close() })
	p.Addr = l.Addr().String()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(2 * patience))
				if p.silent {
					_, _ = io.Copy(io.Discard, c)
					return
				}
				// The story sees what the trigger makes of a failure.
				_ = serve(p, c)
			}()
		}
	}()
	return p
}

func (p *proxy) Asked() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.asked, " ")
}

// join connects to addr, sends answer and the station's first bytes together,
// and copies both ways from then on.
func (p *proxy) join(c net.Conn, r io.Reader, addr string, answer []byte) error {
	p.mu.Lock()
	p.asked = append(p.asked, addr)
	p.mu.Unlock()
	on, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer on.Close()
	_ = on.SetDeadline(time.Now().Add(2 * patience))
	first := make([]byte, 4096)
	n, err := on.Read(first)
	if err != nil {
		return err
	}
	if _, err := c.Write(append(answer, first[:n]...)); err != nil {
		return err
	}
	go func() {
		_, _ = io.Copy(on, r)
		_ = on.(*net.TCPConn).CloseWrite()
	}()
	_, err = io.Copy(c, on)
	return err
}

// connectProxy is HTTP CONNECT (RFC 9110 section 9.3.6).
func connectProxy(p *proxy, c net.Conn) error {
	r := bufio.NewReader(c)
	request, err := http.ReadRequest(r)
	if err != nil {
		return err
	}
	want := "Basic " + base64.StdEncoding.EncodeToString([]byte(p.credentials))
	switch {
	case request.Method != http.MethodConnect:
		_, err = io.WriteString(c, "HTTP/1.1 405 Method Not Allowed\r\n\r\n")
	case p.credentials != "" && request.Header.Get("Proxy-Authorization") != want:
		_, err = io.WriteString(c, "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n\r\n")
	case p.refuse:
		_, err = io.WriteString(c, "HTTP/1.1 403 Forbidden\r\n\r\n")
	default:
		return p.join(c, r, request.Host, []byte("HTTP/1.1 200 Connection established\r\nVia: 1.1 test\r\n\r\n"))
	}
	return err
}

// socksProxy is SOCKS5 (RFC 1928), with the user and password of RFC 1929.
func socksProxy(p *proxy, c net.Conn) error {
	read := func(n byte) ([]byte, error) {
		b := make([]byte, n)
		_, err := io.ReadFull(c, b)
		return b, err
	}
	head, err := read(2)
	if err != nil {
		return err
	}
	methods, err := read(head[1])
	if err != nil {
		return err
	}
	method := byte(0)
	if p.credentials != "" {
		method = 2
	}
	if !strings.ContainsRune(string(methods), rune(method)) {
		_, err = c.Write([]byte{5, 0xff})
		return err
	}
	if _, err := c.Write([]byte{5, method}); err != nil {
		return err
	}
	if method == 2 {
		if ok, err := p.checkPassword(c, read); !ok {
			return err
		}
	}
	addr, err := socksAddr(read)
	if err != nil {
		return err
	}
	if p.refuse {
		_, err = c.Write([]byte{5, 2, 0, 1, 0, 0, 0, 0, 0, 0})
		return err
	}
	return p.join(c, c, addr, []byte{5, 0, 0, 1, 127, 0, 0, 1, 0, 0})
}

func (p *proxy) checkPassword(c net.Conn, read func(byte) ([]byte, error)) (bool, error) {
	var said []string
	if _, err := read(1); err != nil {
		return false, err
	}
	for range 2 {
		n, err := read(1)
		if err != nil {
			return false, err
		}
		word, err := read(n[0])
		if err != nil {
			return false, err
		}
		said = append(said, string(word))
	}
	status := byte(0)
	if strings.Join(said, ":") != p.credentials {
		status = 1
	}
	_, err := c.Write([]byte{1, status})
	return status == 0, err
}

func socksAddr(read func(byte) ([]byte, error)) (string, error) {
	head, err := read(4)
	if err != nil {
		return "", err
	}
	size := map[byte]byte{1: net.IPv4len, 4: net.IPv6len}[head[3]]
	if head[3] == 3 {
		n, err := read(1)
		if err != nil {
			return "", err
		}
		size = n[0]
	}
	host, err := read(size)
	if err != nil {
		return "", err
	}
	port, err := read(2)
	if err != nil {
		return "", err
	}
	name := net.IP(host).String()
	if head[3] == 3 {
		name = string(host)
	}
	return net.JoinHostPort(name, fmt.Sprint(int(port[0])<<8|int(port[1]))), nil
}

var proxies = []struct {
	scheme string
	serve  func(*proxy, net.Conn) error
}{
	{"socks5", socksProxy},
	{"http", connectProxy},
}

// A whole session through a proxy, with and without credentials. The name of
// the station is the proxy's to resolve.
func TestSessionThroughAProxy(t *testing.T) {
	t.Parallel()
	for _, kind := range proxies {
		for name, credentials := range map[string]string{"open": "", "with credentials": "operator:pass:with:colons and ü"} {
			for _, host := range []string{"127.0.0.1", "::1", "nms.example"} {
				t.Run(kind.scheme+"/"+name+"/"+host, func(t *testing.T) {
					t.Parallel()
					server := startNetconfd(t)
					device, nms := newSite(t, server.Subsystem())
					proxy := (&proxy{t: t, credentials: credentials}).start(kind.serve)
					options := []string{"--proxy", kind.scheme + "://" + proxy.Addr, "--ssh-connection-port", yumaPort}
					if credentials != "" {
						options = append(options, "--proxy-credentials", writeFile(t, filepath.Join(device.dir(), "credentials"), credentials+"\n", 0o600))
					}
					listenOn := freeAddr(strings.Replace(host, "nms.example", "127.0.0.1", 1))
					_, port := splitAddr(t, listenOn)
					client := nms.SshNetconf(server, listenOn, "through-"+kind.scheme)
					device.Call(net.JoinHostPort(host, port), options...)
					finish(t, client)
					if asked := proxy.Asked(); asked != net.JoinHostPort(host, port) {
						t.Errorf("the proxy was asked for %q", asked)
					}
				})
			}
		}
	}
}

// What a proxy refuses is said in one line, with its name and its reason, and
// no password in it.
func TestProxyRefuses(t *testing.T) {
	t.Parallel()
	for _, kind := range proxies {
		nms := listen(t, "127.0.0.1:0")
		for _, c := range []struct {
			name  string
			proxy *proxy
			code  int
		}{
			{"the way", &proxy{t: t, refuse: true}, 69},
			{"the password", &proxy{t: t, credentials: "operator:right"}, 69},
			{"to answer", &proxy{t: t, silent: true}, 69},
		} {
			t.Run(kind.scheme+"/"+c.name, func(t *testing.T) {
				t.Parallel()
				c.proxy.start(kind.serve)
				device := newDevice(t, "/bin/true")
				credentials := writeFile(t, filepath.Join(device.dir(), "credentials"), "operator:s3cret\n", 0o600)
				call := device.Call(nms.Addr(), "--proxy", kind.scheme+"://"+c.proxy.Addr, "--proxy-credentials", credentials, "--connect-timeout", "1s")
				call.MustExit(c.code)
				_, port := splitAddr(t, c.proxy.Addr)
				oneLine(t, call.Stderr(), "proxy", port)
				if strings.Contains(call.Stderr(), "s3cret") {
					t.Errorf("the password is in the message: %s", call.Stderr())
				}
			})
		}
	}
}

// Credentials that others may read, that are not there, or that stand on the
// command line are refused before any call.
func TestProxyCredentials(t *testing.T) {
	t.Parallel()
	proxy := listen(t, "127.0.0.1:0")
	device := newDevice(t, "/bin/true")
	for _, c := range []struct {
		what    string
		options []string
		code    int
	}{
		{"others may read it", []string{"--proxy", "socks5://" + proxy.Addr(), "--proxy-credentials", writeFile(t, filepath.Join(device.dir(), "open"), "a:b\n", 0o644)}, 78},
		{"no such file", []string{"--proxy", "socks5://" + proxy.Addr(), "--proxy-credentials", filepath.Join(device.dir(), "none")}, 66},
		{"credentials", []string{"--proxy", "socks5://user:word@" + proxy.Addr()}, 64},
		{"--proxy", []string{"--proxy-credentials", filepath.Join(device.dir(), "open")}, 78},
	} {
		call := device.Call("127.0.0.1:4334", c.options...)
		call.MustExit(c.code)
		oneLine(t, call.Stderr(), c.what)
	}
	proxy.NoCall()
}
