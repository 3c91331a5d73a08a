package main

import (
	"fmt"
	"net"

	"callhome/internal/hook"
	"callhome/internal/metrics"
	"callhome/internal/sysexits"
	"callhome/internal/unixlisten"

	"github.com/urfave/cli/v2"
)

func metricsFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "metrics", Usage: "serve Prometheus metrics at the loopback `ADDRESS:PORT`, or unix:PATH"},
	}
}

// startMetrics serves metrics where the command line says; h may be nil.
func (w *watchers) startMetrics(c *cli.Context, h *hook.Hook) error {
	if !c.IsSet("metrics") {
		return nil
	}
	a, err := metrics.ParseAddress(c.String("metrics"))
	if err != nil {
		return usage(err)
	}
	l, err := listenMetrics(a)
	if err != nil {
		return err
	}
	m := metrics.New(w.source, version)
	if h != nil {
		m.AddHook(func() metrics.HookCounts { return metrics.HookCounts(h.Counts()) })
	}
	w.follow("metrics", m.Missed, m.Handle)
	log := w.log.Named("metrics")
	w.fed.Go(func() {
		if err := metrics.Serve(w.served, l, m.Handler(log), log); err != nil {
			log.Error("metrics are no longer served", "error", err)
		}
	})
	log.Info("served", "address", c.String("metrics"))
	return nil
}

// listenMetrics opens the listener. Every local user may connect to either
// kind: there is no word of anybody's in the figures.
func listenMetrics(a metrics.Address) (net.Listener, error) {
	if a.Network == "unix" {
		l, err := unixlisten.Listen(a.Address, "metrics")
		if err != nil {
			return nil, err // not l, which is a nil of another type
		}
		return l, nil
	}
	l, err := net.Listen(a.Network, a.Address)
	if err != nil {
		return nil, sysexits.New(sysexits.Unavailable, "use another --metrics", fmt.Errorf("listening for metrics: %w", err))
	}
	return l, nil
}
