package daemon

import (
	"os"
	"testing"
)

func TestTheLastDescriptorsAreKept(t *testing.T) {
	f, err := os.Open("/")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd := uint64(f.Fd())
	for limit, want := range map[uint64]bool{fd + 1: true, fd + Kept: true, fd + Kept + 1: false} {
		if got := isLast(f, Kept, limit); got != want {
			t.Errorf("with a limit of %d descriptor %d is one of the last %d: %v", limit, fd, Kept, got)
		}
	}
	if IsKept(f, Kept) && Descriptors() > 1000 {
		t.Errorf("descriptor %d of %d is kept", fd, Descriptors())
	}
	f.Close()
	if IsKept(f, Kept) {
		t.Error("a closed file has a descriptor")
	}
}
