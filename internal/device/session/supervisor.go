package session

import (
	"sync/atomic"
	"time"
)

// supervisor follows a session from the start of its process to its end: it reads the
// log as it grows, looks for the evidence of a login and of the subsystem, and ends
// the session when the process has exited. It works when it is stirred, in one
// goroutine at a time. An idle session has none: a goroutine keeps the stack that it
// once needed, 8 KiB or more.
type supervisor struct {
	s      *Session
	reader logReader
	proof  prover
	again  *time.Timer // stirs without a change of the log; nil until it is needed

	stirs    atomic.Int64        // since begin, or since it was idle; 0 while it is idle
	reported atomic.Bool         // the subsystem was reported, and that is not saved yet
	exit     atomic.Pointer[int] // sshd's exit status, -1 where it is unknown
}

func newSupervisor(s *Session) *supervisor {
	v := &supervisor{s: s, proof: prover{s: s}}
	v.stirs.Store(1) // so that nothing works before begin
	return v
}

// begin follows the session, whose process is known now, until its end. Call it once.
func (v *supervisor) begin() {
	v.prepare()
	go v.work()
}

// finish follows the session of a process that has exited, and returns when it has
// ended. Call it in place of begin.
func (v *supervisor) finish(exit int) {
	v.exit.Store(&exit)
	v.prepare()
	v.work()
}

func (v *supervisor) prepare() {
	s := v.s
	v.reader = logReader{s: s, log: logFile{offset: s.rec.Offset, punched: s.rec.Offset}}
	s.env.Watch.add(s.id(), v.stir)
	if s.endedUnseen() {
		s.env.Watch.end(s.id())
	}
}

// exited has the session end: its process has exited.
func (v *supervisor) exited(exit int) {
	v.exit.Store(&exit)
	v.stir()
}

// stir has the supervisor work, also if it works already. It never blocks.
func (v *supervisor) stir() {
	if v.stirs.Add(1) == 1 {
		go v.work()
	}
}

// work works until nothing has stirred. When the session has ended, stirs stays above
// 0: nothing works from then on.
func (v *supervisor) work() {
	for {
		stirs := v.stirs.Load()
		if v.step() || v.stirs.CompareAndSwap(stirs, 0) {
			return
		}
	}
}

// step does what there is to do now, and reports whether the session has ended.
func (v *supervisor) step() (ended bool) {
	s := v.s
	exit := v.exit.Load()
	if v.reported.Swap(false) {
		s.save() // a later manager must know the process that reported
	}
	next := s.readLog(&v.reader, false)
	look := v.proof.look() // a report may have come just before the end
	if exit == nil {
		if look > 0 && (next == 0 || look < next) {
			next = look
		}
		v.stirIn(next)
		return false
	}
	if *exit < 0 {
		s.sweep()
	}
	s.readLog(&v.reader, true)
	v.proof.end()
	s.exited(*exit)
	s.env.Watch.drop(s.id())
	v.reader.close()
	if v.again != nil {
		v.again.Stop()
	}
	return true
}

// stirIn stirs after d; 0: never.
func (v *supervisor) stirIn(d time.Duration) {
	switch {
	case d == 0:
	case v.again == nil:
		v.again = time.AfterFunc(d, v.stir)
	default:
		v.again.Reset(d)
	}
}
