package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"callhome/internal/proto"
)

// TestAnImportIsDividedIntoRequests: a request is at most proto.MaxLine, also with more
// revoked keys than fit into one.
func TestAnImportIsDividedIntoRequests(t *testing.T) {
	var all importRequests
	for i := range 100 {
		all.entry(fmt.Sprint("d", i, ".json"), json.RawMessage(`{"id":"`+strings.Repeat("x", 1000)+`"}`))
	}
	for i := range 5000 {
		all.revoked(fmt.Sprintf("SHA256:%043d", i))
	}
	all.entry("large.json", json.RawMessage(`"`+strings.Repeat("x", importPart-2)+`"`))
	entries, revoked := 0, 0
	for n, r := range all {
		text, err := json.Marshal(r.ImportParams)
		if err != nil || len(text) > proto.MaxLine-1024 {
			t.Errorf("request %d has %d bytes, %v", n, len(text), err)
		}
		if len(r.files) != len(r.Entries) {
			t.Errorf("request %d has %d entries of %d files", n, len(r.Entries), len(r.files))
		}
		entries, revoked = entries+len(r.Entries), revoked+len(r.Revoked)
	}
	if entries != 101 || revoked != 5000 {
		t.Errorf("%d entries and %d revoked keys are sent", entries, revoked)
	}
}
