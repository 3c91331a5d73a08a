// Package logging makes the programs' own logger, the same way for each: hclog
// as text or JSON, to stderr, to a file that can be opened again, or to syslog.
// It knows nothing of what is logged; sshd's log is sshdexec's.
package logging

import (
	"fmt"
	"log/syslog"
	"os"
	"sync"

	"callhome/internal/sysexits"

	"github.com/hashicorp/go-hclog"
)

// Options say how to log.
type Options struct {
	Name   string // of the program
	Format string // "text" or "json"
	Level  string // "debug", "info", "warn" or "error"
	Syslog bool   // facility daemon, instead of stderr
	File   string // instead of stderr; "" for none
	// NoTime leaves the time out of text lines, for a reader who knows it.
	NoTime bool
}

// Logger is an hclog.Logger whose file can be opened again.
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

// Reopen opens the log's file again, after it was renamed (logrotate(8)). A log
// that is no file has nothing to open.
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
		return fmt.Errorf("opening the log: %w", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.f != nil {
		w.f.Close()
	}
	w.f = f
	return nil
}

// Write is io.Writer's.
func (w *file) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.f.Write(p)
}

// syslogWriter gives each line the severity of its level.
type syslogWriter struct{ w *syslog.Writer }

// Write is for lines whose level hclog does not tell.
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
