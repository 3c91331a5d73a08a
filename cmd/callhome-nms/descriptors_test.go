package main

import (
	"bytes"
	"strings"
	"testing"

	"callhome/internal/daemon"
	"callhome/internal/logging"
	"callhome/internal/nms/registry"

	"github.com/hashicorp/go-hclog"
)

func TestAWarningSaysHowManyDescriptorsAreNeeded(t *testing.T) {
	for _, tt := range []struct {
		demand demand
		want   uint64
	}{{demand{20000, 2, 1024}, 41088}, {demand{20000, 1, 1024}, 21088}, {demand{65536, 2, 1024}, 132160}} {
		if got := tt.demand.descriptors(); got != tt.want {
			t.Errorf("%+v needs %d, want %d", tt.demand, got, tt.want)
		}
	}
	r, _, err := registry.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	b := &backend{registry: r, log: &logging.Logger{Logger: hclog.New(&hclog.LoggerOptions{Output: &text})}}
	b.demand = demand{each: 2, unauthenticated: int(daemon.Descriptors())}
	b.checkDescriptors()
	b.checkDescriptors()
	if got := text.String(); strings.Count(got, "too few file descriptors") != 1 || !strings.Contains(got, "needed=") {
		t.Errorf("logged %q", got)
	}
	b.demand.unauthenticated = 1
	b.checkDescriptors()
	b.demand.unauthenticated = int(daemon.Descriptors())
	b.checkDescriptors()
	if got := text.String(); strings.Count(got, "too few file descriptors") != 2 {
		t.Errorf("after it sufficed it logged %q", got)
	}
}
