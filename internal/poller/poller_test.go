package poller

import (
	"os"
	"testing"
)

func TestReadyUntilReadOrRemoved(t *testing.T) {
	p, err := New()
	if err != nil {
		t.Fatal(err)
	}
	files := make(map[int]*os.File)
	var writers []*os.File
	for range 3 {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		defer w.Close()
		fd := int(r.Fd())
		files[fd], writers = r, append(writers, w)
		if err := p.Add(fd); err != nil {
			t.Fatal(err)
		}
	}
	ready, read, ended := make(chan int), make(chan bool), make(chan struct{})
	go func() {
		defer close(ended)
		p.Wait(func(fd int) {
			ready <- fd
			if <-read {
				_, _ = files[fd].Read(make([]byte, 1))
			}
		})
	}()
	seen := make(map[int]bool)
	for i, w := range writers {
		if _, err := w.WriteString("x"); err != nil {
			t.Fatal(err)
		}
		fd := <-ready
		read <- false // it is reported again
		if again := <-ready; again != fd {
			t.Fatalf("descriptor %d was not read, and is not reported again: %d is", fd, again)
		}
		if i == 0 {
			if err := p.Remove(fd); err != nil {
				t.Fatal(err)
			}
			read <- false // it is removed instead
		} else {
			read <- true
		}
		if seen[fd] {
			t.Errorf("descriptor %d is reported though it was read or removed", fd)
		}
		seen[fd] = true
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	<-ended
	if err := p.Add(0); err == nil {
		t.Error("a descriptor can be added to a closed poller")
	}
}
