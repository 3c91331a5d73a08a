package metrics

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/net/netutil"
)

// Limits of the HTTP server. A scrape is one short request and some 20 KiB of
// answer.
const (
	maxConns    = 16
	maxScrapes  = 4 // at a time; more are answered with 503
	maxHeader   = 8 << 10
	headerTime  = 5 * time.Second // for a request's header
	requestTime = 10 * time.Second
	answerTime  = 10 * time.Second
	idleTime    = 2 * time.Minute // above Prometheus's usual scrape interval
	endTime     = time.Second     // for scrapes under way when the daemon ends
)

// Serve answers HTTP on l until ctx ends, and closes l. What is being answered
// then has a moment to get through.
func Serve(ctx context.Context, l net.Listener, h http.Handler, log hclog.Logger) error {
	server := &http.Server{
		Handler:                      h,
		ReadHeaderTimeout:            headerTime,
		ReadTimeout:                  requestTime,
		WriteTimeout:                 answerTime,
		IdleTimeout:                  idleTime,
		MaxHeaderBytes:               maxHeader,
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     log.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}),
	}
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTime)
		defer cancel()
		if server.Shutdown(end) != nil {
			server.Close()
		}
	})
	err := server.Serve(netutil.LimitListener(l, maxConns))
	if errors.Is(err, http.ErrServerClosed) {
		<-ended
		return nil
	}
	stop()
	return err
}
