//go:build nometrics

package main

import (
	"errors"

	"callhome/internal/hook"
	"callhome/internal/sysexits"

	"github.com/urfave/cli/v2"
)

// metricsFlags keeps the flag of the other build, so that a unit file that has
// it is answered with a sentence.
func metricsFlags() []cli.Flag {
	return []cli.Flag{&cli.StringFlag{Name: "metrics", Hidden: true}}
}

// startMetrics is that of a build for small devices (Makefile, MGR_TAGS).
func (w *watchers) startMetrics(c *cli.Context, _ *hook.Hook) error {
	if !c.IsSet("metrics") {
		return nil
	}
	return sysexits.New(sysexits.Config, "leave --metrics out, or install a callhome-mgr with metrics", errors.New("serving metrics: this callhome-mgr was built without them"))
}
