package scrape

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// figures are the metrics.
func figures() []byte { return []byte("g 0\n") }

func TestHandlerRefuses(t *testing.T) {
	h := Handler(figures)
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
		if kind := w.Header().Get("Content-Type"); w.Code == 200 && !strings.HasPrefix(kind, "text/plain; version=0.0.4") {
			t.Errorf("%s %s has the type %q", tt.method, tt.path, kind)
		}
	}
}
