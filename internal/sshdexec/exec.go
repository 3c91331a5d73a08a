package sshdexec

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// PrivsepDir is the privilege separation directory that Debian's sshd is built
// with. ssh.service makes it there, but need not run for a call home.
const PrivsepDir = "/run/sshd"

// Environ returns sshd's environment: the system's PATH, and TZ if it is set.
// sshd gives the session an environment of its own. LD_LIBRARY_PATH or
// OPENSSL_CONF of the NETCONF server would change sshd itself.
func Environ() []string {
	env := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	if tz, ok := os.LookupEnv("TZ"); ok && len(tz) < 256 {
		env = append(env, "TZ="+tz)
	}
	return env
}

// Become replaces this process by sshd, under the same PID, with sock on
// descriptors 0 and 1 and log on 2. Every other descriptor is closed, signals
// are as they are at boot, and sshd leads a process group of its own. It
// returns only with an error; sock and log then still belong to the caller.
func (c *Command) Become(sock, log *os.File) error {
	if err := prepare(sock); err != nil {
		return err
	}
	ownGroup()
	argv, env := c.withPAM().Args(), Environ()
	if !masksNothing() {
		// From here on the thread's signal mask is what sshd will get.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
	}
	ResetSignals()
	if err := SweepDescriptors(); err != nil {
		return err
	}
	// Copies above 2 first: sock and log may themselves be on 0, 1 or 2. The
	// caller's own descriptor 2 is restored for the error message.
	stderr, err := unix.FcntlInt(2, unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return fmt.Errorf("duplicating descriptor 2: %w", err)
	}
	logFd, err := unix.FcntlInt(log.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return fmt.Errorf("duplicating the log: %w", err)
	}
	sockFd, err := unix.FcntlInt(sock.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return fmt.Errorf("duplicating the socket: %w", err)
	}
	for to, from := range []int{sockFd, sockFd, logFd} {
		if err := unix.Dup3(from, to, 0); err != nil {
			return fmt.Errorf("putting the socket on descriptor %d: %w", to, err)
		}
	}
	err = unix.Exec(c.Sshd, argv, env)
	unix.Dup3(stderr, 2, 0)
	return fmt.Errorf("executing %s: %w", c.Sshd, err)
}

// Start runs sshd as a child that leads a session of its own, with sock on
// descriptors 0 and 1 and log on 2. The child inherits no other descriptor and no
// ignored or blocked signal. The caller still owns sock and log, and should close
// sock: while it is open here, the peer sees no end of the connection.
func (c *Command) Start(sock, log *os.File) (*os.Process, error) {
	if err := prepare(sock); err != nil {
		return nil, err
	}
	argv := c.withPAM().Args()
	var p *os.Process
	err := Cleanly(func() (err error) {
		p, err = os.StartProcess(c.Sshd, argv, &os.ProcAttr{
			Env:   Environ(),
			Files: []*os.File{sock, sock, log},
			Sys:   &unix.SysProcAttr{Setsid: true},
		})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("starting sshd: %w", err)
	}
	return p, nil
}

// Cleanly runs start so that the child it starts inherits no stray descriptor
// and no signal ignored or blocked: a child gets the mask of the thread it is
// started from.
func Cleanly(start func() error) error {
	if err := SweepDescriptors(); err != nil {
		return err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ResetSignals()
	return start()
}

// prepare makes sure that what is handed over is a connected, blocking socket,
// and that the privilege separation directory is there.
func prepare(sock *os.File) error {
	fd := int(sock.Fd())
	if _, err := unix.Getpeername(fd); err != nil {
		return fmt.Errorf("handing over a connected socket: %w", err)
	}
	// The flag belongs to the open socket, not to our descriptor, and would
	// go to sshd and the subsystem with it.
	if err := unix.SetNonblock(fd, false); err != nil {
		return fmt.Errorf("making the socket blocking: %w", err)
	}
	return MakePrivsepDir()
}

// MakePrivsepDir makes PrivsepDir where it is missing and we are root; an sshd
// without root's rights needs none. Where /run is missing too, sshd was built
// with another one.
func MakePrivsepDir() error {
	if os.Geteuid() != 0 {
		return nil
	}
	if err := os.Mkdir(PrivsepDir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("making sshd's privilege separation directory: %w", err)
	}
	return nil
}

// ownGroup makes this process the leader of a process group, with a session of
// its own unless it leads a group already. When LoginGraceTime ends, sshd ends
// its unprivileged child only if it leads its group; otherwise that child keeps
// the connection open (measured with 8.9 to 10.5).
func ownGroup() { _, _ = unix.Setsid() } // fails for leaders of a group only

// SweepDescriptors marks every descriptor above 2 close-on-exec, so that
// a descriptor that the NETCONF server leaked does not reach the session.
func SweepDescriptors() error {
	if err := unix.CloseRange(3, ^uint(0)>>1, unix.CLOSE_RANGE_CLOEXEC); err == nil {
		return nil
	}
	// Linux before 5.11.
	dir, err := os.Open("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("listing our descriptors: %w", err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return fmt.Errorf("listing our descriptors: %w", err)
	}
	for _, name := range names {
		fd := 0
		for _, c := range name {
			fd = fd*10 + int(c-'0')
		}
		if fd > 2 {
			unix.CloseOnExec(fd)
		}
	}
	return nil
}

// masksNothing reports whether no signal is blocked: then the thread that calls exec
// does not matter, since each has the mask that this process was started with. To lock
// the thread has Go start another one, which exec has to end: 0.13 ms.
func masksNothing() bool {
	var mask, none unix.Sigset_t
	return unix.PthreadSigmask(unix.SIG_BLOCK, nil, &mask) == nil && mask == none
}

// ResetSignals gives every ignored signal its default disposition and unblocks
// all on this thread, which the caller has locked. sshd 8.4 hangs at the end of
// a session with SIGTERM or SIGCHLD blocked.
func ResetSignals() {
	var none unix.Sigset_t
	_ = unix.PthreadSigmask(unix.SIG_SETMASK, &none, nil)
	// struct kernel_sigaction, its order the architecture's: all zero is
	// SIG_DFL everywhere, and a handler is neither 0 nor 1.
	type sigaction [8]uintptr
	for sig := uintptr(1); sig <= maxSignal(); sig++ {
		var was, dfl sigaction
		if _, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, sig, 0, uintptr(unsafe.Pointer(&was)), sigsetSize(), 0, 0); errno != 0 {
			continue
		}
		if was[handlerWord()] != 1 { // SIG_IGN
			continue
		}
		_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, sig, uintptr(unsafe.Pointer(&dfl)), 0, sigsetSize(), 0, 0)
	}
}

// MIPS has 128 signals and its flags before the handler; all others have 64.
func isMIPS() bool { return strings.HasPrefix(runtime.GOARCH, "mips") }

func maxSignal() uintptr {
	if isMIPS() {
		return 127
	}
	return 64
}

func sigsetSize() uintptr {
	if isMIPS() {
		return 16
	}
	return 8
}

func handlerWord() int {
	if isMIPS() {
		return 1
	}
	return 0
}
