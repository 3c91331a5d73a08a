package schedule

import "time"

// Slots are the times at which periodic connections begin: whole multiples of
// Period from Anchor, before it and after. They are times of the wall clock, which
// is set at any moment: by decades at boot, by milliseconds later.

// slotBefore is the last slot that is not after now.
func (p *Policy) slotBefore(now time.Time) time.Time {
	slot := p.slotWithin(now)
	since := now.Round(0).Sub(slot)
	n := since / p.Period
	if since < 0 && since%p.Period != 0 {
		n--
	}
	return slot.Add(n * p.Period)
}

// slotWithin is a slot less than two periods from now. It counts in seconds: a
// time.Duration saturates after 292 years, and an anchor-time may be of the year 1.
func (p *Policy) slotWithin(now time.Time) time.Time {
	period := max(int64(p.Period/time.Second), 1) // whole minutes, except in tests
	periods := (now.Unix() - p.Anchor.Unix()) / period
	return time.Unix(p.Anchor.Unix()+periods*period, int64(p.Anchor.Nanosecond())).UTC()
}

// slotNear is the slot of a timer that expired at now, a little early or late.
func (p *Policy) slotNear(now time.Time) time.Time { return p.slotBefore(now.Add(p.Period / 2)) }

// dueAt reports whether now is the time of a slot other than last. Without an
// anchor-time the first slot begins when the configuration is applied.
func (p *Policy) dueAt(now, last time.Time) bool {
	slot := p.slotBefore(now)
	return now.Round(0).Sub(slot) < time.Second && !slot.Equal(last)
}

// awaitSlot waits for the next slot. A slot that a clock set back repeats is
// skipped: the slot is the last one, or it comes less than half a period, by the
// monotonic clock, after the last slot's first call home.
func (p *Policy) awaitSlot(s State, now time.Time) State {
	next := p.slotBefore(now).Add(p.Period)
	if next.Equal(s.Slot) || !s.Made.IsZero() && now.Sub(s.Made)+next.Sub(now.Round(0)) < p.Period/2 {
		next = next.Add(p.Period)
	}
	s.Phase, s.At, s.Due = Waiting, next, false
	return s
}
