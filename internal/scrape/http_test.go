package scrape

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/hashicorp/go-hclog"
)

// asked returns the status of the answer to a request, and its body; 0 for none.
func asked(t *testing.T, r io.Reader, method string) (int, string) {
	t.Helper()
	answer := respond(r, figures)
	if answer == nil {
		return 0, ""
	}
	got, err := http.ReadResponse(bufio.NewReader(strings.NewReader(string(answer))), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%v in %q", err, answer)
	}
	body, err := io.ReadAll(got.Body)
	if err != nil || !got.Close {
		t.Errorf("close: %v, %v", got.Close, err)
	}
	return got.StatusCode, string(body)
}

func TestRespond(t *testing.T) {
	long := strings.Repeat("X: x\r\n", maxHeader/6)
	for request, want := range map[string]int{
		"GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n": 200, "HEAD /metrics HTTP/1.1\r\nHost: h\r\n\r\n": 200, "GET /metrics HTTP/1.0\r\n\r\n": 200,
		"GET /metrics?x=/y HTTP/1.1\r\nhost: h\r\nAccept: */*\r\n\r\n": 200, "GET http://h:1/metrics HTTP/1.1\r\nHost: h\r\n\r\n": 200,
		"GET /metrics HTTP/1.1\nHost: h\n\n": 200, "GET /metrics HTTP/1.1\r\nHost: h\r\n\r\nbody": 200,
		"POST /metrics HTTP/1.1\r\nHost: h\r\n\r\n": 405, "GET / HTTP/1.1\r\nHost: h\r\n\r\n": 404, "GET /metrics/x HTTP/1.1\r\nHost: h\r\n\r\n": 404,
		"GET /debug/pprof/ HTTP/1.1\r\nHost: h\r\n\r\n": 404, "HEAD / HTTP/1.1\r\nHost: h\r\n\r\n": 404, "GET http://h HTTP/1.1\r\nHost: h\r\n\r\n": 404,
		"GET /metrics HTTP/1.1\r\n\r\n": 400, "GET /metrics HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n": 400, "GET /metrics HTTP/1.1\r\nHost: h\rX: x\r\n\r\n": 400, "GET /metrics\r\n\r\n": 400, "GET /metrics HTTP/2.0\r\nHost: h\r\n\r\n": 400, "\r\n\r\n": 400, "x\r\n\r\n": 400,
		"GET  /metrics HTTP/1.1\r\nHost: h\r\n\r\n": 400, "GET /metrics HTTP/1.1\r\nHost : h\r\n\r\n": 400, "GET /metrics HTTP/1.1\r\nHost: h\r\n folded\r\n\r\n": 400,
		"GET /metrics HTTP/1.1\r\nHost: h\r\n" + long + "\r\n": 431, strings.Repeat("x", maxHeader+1): 431,
		"": 0, "GET /metrics HTTP/1.1\r\nHost: h\r\n": 0,
	} {
		method, _, _ := strings.Cut(request, " ")
		for _, r := range []io.Reader{strings.NewReader(request), iotest.OneByteReader(strings.NewReader(request))} {
			got, body := asked(t, r, method)
			if got != want {
				t.Errorf("%.60q: got %d, want %d", request, got, want)
			}
			if got == 200 && method == "GET" && body != "g 0\n" || method == "HEAD" && body != "" {
				t.Errorf("%.60q: got %q", request, body)
			}
		}
	}
}

func FuzzRespond(f *testing.F) {
	for _, s := range []string{"GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n", "HEAD http://h/metrics?x HTTP/1.0\n\n", "\r\n\r\n", "GET / HTTP/1.1\r\n: \r\n\r\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, request string) {
		method, rest, _ := strings.Cut(request, " ")
		status, _ := asked(t, strings.NewReader(request), method)
		// What is served here, Go's server serves too.
		if status == 200 && strings.HasPrefix(rest, "/") {
			if _, err := http.ReadRequest(bufio.NewReader(strings.NewReader(request))); err != nil {
				t.Errorf("%q: %v", request, err)
			}
		}
	})
}

// Over TCP the answer arrives whole, though the peer has sent more than is read.
func TestAnAnswerSurvivesWhatIsNotRead(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, figures, hclog.NewNullLogger()) }()
	for range 20 {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, "GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n"+strings.Repeat("x", 20000)); err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(c)
		if err != nil || !strings.HasSuffix(string(text), "\r\n\r\ng 0\n") {
			t.Fatalf("%q, %v", text, err)
		}
		c.Close()
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
