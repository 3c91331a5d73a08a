package main

import (
	"bytes"
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
)

// TestAStationWarnsBeforeItsCertificateExpires: daily in the last 30 days, and after that.
func TestAStationWarnsBeforeItsCertificateExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex // of the logger, which writes to out
		var out bytes.Buffer
		var expires atomic.Pointer[time.Time]
		in := func(d time.Duration) { at := time.Now().Add(d); expires.Store(&at) }
		in(31*24*time.Hour + time.Minute)
		ctx, cancel := context.WithCancel(t.Context())
		go watchExpiry(ctx, func() time.Time { return *expires.Load() }, hclog.New(&hclog.LoggerOptions{Output: &out, Mutex: &mu}))
		said := func(soon, expired int) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if s, e := strings.Count(out.String(), "expires soon"), strings.Count(out.String(), "has expired"); s != soon || e != expired {
				t.Errorf("%d warnings and %d errors, want %d and %d:\n%s", s, e, soon, expired, out.String())
			}
		}
		said(0, 0)
		time.Sleep(3 * 24 * time.Hour)
		said(2, 0)
		time.Sleep(29 * 24 * time.Hour)
		said(30, 1)
		in(365 * 24 * time.Hour) // it was renewed
		time.Sleep(5 * 24 * time.Hour)
		said(30, 1)
		cancel()
	})
}
