// Package scrape serves Prometheus metrics over HTTP, on a loopback address or
// a Unix socket. It owns the listener and its limits. Both daemons call it and own
// what is counted. It never authenticates: every local user may scrape, so no
// secret may be registered.
package scrape

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"

	"callhome/internal/daemon"
	"callhome/internal/ratelimit"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/net/netutil"
)

// Limits of the HTTP server. A scrape is one short request and some 20 KiB of
// answer.
const (
	maxConns    = 16
	maxHeader   = 8 << 10
	requestTime = 2 * time.Second // for all of a request
	answerTime  = 10 * time.Second
	endTime     = time.Second // for unfinished scrapes when the daemon ends
)

// Serve answers HTTP on l until ctx ends, and closes l. Unfinished scrapes get
// endTime then.
func Serve(ctx context.Context, l net.Listener, h http.Handler, log hclog.Logger) error {
	server := &http.Server{
		Handler:                      h,
		ReadTimeout:                  requestTime,
		WriteTimeout:                 answerTime,
		MaxHeaderBytes:               maxHeader,
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     log.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}),
	}
	// Every local user may connect; a kept connection would take one of maxConns.
	server.SetKeepAlivesEnabled(false)
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTime)
		defer cancel()
		if server.Shutdown(end) != nil {
			server.Close()
		}
	})
	warnings := ratelimit.NewWarnings(log)
	err := server.Serve(netutil.LimitListener(daemon.Patient(l, func(err error) {
		warnings.Warn("connections cannot be accepted, retrying", "error", err)
	}), maxConns))
	if errors.Is(err, http.ErrServerClosed) {
		<-ended
		return nil
	}
	stop()
	return err
}

// Run calls Serve, and logs the start and a failure.
func Run(ctx context.Context, l net.Listener, h http.Handler, log hclog.Logger) {
	log.Info("serving metrics", "address", l.Addr().String())
	if err := Serve(ctx, l, h, log); err != nil {
		log.Error("metrics are no longer served", "error", err)
	}
}
