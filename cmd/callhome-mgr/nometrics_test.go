//go:build nometrics

package main

import (
	"testing"

	"callhome/internal/cli"
	"callhome/internal/sysexits"
)

func TestABuildWithoutMetricsSaysSo(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want int
	}{
		{nil, sysexits.OK},
		{[]string{"--metrics", "127.0.0.1:9434"}, sysexits.Config},
	} {
		c, err := (&cli.Command{Flags: []cli.Flag{metricsFlag()}}).Parse(tt.args)
		if err != nil {
			t.Fatal(err)
		}
		if err := startMetrics(c, nil, nil, nil, nil); sysexits.Code(err) != tt.want {
			t.Errorf("%q: %v, exit status %d, expected %d", tt.args, err, sysexits.Code(err), tt.want)
		}
	}
}
