package sshdexec

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"

	"callhome/internal/atomicfile"

	"golang.org/x/sys/unix"
)

// pamKeyword is in the constants of each sshd that has the option PAMServiceName. The
// version is no substitute: distributions add the option to older ones.
var pamKeyword = []byte("pamservicename")

// inspected is what inspect found last.
var inspected struct {
	mu                  sync.Mutex
	file                binaryID // guarded by mu, as what follows
	byOption, isProgram bool
}

// binaryID identifies a version of a file.
type binaryID struct {
	path     string
	dev, ino uint64
	size     int64
	modified syscall.Timespec
	changed  syscall.Timespec
}

// inspect reports whether a file is a program, and whether it has the keyword
// PAMServiceName. It searches the file once for all calls, until the file changes.
func inspect(path string) (byOption, isProgram bool) {
	var st syscall.Stat_t
	if syscall.Stat(path, &st) != nil {
		return false, false
	}
	id := binaryID{path, uint64(st.Dev), st.Ino, st.Size, st.Mtim, st.Ctim}
	inspected.mu.Lock()
	defer inspected.mu.Unlock()
	if inspected.file != id {
		inspected.byOption, inspected.isProgram = recall(id)
		inspected.file = id
	}
	return inspected.byOption, inspected.isProgram
}

// foundFile has what inspectBinary found last in this machine's sshd: callhome-trigger is
// a new process at each call, and to read it takes 0.02 ms. Tests replace it.
var foundFile = "/run/callhome/sshd-found"

// recall returns what foundFile has of a file, else what inspectBinary finds, which it
// writes there.
func recall(id binaryID) (byOption, isProgram bool) {
	line := func(how PAM) string { return fmt.Sprintln(id, how) }
	switch readOwn(foundFile) {
	case line(PAMByName):
		return false, true
	case line(PAMByOption):
		return true, true
	}
	byOption, isProgram = inspectBinary(id.path)
	how := PAMByName
	if byOption {
		how = PAMByOption
	}
	if isProgram {
		// Without it the next call searches again.
		_ = atomicfile.Write(foundFile, []byte(line(how)), atomicfile.Options{Mode: 0o644})
	}
	return byOption, isProgram
}

// readOwn returns the start of a file that root or this user owns, or "".
func readOwn(path string) string {
	f, err := Open(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return ""
	}
	defer f.Close()
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) != nil || st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return ""
	}
	buf := make([]byte, 4<<10)
	n, _ := io.ReadFull(f, buf)
	return string(buf[:n])
}

// inspectBinary is inspect without memory. To ask the program (-T) takes 5 ms, and to
// search the whole file 0.4 ms: it searches the constants only (measured: 0.2 ms).
func inspectBinary(path string) (byOption, isProgram bool) {
	f, err := Open(path, os.O_RDONLY, 0)
	if err != nil {
		return false, false
	}
	defer f.Close()
	buf := make([]byte, 32<<10)
	n, _ := f.ReadAt(buf, 0)
	head := buf[:n]
	if !bytes.HasPrefix(head, []byte("\x7fELF")) {
		return false, false
	}
	parts := constants(head)
	if len(parts) == 0 {
		info, err := f.Stat()
		if err != nil {
			return false, true
		}
		parts = []extent{{0, info.Size()}}
	}
	for _, p := range parts {
		if contains(io.NewSectionReader(f, p.offset, p.size), buf, pamKeyword) {
			return true, true
		}
	}
	return false, true
}

// extent is a part of a file.
type extent struct{ offset, size int64 }

// constants returns the parts of a program that are mapped neither writable nor
// executable (elf(5), PT_LOAD), by the first bytes of its file. There are none where
// the linker has put constants and code together.
func constants(head []byte) (parts []extent) {
	if len(head) < 64 {
		return nil
	}
	var order binary.ByteOrder = binary.LittleEndian
	if head[5] == 2 { // EI_DATA: ELFDATA2MSB
		order = binary.BigEndian
	}
	wide := head[4] == 2 // EI_CLASS: ELFCLASS64
	number := func(b []byte, offset, offset64 int) int64 {
		if wide {
			return int64(order.Uint64(b[offset64:]))
		}
		return int64(order.Uint32(b[offset:]))
	}
	start, size, count := number(head, 28, 32), order.Uint16(head[42:]), order.Uint16(head[44:]) // e_phoff, e_phentsize, e_phnum
	flags := 24
	if wide {
		size, count = order.Uint16(head[54:]), order.Uint16(head[56:])
		flags = 4
	}
	const load, readOnly = 1, 4 // PT_LOAD, PF_R
	for ; count > 0; count-- {
		if start < 0 || size < 32 || wide && size < 56 || start > int64(len(head)) || int64(len(head))-start < int64(size) {
			return nil
		}
		p := head[start:]
		if order.Uint32(p) == load && order.Uint32(p[flags:]) == readOnly {
			parts = append(parts, extent{number(p, 4, 8), number(p, 16, 32)}) // p_offset, p_filesz
		}
		start += int64(size)
	}
	return parts
}

// contains reports whether word is in what r reads. It uses buf, which is longer than
// word.
func contains(r io.Reader, buf, word []byte) bool {
	kept := 0
	for {
		n, err := io.ReadFull(r, buf[kept:])
		have := buf[:kept+n]
		if bytes.Contains(have, word) {
			return true
		}
		if err != nil {
			return false
		}
		kept = copy(buf, have[len(have)-len(word)+1:])
	}
}
