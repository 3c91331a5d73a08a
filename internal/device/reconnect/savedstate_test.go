package reconnect

import (
	"bytes"
	"callhome/internal/atomicfile"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
)

// savedStateIn returns the saved state in dir, and its log.
func savedStateIn(dir string) (*savedState, *bytes.Buffer) {
	log := new(bytes.Buffer)
	return loadSavedState(filepath.Join(dir, "data", "last"), filepath.Join(dir, "run", "slots"), hclog.New(&hclog.LoggerOptions{Output: log})), log
}

func TestSavedStateOutlivesTheProgram(t *testing.T) {
	dir := t.TempDir()
	noon := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	want := map[string]endpointAndSlot{
		"a":        {Last: "first"},
		"b \"\n/.": {Last: "second", slot: slot{Anchor: noon, Slot: noon.Add(time.Hour)}},
		"c":        {slot: slot{Slot: noon}},
	}
	saved, log := savedStateIn(dir)
	for name, state := range want {
		saved.set(name, state)
	}
	saved.set("gone", endpointAndSlot{Last: "x"})
	saved.keepOnly([]string{"a", "b \"\n/.", "c", "new"})
	saved.close()
	saved, _ = savedStateIn(dir)
	defer saved.close()
	for name, state := range want {
		if got := saved.of(name); got != state {
			t.Errorf("state of %s is %+v, expected %+v", name, got, state)
		}
	}
	if len(saved.byClient) != len(want) || log.Len() > 0 {
		t.Errorf("the state is %v; logged %s", saved.byClient, log)
	}
}

// After a power failure a file can be cut, or hold other data.
func TestDamagedSavedStateIsEmpty(t *testing.T) {
	for name, text := range map[string]string{
		"empty":     "",
		"cut":       `{"a":"b`,
		"a list":    `["a"]`,
		"no string": `{"a":{"b":1}}`,
		"too large": `{"a":"` + strings.Repeat("x", maxSavedState) + `"}`,
		"noise":     "\x00\xff\x00",
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "last")
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			log := new(bytes.Buffer)
			saved := loadSavedState(path, "", hclog.New(&hclog.LoggerOptions{Output: log}))
			if got := saved.of("a"); got != (endpointAndSlot{}) {
				t.Errorf("the state is %+v", got)
			}
			if !strings.Contains(log.String(), "unreadable, starting without") {
				t.Errorf("logged %q", log)
			}
			saved.set("a", endpointAndSlot{Last: "b"})
			saved.close()
			saved = loadSavedState(path, "", hclog.NewNullLogger())
			defer saved.close()
			if got := saved.of("a").Last; got != "b" {
				t.Errorf("then the last endpoint is %q", got)
			}
		})
	}
}

// Unchanged state is not written: the file is on flash.
func TestSavedStateIsWrittenOnlyWhenItChanges(t *testing.T) {
	dir := t.TempDir()
	saved, _ := savedStateIn(dir)
	saved.set("a", endpointAndSlot{Last: "x"})
	saved.close()
	path := filepath.Join(dir, "data", "last")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	saved, _ = savedStateIn(dir)
	saved.byClient["a"] = endpointAndSlot{Last: "x"}
	saved.set("a", endpointAndSlot{Last: "x", slot: slot{Slot: time.Now()}})
	saved.keepOnly([]string{"a"})
	saved.close()
	if _, err := os.Stat(path); err == nil {
		t.Error("it was written again")
	}
	if _, err := os.Stat(filepath.Join(dir, "run", "slots")); err != nil {
		t.Errorf("the slots were not written: %v", err)
	}
}

// No other file stays in the directory, not even that of an interrupted writer.
func TestReplaceLeavesNoTemporaryFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "last")
	for i := range 10 {
		if err := os.WriteFile(atomicfile.Temporary(path), bytes.Repeat([]byte("half of it"), 1000), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := replace(path, map[string]int{"a": i}); err != nil {
			t.Fatal(err)
		}
	}
	list, err := os.ReadDir(dir)
	if err != nil || len(list) != 1 {
		t.Errorf("the directory has %v, %v", list, err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != `{"a":9}`+"\n" {
		t.Errorf("the file has %q, %v", text, err)
	}
}

func TestAFailedWriteOfSavedStateIsLogged(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "data"), nil, 0o600); err != nil {
		t.Fatal(err) // a file in the directory's place
	}
	saved, log := savedStateIn(dir)
	saved.set("a", endpointAndSlot{Last: "x"})
	saved.close()
	if n := strings.Count(log.String(), "saving the state of the clients"); n != 1 {
		t.Errorf("logged %s", log)
	}
	if got := saved.of("a").Last; got != "x" {
		t.Errorf("the last endpoint in this run is %q", got)
	}
}

func TestRemovedClientsAreDroppedFromSavedState(t *testing.T) {
	saved, _ := savedStateIn(t.TempDir())
	defer saved.close()
	for i := range 1000 {
		name := fmt.Sprint(i)
		saved.set(name, endpointAndSlot{Last: "x"})
		saved.keepOnly([]string{name})
	}
	if len(saved.byClient) != 1 {
		t.Errorf("%d clients are saved", len(saved.byClient))
	}
}

// Whatever is in the files, the program starts, and what it then writes is read again.
func FuzzSavedState(f *testing.F) {
	for _, s := range []string{`{"a":"first"}`, `{"a":{"anchor":"2026-11-22T12:00:00Z","slot":"9999-12-31T23:59:59Z","due":true}}`, `{"a":null}`, "", "\x00"} {
		f.Add([]byte(s), []byte(s))
	}
	f.Fuzz(func(t *testing.T, last, slots []byte) {
		dir := t.TempDir()
		for name, text := range map[string][]byte{"data/last": last, "run/slots": slots} {
			path := filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		saved, _ := savedStateIn(dir)
		saved.set("new", endpointAndSlot{Last: "x", slot: slot{Slot: time.Unix(1, 0).UTC()}})
		want := len(saved.byClient)
		for _, state := range saved.byClient {
			if state == (endpointAndSlot{}) {
				want-- // it is not written
			}
		}
		saved.close()
		again, log := savedStateIn(dir)
		defer again.close()
		if len(again.byClient) != want || log.Len() > 0 {
			t.Errorf("%q and %q: wrote %v, read %v; logged %s", last, slots, saved.byClient, again.byClient, log)
		}
	})
}
