package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"callhome/internal/nms/registry"
	"callhome/internal/nms/sshtest"
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

// TestAnExportIsAWholeCopy: the files of an earlier one do not bring back with an import
// what was removed or undone since.
func TestAnExportIsAWholeCopy(t *testing.T) {
	dir := t.TempDir()
	entry := func(id string) string {
		return `{"id": "` + id + `", "host-keys": ["` + sshtest.Line(sshtest.NewSigner(t).PublicKey()) + `"]}`
	}
	for name, text := range map[string]string{
		"kept.json": entry("kept"), "old.json": entry("old"), "renamed.json": entry("other"), ".hidden.json": entry("hidden"),
		"package.json": `{"name": "not an entry"}`, "README": "text", registry.RevokedFile: "SHA256:undone\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	written := map[string]bool{"kept.json": true}
	stderr, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	defer stderr.Close()
	was := os.Stderr
	os.Stderr = stderr
	err = errors.Join(prune(dir, written, false), prune(dir, nil, true))
	os.Stderr = was
	said, _ := os.ReadFile(stderr.Name())
	if err != nil || !strings.Contains(string(said), "2 files of devices that the registry does not have") || !strings.Contains(string(said), "--prune removes them, unless the registry is empty: old.json renamed.json") || !strings.Contains(string(said), "3 files") {
		t.Errorf("%v, %q", err, said)
	}
	if err := prune(dir, written, true); err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(dir, registry.RevokedFile)
	if err := exportRevoked(list, nil); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(list); err != nil || len(text) != 0 {
		t.Errorf("the list of revoked keys is %q, %v", text, err)
	}
	if err := exportRevoked(filepath.Join(dir, "absent"), nil); err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	for i := range left {
		left[i] = filepath.Base(left[i])
	}
	if want := []string{"README", "kept.json", "package.json", registry.RevokedFile}; err != nil || !slices.Equal(slices.DeleteFunc(left, func(n string) bool { return n == ".hidden.json" }), want) {
		t.Errorf("the directory has %q, %v", left, err)
	}
}
