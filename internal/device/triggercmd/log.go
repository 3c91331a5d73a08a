package triggercmd

import (
	"os"

	"callhome/internal/device/settings"
	"callhome/internal/logging"
	"callhome/internal/sysexits"
)

// newLogger returns the logger that s configures.
func newLogger(s *settings.Settings) (*logging.Logger, error) {
	return logging.New(logging.Options{Name: "callhome-trigger", Format: s.LogFormat, Level: s.LogLevel, Syslog: s.Syslog, NoTime: !s.Syslog})
}

// report logs a failure as one line and returns its exit status. s is nil where
// the settings could not be loaded.
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
