//go:build !nometrics

package main

import (
	"callhome/internal/device/metrics"
	"callhome/internal/hook"
	"callhome/internal/scrape"

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
	a, err := scrape.ParseAddress(c.String("metrics"))
	if err != nil {
		return usage(err)
	}
	l, err := scrape.Listen(a)
	if err != nil {
		return err
	}
	m := metrics.New(w.source, version)
	if h != nil {
		m.AddHook(h.Counts)
	}
	w.follow("metrics", m.Missed, m.Handle)
	log := w.log.Named("metrics")
	w.fed.Go(func() {
		if err := scrape.Serve(w.served, l, m.Handler(log), log); err != nil {
			log.Error("metrics are no longer served", "error", err)
		}
	})
	log.Info("served", "address", c.String("metrics"))
	return nil
}
