package main

import (
	"time"

	"callhome/internal/printable"
	"callhome/internal/proto"

	"github.com/hashicorp/go-hclog"
)

// levels are those of the events that are not logged at info.
var levels = map[string]hclog.Level{
	proto.EventFailed: hclog.Warn, proto.EventRefused: hclog.Warn, proto.EventNoSubsystem: hclog.Warn, proto.EventAttemptFailed: hclog.Warn,
	proto.EventEndpointExhausted: hclog.Warn, proto.EventAllExhausted: hclog.Warn, proto.EventLost: hclog.Warn, proto.EventTrouble: hclog.Warn,
	proto.EventGivenUp: hclog.Error, proto.EventConfigRefused: hclog.Error,
	proto.EventLog: hclog.Debug,
}

// logEvent logs an event of the manager's.
func logEvent(log hclog.Logger, e proto.Event) {
	s := e.Session
	level, ok := levels[e.Event]
	if !ok {
		level = hclog.Info
	}
	if e.Event == proto.EventFailed && s.Client != "" {
		level = hclog.Debug // attempt-failed says it, and when the next one is
	}
	var fields []any
	if s.Session != 0 {
		fields = []any{"session", s.Session, "host", s.Host, "port", s.Port}
	}
	client, endpoint, next := s.Client, s.Endpoint, ""
	if e.Client != nil {
		client = e.Client.Client
		if e.Client.NextAttempt != nil {
			next = time.Until(*e.Client.NextAttempt).Round(100 * time.Millisecond).String()
		}
	}
	if e.Outage != 0 {
		fields = append(fields, "outage", e.Outage.Round(time.Millisecond).String())
	}
	for _, f := range []struct{ name, value string }{
		{"client", client}, {"endpoint", endpoint}, {"next-attempt-in", next}, {"remote", s.Remote}, {"user", s.User}, {"stage", string(s.Stage)}, {"cause", s.Cause}, {"opaque", s.Opaque}, {"details", e.Text},
	} {
		if f.value != "" {
			fields = append(fields, f.name, printable.Quoted(f.value))
		}
	}
	log.Log(level, e.Event, fields...)
}
