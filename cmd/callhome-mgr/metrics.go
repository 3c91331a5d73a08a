//go:build !nometrics

package main

import (
	"context"

	"callhome/internal/cmdline"
	"callhome/internal/device/metrics"
	"callhome/internal/hook"
	"callhome/internal/scrape"

	"github.com/hashicorp/go-hclog"
	"github.com/urfave/cli/v2"
)

func metricsFlag() cli.Flag { return cmdline.MetricsFlag() }

// startMetrics serves the metrics at --metrics, if set; h may be nil.
func startMetrics(c *cli.Context, f *followers, source metrics.Source, h *hook.Hook, log hclog.Logger) error {
	if !c.IsSet("metrics") {
		return nil
	}
	l, err := scrape.Listen(c.String("metrics"))
	if err != nil {
		return err
	}
	m := metrics.New(source, version)
	if h != nil {
		m.AddHook(h.Counts)
	}
	f.Follow("metrics", m.Missed, m.Handle)
	log = log.Named("metrics")
	f.Feed(func(ctx context.Context) { scrape.Run(ctx, l, scrape.Handler(m.Text), log) })
	return nil
}
