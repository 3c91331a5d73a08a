package scrape

import "net/http"

// Handler returns the HTTP handler that answers scrapes with page at /metrics alone.
func Handler(page func() []byte) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		_, _ = w.Write(page()) // the peer may have gone
	})
	return mux
}
