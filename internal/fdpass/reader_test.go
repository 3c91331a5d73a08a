package fdpass

import (
	"bufio"
	"errors"
	"io"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// A line at a time through a bufio.Reader, as the manager reads: the descriptor
// waits for whoever understands the line that it came with.
func TestReaderKeepsTheDescriptorOfALine(t *testing.T) {
	a, b := socketpair(t, unix.SOCK_STREAM)
	before := openDescriptors(t)
	sendRights(t, a, "plain\n")
	sendRights(t, a, "adopt\n", anyFile(t, "one"))
	r := NewReader(b)
	lines := bufio.NewReaderSize(r, 16)
	for _, want := range []struct {
		line, file string // "" for no descriptor
	}{{"plain\n", ""}, {"adopt\n", "one"}} {
		line, err := lines.ReadString('\n')
		if err != nil || line != want.line {
			t.Fatalf("read %q, %v, want %q", line, err, want.line)
		}
		// The kernel may give the descriptor with the bytes before its own
		// (unix(7)): only the line says that there is one to take.
		if want.file == "" {
			continue
		}
		f := r.Take()
		if f == nil {
			t.Fatalf("with %q comes no descriptor", line)
		}
		if text, err := io.ReadAll(f); err != nil || string(text) != want.file {
			t.Errorf("the descriptor reads %q, %v", text, err)
		}
		f.Close()
	}
	if f := r.Take(); f != nil {
		t.Errorf("a descriptor can be taken twice: %v", f)
	}
	a.Close()
	if _, err := lines.ReadByte(); err != io.EOF {
		t.Errorf("at the end: %v, want io.EOF", err)
	}
	// The sender's own file is open still, and a is closed.
	if open := openDescriptors(t); open != before {
		t.Errorf("%d descriptors are left", open-before)
	}
}

func TestReaderRefusesASecondDescriptor(t *testing.T) {
	for _, tt := range []struct {
		name  string
		files []int // how many come with each message
		want  error
	}{
		{"two with one message", []int{2}, ErrMany},
		{"three with one message", []int{3}, ErrTruncated},
		{"another while one waits", []int{1, 1}, ErrMany},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, b := socketpair(t, unix.SOCK_STREAM)
			f := anyFile(t, "")
			before := openDescriptors(t)
			for _, n := range tt.files {
				files := make([]*os.File, n)
				for i := range files {
					files[i] = f
				}
				sendRights(t, a, "x", files...)
			}
			r := NewReader(b)
			var err error
			for range tt.files {
				if _, err = r.Read(make([]byte, 1)); err != nil {
					break
				}
			}
			if !errors.Is(err, tt.want) {
				t.Errorf("%v, want %v", err, tt.want)
			}
			// Nothing is left to take: after an error nobody knows what is whose.
			if f := r.Take(); f != nil {
				t.Errorf("%s can still be taken", f.Name())
				f.Close()
			}
			if open := openDescriptors(t); open != before {
				t.Errorf("%d descriptors are left", open-before)
			}
		})
	}
}

func TestReaderClosesWhatNobodyTook(t *testing.T) {
	a, b := socketpair(t, unix.SOCK_STREAM)
	f := anyFile(t, "")
	before := openDescriptors(t)
	sendRights(t, a, "x", f)
	r := NewReader(b)
	if _, err := r.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	if open := openDescriptors(t); open != before {
		t.Errorf("%d descriptors are left", open-before)
	}
}

func FuzzReader(f *testing.F) {
	f.Add([]byte{0, 0x80}, true)
	f.Add([]byte{1, 1}, true)
	f.Add([]byte{1, 0, 0x81, 2, 1}, true)
	f.Add([]byte{0x41, 3, 1}, false)
	f.Fuzz(func(t *testing.T, plan []byte, take bool) {
		file, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		a, b := socketpair(t, unix.SOCK_STREAM)
		before := openDescriptors(t)
		plan = plan[:min(len(plan), maxPlan)]
		play(t, a, file, plan)
		want, got := 0, 0
		for _, step := range plan {
			want += 1 + int(step>>7)*100
		}
		r := NewReader(b)
		buf := make([]byte, 64)
		for err == nil {
			var n int
			n, err = r.Read(buf)
			got += n
			if take {
				if f := r.Take(); f != nil {
					f.Close()
				}
			}
		}
		if err == io.EOF && got != want {
			t.Errorf("read %d bytes of %d before the end", got, want)
		}
		r.Close()
		if left := openDescriptors(t) - (before - 1); left != 0 { // a is closed
			t.Errorf("%v: %d descriptors are left", plan, left)
		}
	})
}
