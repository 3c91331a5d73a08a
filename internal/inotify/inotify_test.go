package inotify

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func open(t *testing.T, mask uint32) (*Dir, string) {
	t.Helper()
	dir := t.TempDir()
	d, err := Open(dir, mask)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d, dir
}

func write(t *testing.T, name string) {
	t.Helper()
	if err := os.WriteFile(name, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func drained(d *Dir) (all []Event) {
	d.Drain(func(e Event) { all = append(all, e) })
	return all
}

// Events of names of all lengths come whole and in order, also where they are more
// than one read takes.
func TestEventsComeInOrder(t *testing.T) {
	d, dir := open(t, unix.IN_CREATE)
	var want []Event
	for i := range 400 {
		name := strings.Repeat("n", i%251+1) + fmt.Sprintf("%03d", i)
		write(t, filepath.Join(dir, name))
		want = append(want, Event{unix.IN_CREATE, name})
	}
	if got := drained(d); !slices.Equal(got, want) {
		t.Errorf("read %d events, expected %d: %v", len(got), len(want), got)
	}
	if got := drained(d); got != nil {
		t.Errorf("read %v again", got)
	}
}

// A buffer may begin at any address.
func TestParseAtAnyAddress(t *testing.T) {
	want := []Event{{unix.IN_MODIFY, "1.log"}, {unix.IN_Q_OVERFLOW, ""}, {unix.IN_CLOSE_NOWRITE, "sixteen-bytes.end"}}
	for offset := range 8 {
		b := make([]byte, offset, 256)
		for _, e := range want {
			padded := (len(e.Name) + unix.SizeofInotifyEvent - 1) / unix.SizeofInotifyEvent * unix.SizeofInotifyEvent
			for _, v := range []uint32{1, e.Mask, 0, uint32(padded)} {
				b = binary.NativeEndian.AppendUint32(b, v)
			}
			b = append(b, e.Name+strings.Repeat("\x00", padded-len(e.Name))...)
		}
		var got []Event
		parse(b[offset:], func(e Event) { got = append(got, e) })
		if !slices.Equal(got, want) {
			t.Errorf("at %d it reads %v, expected %v", offset, got, want)
		}
	}
}

func TestOverflowIsReported(t *testing.T) {
	d, dir := open(t, unix.IN_ATTRIB)
	text, err := os.ReadFile("/proc/sys/fs/inotify/max_queued_events")
	if err != nil {
		t.Fatal(err)
	}
	most, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	files := []string{filepath.Join(dir, "a"), filepath.Join(dir, "b")}
	write(t, files[0])
	write(t, files[1])
	for i := range most + 2 { // by turns: the kernel merges equal neighbours
		if err := os.Chmod(files[i%2], os.FileMode(0o600+i%3)); err != nil {
			t.Fatal(err)
		}
	}
	all := drained(d)
	if len(all) != most+1 || !all[most].Overflow() || all[most-1].Overflow() {
		t.Errorf("%d events, the last is %+v, expected %d and an overflow", len(all), all[len(all)-1], most)
	}
}

func TestFollowEndsWithClose(t *testing.T) {
	d, dir := open(t, Changes)
	seen, ended := make(chan Event, 16), make(chan struct{})
	go func() {
		d.Follow(func(e Event) { seen <- e })
		close(ended)
	}()
	write(t, filepath.Join(dir, "edge7.json"))
	select {
	case e := <-seen:
		if want := (Event{unix.IN_CREATE, "edge7.json"}); e != want {
			t.Errorf("it follows %+v, expected %+v", e, want)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("no event of a new file")
	}
	d.Close()
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Fatal("Follow goes on after Close")
	}
}

func TestOnlyADirectoryIsWatched(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	write(t, file)
	for name, want := range map[string]string{file: "not a directory", file + "s": "no such file or directory"} {
		if d, err := Open(name, Changes); err == nil {
			d.Close()
			t.Errorf("%q is watched", name)
		} else if !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), strconv.Quote(name)) {
			t.Errorf("%q fails with %q, expected %q", name, err, want)
		}
	}
}
