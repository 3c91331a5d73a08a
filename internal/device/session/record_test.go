package session

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"callhome/internal/device/process"
	"callhome/internal/device/sshdlog"
	"callhome/internal/proto"
)

func sample(id int) *record {
	return &record{Version: recordVersion, Process: process.Identity{PID: 100, StartTime: 5}, Offset: 7,
		SessionInfo: proto.SessionInfo{Session: id, State: proto.StateServing, Host: "nms", Port: 4334, User: "netconf", Since: stamp(), PID: 100}}
}

func TestARecordIsReadAsItWasWritten(t *testing.T) {
	dir := t.TempDir()
	r := sample(3)
	if err := r.write(dir); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(recordPath(dir, 3))
	if err != nil {
		t.Fatal(err)
	}
	got, err := parseRecord(data, 3)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, r) {
		t.Errorf("wrote %+v, read %+v", r, got)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".new-*")); left != nil {
		t.Errorf("left over: %v", left)
	}
}

// Files that cannot be removed when their session ends are removed when another one
// begins or ends.
func TestFilesAreRemovedLater(t *testing.T) {
	for _, next := range []func(*Env) error{
		func(e *Env) error { return e.remove(2) },
		func(e *Env) error {
			log, err := New(e, 2, proto.CallParams{}, "manager", Owner{}).openLog()
			if err == nil {
				err = errors.Join(log.Close(), e.remove(2))
			}
			return err
		},
	} {
		env, _ := newEnv(t)
		stuck := filepath.Join(logPath(env.Dir, 1), "stuck") // what cannot be removed here is a directory with a file
		if err := os.MkdirAll(stuck, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := env.remove(1); err == nil {
			t.Error("the log was removed")
		}
		if err := os.Remove(stuck); err != nil {
			t.Fatal(err)
		}
		if err := next(env); err != nil {
			t.Error(err)
		}
		if left, err := os.ReadDir(env.Dir); err != nil || len(left) != 0 {
			t.Errorf("left over: %v, %v", left, err)
		}
	}
}

// The first line of a log is the manager's only where it wrote one, and says only what
// was known before sshd started.
func TestTheHeadOfALog(t *testing.T) {
	env, _ := newEnv(t)
	s := New(env, 1, proto.CallParams{Host: "nms", Port: 4334}, "manager", Owner{Client: "c", Endpoint: "e", Config: "x"})
	s.rec.Nonce = "1.n"
	log, err := s.openLog()
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	head := headOf(logPath(env.Dir, 1), 1)
	if head == nil || head.Client != "c" || head.Endpoint != "e" || head.Config != "x" || head.Nonce != "1.n" || head.Offset != s.rec.Offset || head.Offset == 0 {
		t.Errorf("got %+v", head)
	}
	forged := logHead + `{"session":2,"client":"c","user":"root","uid":0,"subsystem-process":{"pid":1,"start-time":5},"orderly":true,"claims":[{"user":"x"}]}` + "\n"
	for _, mode := range []os.FileMode{0o400, 0o644} {
		path := logPath(env.Dir, 2)
		if err := errors.Join(os.WriteFile(path, []byte(forged), 0o600), os.Chmod(path, headMode)); err != nil {
			t.Fatal(err)
		}
		if head := headOf(path, 2); head == nil || head.Subsystem.PID != 0 || head.User != "" || head.Orderly || head.Claims != nil {
			t.Errorf("believed %+v", head)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if head := headOf(path, 2); head != nil {
			t.Errorf("a log of mode %o has the head %+v", mode, head)
		}
	}
}

func TestAnInvalidRecordIsRefused(t *testing.T) {
	whole, err := json.Marshal(sample(3))
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string]string{
		"empty":             "",
		"half written":      string(whole[:len(whole)/2]),
		"an older version":  strings.Replace(string(whole), `"version":1`, `"version":0`, 1),
		"another session's": strings.Replace(string(whole), `"session":3`, `"session":4`, 1),
		"no process":        strings.Replace(string(whole), `"start-time":5`, `"start-time":0`, 1),
		"init":              strings.Replace(string(whole), `"process":{"pid":100`, `"process":{"pid":1`, 1),
		"before the start":  strings.Replace(string(whole), `"offset":7`, `"offset":-7`, 1),
		"too large":         string(whole) + strings.Repeat(" ", maxRecord),
	} {
		if r, err := parseRecord([]byte(data), 3); err == nil {
			t.Errorf("%s: parsed as %+v", name, r)
		}
	}
}

func FuzzParseRecord(f *testing.F) {
	whole, _ := json.Marshal(sample(3))
	f.Add(whole)
	f.Add([]byte(`{"version":1,"session":3,"process":{"pid":2,"start-time":1}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := parseRecord(data, 3)
		if err == nil && (r.Session != 3 || r.Process.PID <= 1 || r.Offset < 0) {
			t.Fatalf("%q was parsed as %+v", data, r)
		}
	})
}

func TestNumbersAreNotUsedTwice(t *testing.T) {
	dir := t.TempDir()
	for want := 1; want <= 12; want++ {
		if got, err := Next(dir); err != nil || got != want {
			t.Fatalf("Next: %d, %v; expected %d", got, err, want)
		}
	}
	// The file "last" is damaged, a session's files exist: continue above them.
	if err := sample(40).write(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "last"), []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := Next(dir); err != nil || got != 41 {
		t.Errorf("Next: %d, %v; expected 41", got, err)
	}
	if got, err := Next(dir); err != nil || got != 42 {
		t.Errorf("Next: %d, %v; expected 42", got, err)
	}
}

func TestALogIsReadLineByLineAsItGrows(t *testing.T) {
	name := filepath.Join(t.TempDir(), "1.log")
	w, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	log := &logFile{file: f}
	read := func() (kinds []sshdlog.Kind) {
		t.Helper()
		lines, _, err := log.read()
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range lines {
			kinds = append(kinds, l.Kind)
		}
		return kinds
	}
	write := func(s string) {
		t.Helper()
		if _, err := w.WriteString(s); err != nil {
			t.Fatal(err)
		}
	}
	write(lineConnected[:20])
	if got := read(); got != nil {
		t.Errorf("half a line was read: %v", got)
	}
	write(lineConnected[20:] + "\r\n" + lineAccepted + "\r\n" + lineSubsystem[:9])
	if got := read(); len(got) != 2 || got[0] != sshdlog.Connected || got[1] != sshdlog.Authenticated {
		t.Errorf("read %v", got)
	}
	write(lineSubsystem[9:] + "\n")
	if got := read(); len(got) != 1 || got[0] != sshdlog.Subsystem {
		t.Errorf("read %v", got)
	}
	// A line longer than the buffer is read in pieces and does not block the rest.
	write(strings.Repeat("x", 3*maxLine) + "\n" + lineGone + "\n")
	got := read()
	if len(got) < 2 || got[len(got)-1] != sshdlog.Closed {
		t.Errorf("read %v", got)
	}
}
