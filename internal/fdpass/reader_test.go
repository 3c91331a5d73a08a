package fdpass

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// Lines through a bufio.Reader, as the manager reads: each has the descriptor
// that came with it, however many came before the first one was read.
func TestReaderKeepsTheDescriptorOfALine(t *testing.T) {
	type line struct{ text, file string } // "" for no descriptor
	for _, tt := range []struct {
		name  string
		lines []line
	}{
		{"one", []line{{"adopt\n", "one"}}},
		{"behind one without", []line{{"plain\n", ""}, {"adopt\n", "one"}, {"plain\n", ""}}},
		{"in a row", []line{{"adopt\n", "one"}, {"adopt\n", "two"}, {"plain\n", ""}, {"adopt\n", "three"}, {"adopt\n", "four"}}},
		{"longer than what is read at a time", []line{{"plain\n", ""}, {"adopt that host over there\n", "one"}, {"adopt another one, please\n", "two"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, b := socketpair(t, unix.SOCK_STREAM)
			before := openDescriptors(t)
			for _, l := range tt.lines {
				var files []*os.File
				if l.file != "" {
					files = append(files, anyFile(t, l.file))
				}
				sendRights(t, a, l.text, files...)
				for _, f := range files {
					f.Close() // it is on its way
				}
			}
			r := NewReader(b)
			lines := bufio.NewReaderSize(r, 16)
			end := int64(0)
			for _, want := range tt.lines {
				got, err := lines.ReadString('\n')
				if err != nil || got != want.text {
					t.Fatalf("read %q, %v, want %q", got, err, want.text)
				}
				end += int64(len(got))
				f, err := r.Take(end)
				if err != nil || (f != nil) != (want.file != "") {
					t.Fatalf("with %q came %v, %v, want %q", got, f, err, want.file)
				}
				if f == nil {
					continue
				}
				if text, err := io.ReadAll(f); err != nil || string(text) != want.file {
					t.Errorf("the descriptor of %q reads %q, %v, want %q", got, text, err, want.file)
				}
				f.Close()
				if f, err := r.Take(end); f != nil || err != nil {
					t.Errorf("a descriptor can be taken twice: %v, %v", f, err)
				}
			}
			a.Close()
			if _, err := lines.ReadByte(); err != io.EOF {
				t.Errorf("at the end: %v, want io.EOF", err)
			}
			if open := openDescriptors(t); open != before-1 { // a
				t.Errorf("%d descriptors are left", open-before+1)
			}
		})
	}
}

// Two that come with one message in two writes are as many as in one.
func TestReaderRefusesTwoInOneLine(t *testing.T) {
	a, b := socketpair(t, unix.SOCK_STREAM)
	f := anyFile(t, "")
	before := openDescriptors(t)
	sendRights(t, a, "ad", f)
	sendRights(t, a, "opt\n", f)
	r := NewReader(b)
	lines := bufio.NewReader(r)
	if line, err := lines.ReadString('\n'); err != nil || line != "adopt\n" {
		t.Fatalf("read %q, %v", line, err)
	}
	if f, err := r.Take(6); f != nil || !errors.Is(err, ErrMany) {
		t.Errorf("got %v, %v, want %v", f, err, ErrMany)
	}
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
		{"one after another, none taken", []int{1, 1, 1}, ErrMany},
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
			// Nothing is left to take: after an error the owner of a descriptor is not known.
			if f, err := r.Take(100); f != nil || err != nil {
				t.Errorf("there is still %v, %v", f, err)
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

// Who hands a socket over does not decide how long our closing it takes.
func TestASocketThatLingersDoesNotHere(t *testing.T) {
	a, b := socketpair(t, unix.SOCK_STREAM)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.(*net.TCPConn).SetLinger(100000); err != nil {
		t.Fatal(err)
	}
	sock, err := conn.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	defer sock.Close()
	sendRights(t, a, "x", sock)
	_, got, err := Recv(b, make([]byte, 1))
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	if linger, err := unix.GetsockoptLinger(int(got.Fd()), unix.SOL_SOCKET, unix.SO_LINGER); err != nil || linger.Onoff != 0 {
		t.Errorf("SO_LINGER is %+v, %v", linger, err)
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
				if f, _ := r.Take(int64(got)); f != nil {
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
