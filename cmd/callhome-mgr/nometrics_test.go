//go:build nometrics

package main

import (
	"flag"
	"testing"

	"callhome/internal/sysexits"

	"github.com/urfave/cli/v2"
)

func TestABuildWithoutMetricsSaysSo(t *testing.T) {
	flags := flag.NewFlagSet("run", flag.ContinueOnError)
	if err := metricsFlag().Apply(flags); err != nil {
		t.Fatal(err)
	}
	c := cli.NewContext(nil, flags, nil)
	if err := startMetrics(c, nil, nil, nil, nil); err != nil {
		t.Errorf("without --metrics: %v", err)
	}
	if err := flags.Parse([]string{"--metrics", "127.0.0.1:9434"}); err != nil {
		t.Fatal(err)
	}
	if err := startMetrics(c, nil, nil, nil, nil); sysexits.Code(err) != sysexits.Config {
		t.Errorf("with --metrics: %v, exit status %d, expected %d", err, sysexits.Code(err), sysexits.Config)
	}
}
