//go:build nometrics

package main

import (
	"fmt"

	"callhome/internal/hook"
	"callhome/internal/sysexits"

	"github.com/hashicorp/go-hclog"
	"github.com/urfave/cli/v2"
)

// metricsFlag keeps the option of the build with metrics, so that a unit file with
// it fails with a hint.
func metricsFlag() cli.Flag { return &cli.StringFlag{Name: "metrics", Hidden: true} }

// startMetrics refuses --metrics in a build without metrics, for small devices.
func startMetrics(c *cli.Context, _ *followers, _ eventSource, _ *hook.Hook, _ hclog.Logger) error {
	if !c.IsSet("metrics") {
		return nil
	}
	return sysexits.New(sysexits.Config, "leave --metrics out, or install a callhome-mgr with metrics", fmt.Errorf("serving metrics at %q: this callhome-mgr was built without them", c.String("metrics")))
}
