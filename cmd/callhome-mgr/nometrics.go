//go:build nometrics

package main

import (
	"errors"

	"callhome/internal/hook"
	"callhome/internal/sysexits"

	"github.com/hashicorp/go-hclog"
	"github.com/urfave/cli/v2"
)

// metricsFlag keeps the flag of the other build, so that a unit file that has it
// gets an answer it can act on.
func metricsFlag() cli.Flag { return &cli.StringFlag{Name: "metrics", Hidden: true} }

// startMetrics is that of a build for small devices.
func startMetrics(c *cli.Context, _ *followers, _ eventSource, _ *hook.Hook, _ hclog.Logger) error {
	if !c.IsSet("metrics") {
		return nil
	}
	return sysexits.New(sysexits.Config, "leave --metrics out, or install a callhome-mgr with metrics", errors.New("serving metrics: this callhome-mgr was built without them"))
}
