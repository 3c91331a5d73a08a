package config

import (
	"fmt"
	"strings"
)

// Error is one fault of a document.
type Error struct {
	Path    string // instance-identifier of the faulty node, RFC 7951 section 6.11
	Line    int    // in the document, from 1
	Message string // the fault, and what to write instead
}

func (e Error) Error() string { return fmt.Sprintf("line %d: %s: %s", e.Line, e.Path, e.Message) }

// Errors are the faults of a document, in its order. Err returns them as an error,
// because an empty list is not a nil error.
type Errors []Error

func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, one := range e {
		lines[i] = one.Error()
	}
	return strings.Join(lines, "\n")
}

// Err returns nil where there is no fault.
func (e Errors) Err() error {
	if len(e) == 0 {
		return nil
	}
	return e
}
