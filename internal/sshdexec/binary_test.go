package sshdexec

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// program returns a program with these segments, in the given class and order.
func program(wide bool, order binary.ByteOrder, segments ...segment) []byte {
	out := append([]byte("\x7fELF"), 1, 1, 1)
	header, entry := 52, 32
	if wide {
		out[4], header, entry = 2, 64, 56
	}
	if order == binary.BigEndian {
		out[5] = 2
	}
	out = append(out, make([]byte, header-len(out)+entry*len(segments))...)
	number := func(at, at64 int, value int) {
		if wide {
			order.PutUint64(out[at64:], uint64(value))
		} else {
			order.PutUint32(out[at:], uint32(value))
		}
	}
	size, count, flags := 42, 44, 24
	if wide {
		size, count, flags = 54, 56, 4
	}
	number(28, 32, header)
	order.PutUint16(out[size:], uint16(entry))
	order.PutUint16(out[count:], uint16(len(segments)))
	for i, s := range segments {
		at := header + i*entry
		order.PutUint32(out[at:], 1)
		order.PutUint32(out[at+flags:], s.flags)
		number(at+4, at+8, len(out))
		number(at+16, at+32, len(s.text))
		out = append(out, s.text...)
	}
	return out
}

type segment struct {
	flags uint32
	text  string
}

func TestTheKeywordIsSearchedInTheConstants(t *testing.T) {
	const execute, write, read = 1, 2, 4
	path := filepath.Join(t.TempDir(), "sshd")
	long := string(bytes.Repeat([]byte{'p'}, 100<<10))
	for _, tt := range []struct {
		name     string
		segments []segment
		want     bool
	}{
		{"in the constants", []segment{{read, "x"}, {read | execute, "x"}, {read, long + "pamservicename" + long}}, true},
		{"in none", []segment{{read, long}, {read | execute, "x"}}, false},
		{"in the code only", []segment{{read, long}, {read | execute, "pamservicename"}}, false},
		{"constants and code together", []segment{{read | execute, long + "pamservicename"}, {read | write, ""}}, true},
	} {
		for _, wide := range []bool{false, true} {
			for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
				if err := os.WriteFile(path, program(wide, order, tt.segments...), 0o600); err != nil {
					t.Fatal(err)
				}
				if got, isProgram := inspect(path); got != tt.want || !isProgram {
					t.Errorf("%s, 64 bits %v, %v: got %v, a program: %v", tt.name, wide, order, got, isProgram)
				}
			}
		}
	}
}

func TestAWordAcrossTwoReadsIsFound(t *testing.T) {
	word := []byte("word")
	for before := range 40 {
		text := slices.Concat(bytes.Repeat([]byte{'w'}, before), word, []byte("rest"))
		if !contains(iotest.OneByteReader(bytes.NewReader(text)), make([]byte, 16), word) {
			t.Errorf("not found after %d bytes", before)
		}
	}
	if contains(bytes.NewReader([]byte("wor")), make([]byte, 16), word) {
		t.Error("found where it is not")
	}
}

func FuzzConstants(f *testing.F) {
	f.Add(program(true, binary.LittleEndian, segment{4, "x"}))
	f.Add(program(false, binary.BigEndian, segment{4, "x"}, segment{5, "y"}))
	f.Fuzz(func(_ *testing.T, head []byte) { constants(head) })
}

// What was found is remembered for later processes, by the file's identity.
func TestInspectRemembersWhatItFound(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sshd")
	inspectAgain := func() bool {
		inspected.file = binaryID{} // as in a new process
		found, isProgram := inspect(path)
		if !isProgram {
			t.Error("not a program")
		}
		return found
	}
	for _, tt := range []struct {
		text string
		want bool
	}{{"\x7fELF ... usepam", false}, {"\x7fELF ... pamservicename", true}} {
		if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := inspectAgain(); got != tt.want {
			t.Fatalf("%q: %v", tt.text, got)
		}
		was, err := os.ReadFile(foundFile)
		if err != nil {
			t.Fatal(err)
		}
		other := map[bool]string{true: string(PAMByName), false: string(PAMByOption)}[tt.want]
		fields := strings.Fields(string(was))
		changed := strings.Join(append(fields[:len(fields)-1], other), " ") + "\n"
		if err := os.WriteFile(foundFile, []byte(changed), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := inspectAgain(); got == tt.want {
			t.Errorf("%q: searched again", tt.text)
		}
		if err := os.WriteFile(foundFile, []byte("half a li"), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := inspectAgain(); got != tt.want {
			t.Errorf("%q beside an unreadable memory: %v", tt.text, got)
		}
	}
}
