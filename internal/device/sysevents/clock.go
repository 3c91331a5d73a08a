package sysevents

import (
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Clock calls notify from its own goroutine whenever the wall clock was set or
// the machine has slept, until done is closed.
func Clock(done <-chan struct{}, notify func()) error {
	fd, err := unix.TimerfdCreate(unix.CLOCK_REALTIME, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("watching the clock: %w", err)
	}
	timer := os.NewFile(uintptr(fd), "timerfd")
	if err := arm(fd); err != nil {
		timer.Close()
		return err
	}
	go func() {
		<-done
		timer.Close()
	}()
	go func() {
		for {
			if _, err := timer.Read(make([]byte, 8)); !errors.Is(err, unix.ECANCELED) {
				return // closed
			}
			// Armed before notify, so that no change in between is missed.
			raw, err := timer.SyscallConn()
			if err != nil {
				return
			}
			if raw.Control(func(fd uintptr) { err = arm(int(fd)) }) != nil || err != nil {
				return
			}
			notify()
		}
	}()
	return nil
}

// arm sets the timer to a time that this program does not live to see. Only its
// cancellation matters (TFD_TIMER_CANCEL_ON_SET, timerfd_create(2)).
func arm(fd int) error {
	far := int64(math.MaxInt32) // 2038, where seconds have 32 bits
	if strconv.IntSize == 64 {
		far = 1 << 33 // 2242
	}
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(far * 1e9)}
	if err := unix.TimerfdSettime(fd, unix.TFD_TIMER_ABSTIME|unix.TFD_TIMER_CANCEL_ON_SET, &spec, nil); err != nil {
		return fmt.Errorf("watching the clock: %w", err)
	}
	return nil
}
