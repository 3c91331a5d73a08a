// Package logging makes the logger of the three programs: hclog as text or JSON,
// to stderr, to a file that can be reopened, or to syslog. Their mains use it. It
// never reads the log of sshd, which is package sshdexec's.
package logging

import (
	"fmt"
	"log/syslog"
	"os"
	"sync"

	"callhome/internal/sysexits"

	"github.com/hashicorp/go-hclog"
)

// Options choose the format, the level and the destination.
type Options struct {
	Name   string // of the program
	Format string // "text" or "json"
	Level  string // "debug", "info", "warn" or "error"
	Syslog bool   // facility daemon, instead of stderr
	File   string // instead of stderr; "" for stderr
	// NoTime leaves the time out of text lines, for a log that adds its own.
	NoTime bool
}

// Logger is an hclog.Logger whose file can be reopened.
type Logger struct {
	hclog.Logger
	file *file
}

// New returns a logger. Errors carry their exit status.
func New(o Options) (*Logger, error) {
	l := &Logger{}
	options := &hclog.LoggerOptions{
		Name: o.Name, Level: hclog.LevelFromString(o.Level), JSONFormat: o.Format == "json",
		DisableTime: o.NoTime && o.Format != "json",
	}
	switch {
	case o.Syslog:
		w, err := syslog.New(syslog.LOG_DAEMON|syslog.LOG_INFO, o.Name)
		if err != nil {
			return nil, sysexits.New(sysexits.OSErr, "leave out --syslog where no syslog runs", fmt.Errorf("logging to syslog: %w", err))
		}
		options.Output = &syslogWriter{w}
	case o.File != "":
		l.file = &file{path: o.File}
		if err := l.file.open(); err != nil {
			return nil, sysexits.New(sysexits.OSErr, "", err)
		}
		options.Output = l.file
	}
	l.Logger = hclog.New(options)
	return l, nil
}

// Reopen opens the log file again after it was renamed (logrotate(8)). It does
// nothing where the log is not a file.
func (l *Logger) Reopen() error {
	if l.file == nil {
		return nil
	}
	return l.file.open()
}

// file is an append-only file.
type file struct {
	path string
	mu   sync.Mutex // guards f
	f    *os.File
}

func (w *file) open() error {
	f, err := os.OpenFile(w.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		return fmt.Errorf("opening the log file: %w", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.f != nil {
		w.f.Close()
	}
	w.f = f
	return nil
}

// Write implements io.Writer.
func (w *file) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.f.Write(p)
}

// syslogWriter gives each line the severity of its level.
type syslogWriter struct{ w *syslog.Writer }

// Write takes lines that hclog passes without a level.
func (s *syslogWriter) Write(p []byte) (int, error) { return len(p), s.w.Info(string(p)) }

// LevelWrite implements hclog.LevelWriter.
func (s *syslogWriter) LevelWrite(level hclog.Level, p []byte) (int, error) {
	write := map[hclog.Level]func(string) error{
		hclog.Debug: s.w.Debug, hclog.Warn: s.w.Warning, hclog.Error: s.w.Err,
	}[level]
	if write == nil {
		write = s.w.Info
	}
	return len(p), write(string(p))
}
