package reconnect

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
)

// memoryAt returns a memory in dir, and what it logs.
func memoryAt(dir string) (*memory, *bytes.Buffer) {
	log := new(bytes.Buffer)
	return recall(filepath.Join(dir, "data", "last"), filepath.Join(dir, "run", "slots"), hclog.New(&hclog.LoggerOptions{Output: log})), log
}

func TestMemoryOutlivesTheProgram(t *testing.T) {
	dir := t.TempDir()
	noon := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	want := map[string]endpointAndSlot{
		"a":        {Last: "first"},
		"b \"\n/.": {Last: "second", slot: slot{Anchor: noon, Slot: noon.Add(time.Hour)}},
		"c":        {slot: slot{Slot: noon}},
	}
	m, log := memoryAt(dir)
	for name, k := range want {
		m.remember(name, k)
	}
	m.remember("gone", endpointAndSlot{Last: "x"})
	m.forget([]string{"a", "b \"\n/.", "c", "new"})
	m.close()
	m, _ = memoryAt(dir)
	defer m.close()
	for name, k := range want {
		if got := m.of(name); got != k {
			t.Errorf("of %s %+v is known, expected %+v", name, got, k)
		}
	}
	if len(m.known) != len(want) || log.Len() > 0 {
		t.Errorf("known are %v; logged %s", m.known, log)
	}
}

// Power fails with a file half written, and the disk brings back anything.
func TestAMemoryThatIsNotWholeIsAsNone(t *testing.T) {
	for name, text := range map[string]string{
		"empty":     "",
		"cut":       `{"a":"b`,
		"a list":    `["a"]`,
		"no string": `{"a":{"b":1}}`,
		"too large": `{"a":"` + strings.Repeat("x", maxMemory) + `"}`,
		"noise":     "\x00\xff\x00",
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "last")
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			log := new(bytes.Buffer)
			m := recall(path, "", hclog.New(&hclog.LoggerOptions{Output: log}))
			if got := m.of("a"); got != (endpointAndSlot{}) {
				t.Errorf("known is %+v", got)
			}
			if !strings.Contains(log.String(), "starting without") {
				t.Errorf("logged %q", log)
			}
			m.remember("a", endpointAndSlot{Last: "b"})
			m.close()
			m = recall(path, "", hclog.NewNullLogger())
			defer m.close()
			if got := m.of("a").Last; got != "b" {
				t.Errorf("known then is %q", got)
			}
		})
	}
}

// What has not changed is not written: the file is on flash.
func TestMemoryIsWrittenWhenItChanges(t *testing.T) {
	dir := t.TempDir()
	m, _ := memoryAt(dir)
	m.remember("a", endpointAndSlot{Last: "x"})
	m.close()
	path := filepath.Join(dir, "data", "last")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	m, _ = memoryAt(dir)
	m.known["a"] = endpointAndSlot{Last: "x"}
	m.remember("a", endpointAndSlot{Last: "x", slot: slot{Slot: time.Now()}})
	m.forget([]string{"a"})
	m.close()
	if _, err := os.Stat(path); err == nil {
		t.Error("it was written again")
	}
	if _, err := os.Stat(filepath.Join(dir, "run", "slots")); err != nil {
		t.Errorf("the slots were not: %v", err)
	}
}

// Nothing else stays in the directory, also of a writer that was ended midway.
func TestMemoryLeavesNothingBeside(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "last")
	for i := range 10 {
		if err := os.WriteFile(path+".tmp", bytes.Repeat([]byte("half of it"), 1000), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := replace(path, map[string]int{"a": i}); err != nil {
			t.Fatal(err)
		}
	}
	list, err := os.ReadDir(dir)
	if err != nil || len(list) != 1 {
		t.Errorf("left are %v, %v", list, err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != `{"a":9}`+"\n" {
		t.Errorf("the file has %q, %v", text, err)
	}
}

func TestAMemoryThatCannotBeWrittenIsLogged(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "data"), nil, 0o600); err != nil {
		t.Fatal(err) // a file in the directory's place
	}
	m, log := memoryAt(dir)
	m.remember("a", endpointAndSlot{Last: "x"})
	m.close()
	if n := strings.Count(log.String(), "saving the client"); n != 1 {
		t.Errorf("logged %s", log)
	}
	if got := m.of("a").Last; got != "x" {
		t.Errorf("this run knows %q", got)
	}
}

func TestMemoryForgetsWhoIsGone(t *testing.T) {
	m, _ := memoryAt(t.TempDir())
	defer m.close()
	for i := range 1000 {
		name := fmt.Sprint(i)
		m.remember(name, endpointAndSlot{Last: "x"})
		m.forget([]string{name})
	}
	if len(m.known) != 1 {
		t.Errorf("%d are known", len(m.known))
	}
}
