package main

import (
	"fmt"

	"callhome/internal/nms/nmsproto"
	"callhome/internal/printable"

	"github.com/hashicorp/go-hclog"
)

// levels are the levels of events that are not logged at info.
var levels = map[string]hclog.Level{
	nmsproto.EventDown: hclog.Warn, nmsproto.EventDuplicate: hclog.Warn, nmsproto.EventRefused: hclog.Warn,
	nmsproto.EventUnknown: hclog.Warn, nmsproto.EventRegistry: hclog.Error, nmsproto.EventResync: hclog.Warn, nmsproto.EventDraining: hclog.Warn,
}

func logEvent(log hclog.Logger, e nmsproto.Event) {
	level := levels[e.Event]
	if level == hclog.NoLevel {
		level = hclog.Info
	}
	var fields []any
	for _, f := range []struct{ name, value string }{
		{"device", e.Device}, {"address", e.Address}, {"software", e.Software}, {"host-key", e.HostKey}, {"certificate", e.Certificate}, {"cause", e.Cause},
	} {
		if f.value != "" {
			fields = append(fields, f.name, printable.Quoted(f.value))
		}
	}
	if e.Unsaid > 0 {
		fields = append(fields, "left-out-before", fmt.Sprint(e.Unsaid))
	}
	log.Log(level, e.Event, fields...)
}
