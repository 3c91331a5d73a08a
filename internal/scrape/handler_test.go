package scrape

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
)

// registry returns one with a metric.
func registry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(prometheus.NewGauge(prometheus.GaugeOpts{Name: "g", Help: "A gauge."}))
	return r
}

func TestHandlerRefuses(t *testing.T) {
	h := Handler(prometheus.NewRegistry(), hclog.NewNullLogger())
	for _, tt := range []struct {
		method, path string
		want         int
	}{
		{http.MethodGet, "/metrics", 200}, {http.MethodHead, "/metrics", 200},
		{http.MethodPost, "/metrics", 405}, {http.MethodGet, "/", 404}, {http.MethodGet, "/debug/pprof/", 404}, {http.MethodGet, "/metrics/x", 404},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(tt.method, tt.path, nil))
		if w.Code != tt.want {
			t.Errorf("%s %s: got %d, want %d", tt.method, tt.path, w.Code, tt.want)
		}
	}
}

// slow is a scraper that takes nothing until it is let go.
type slow struct {
	*httptest.ResponseRecorder
	taking chan<- struct{}
	letGo  <-chan struct{}
}

func (s slow) Write(p []byte) (int, error) {
	s.taking <- struct{}{}
	<-s.letGo
	return io.Discard.Write(p)
}

func TestScrapesAtATime(t *testing.T) {
	h := Handler(registry(), hclog.NewNullLogger())
	taking, letGo, done := make(chan struct{}, 1000), make(chan struct{}), make(chan struct{})
	for range maxScrapes {
		go func() {
			h.ServeHTTP(slow{httptest.NewRecorder(), taking, letGo}, httptest.NewRequest(http.MethodGet, "/metrics", nil))
			done <- struct{}{}
		}()
		<-taking
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusServiceUnavailable {
		t.Errorf("one scrape too many: got %d, want 503", w.Code)
	}
	close(letGo)
	for range maxScrapes {
		<-done
	}
	w = httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Errorf("when the slow ones are gone: got %d, want 200", w.Code)
	}
}
