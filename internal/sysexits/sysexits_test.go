package sysexits

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"
)

func TestCodeAndHint(t *testing.T) {
	inner := New(NoHost, "check the name", errors.New("no such host"))
	for _, tt := range []struct {
		name string
		err  error
		code int
		hint string
	}{
		{"no error", nil, OK, ""},
		{"an error without a status is the system's", fs.ErrNotExist, OSErr, ""},
		{"an error carries its own", inner, NoHost, "check the name"},
		{"a wrapped error keeps it", fmt.Errorf("calling home: %w", inner), NoHost, "check the name"},
		{"one of several joined errors is enough", errors.Join(fs.ErrClosed, inner), NoHost, "check the name"},
		{"the outermost status counts, with its own hint", New(Config, "", inner), Config, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := Code(tt.err); got != tt.code {
				t.Errorf("Code(%v) = %d, want %d", tt.err, got, tt.code)
			}
			if got := Hint(tt.err); got != tt.hint {
				t.Errorf("Hint(%v) = %q, want %q", tt.err, got, tt.hint)
			}
		})
	}
}

func TestErrorSaysAndUnwrapsItsCause(t *testing.T) {
	err := New(NoInput, "create it", fmt.Errorf("reading the defaults: %w", fs.ErrNotExist))
	if got, want := err.Error(), "reading the defaults: file does not exist"; got != want {
		t.Errorf("Error() = %q, want %q: the hint is main's to print", got, want)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		t.Error("errors.Is does not find the cause")
	}
}
