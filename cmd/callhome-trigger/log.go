package main

import (
	"fmt"
	"log/syslog"
	"os"

	"callhome/internal/settings"
	"callhome/internal/sysexits"

	"github.com/hashicorp/go-hclog"
)

// newLogger returns the logger that s asks for.
func newLogger(s *settings.Settings) (hclog.Logger, error) {
	options := &hclog.LoggerOptions{
		Name:       "callhome-trigger",
		Level:      hclog.LevelFromString(s.LogLevel),
		JSONFormat: s.LogFormat == "json",
		// A person at a terminal knows the time, and syslog adds its own.
		DisableTime: s.LogFormat != "json",
	}
	if s.Syslog {
		w, err := syslog.New(syslog.LOG_DAEMON|syslog.LOG_INFO, "callhome-trigger")
		if err != nil {
			return nil, sysexits.New(sysexits.OSErr, "leave out --syslog where no syslog runs", fmt.Errorf("logging to syslog: %w", err))
		}
		options.Output = &syslogWriter{w}
	}
	return hclog.New(options), nil
}

// syslogWriter gives each line the severity of its level.
type syslogWriter struct{ w *syslog.Writer }

func (s *syslogWriter) Write(p []byte) (int, error) { return len(p), s.w.Info(string(p)) }

// LevelWrite is what hclog calls.
func (s *syslogWriter) LevelWrite(level hclog.Level, p []byte) (int, error) {
	write := map[hclog.Level]func(string) error{
		hclog.Debug: s.w.Debug, hclog.Warn: s.w.Warning, hclog.Error: s.w.Err,
	}[level]
	if write == nil {
		write = s.w.Info
	}
	return len(p), write(string(p))
}

// report logs a failure as one line and returns its exit status. s is nil
// where the settings themselves are at fault.
func report(s *settings.Settings, err error) int {
	if err == nil {
		return sysexits.OK
	}
	if s == nil {
		s = &settings.Settings{LogLevel: "warn", LogFormat: "text"}
		if f := os.Getenv("CALLHOME_LOG_FORMAT"); f == "json" {
			s.LogFormat = f
		}
	}
	log, logErr := newLogger(s)
	if logErr != nil {
		s.Syslog = false
		log, _ = newLogger(s)
	}
	code, hint := sysexits.Code(err), sysexits.Hint(err)
	if s.LogFormat == "json" {
		log.Error(err.Error(), "host", s.Host, "port", s.Port, "hint", hint, "exit", code)
		return code
	}
	line := err.Error()
	if hint != "" {
		line += "; " + hint
	}
	log.Error(line)
	return code
}
