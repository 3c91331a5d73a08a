package schedule

import "time"

// Slots are the times at which periodic connections begin: whole multiples of
// Period from Anchor, before it and after. They are times of the wall clock,
// which can be set at any moment: by hours at boot, by milliseconds later.

// slotBefore is the last slot that is not after now.
func (p *Policy) slotBefore(now time.Time) time.Time {
	since := now.Round(0).Sub(p.Anchor) // saturates after 292 years
	n := since / p.Period
	if since < 0 && since%p.Period != 0 {
		n--
	}
	return p.Anchor.Add(n * p.Period)
}

// slotNear is the slot that a timer was for which came at now, a bit early or
// late.
func (p *Policy) slotNear(now time.Time) time.Time { return p.slotBefore(now.Add(p.Period / 2)) }

// dueAt reports whether now is the time of a slot other than last: the one that
// begins with the configuration, where that has no anchor-time.
func (p *Policy) dueAt(now, last time.Time) bool {
	slot := p.slotBefore(now)
	return now.Round(0).Sub(slot) < time.Second && !slot.Equal(last)
}

// awaitSlot waits for the next slot. One that a clock set back brings again is
// left out: by its name, and where the last slot's first call is younger than
// half a period, whatever the clock was called then.
func (p *Policy) awaitSlot(s State, now time.Time) State {
	next := p.slotBefore(now).Add(p.Period)
	if next.Equal(s.Slot) || !s.Made.IsZero() && now.Sub(s.Made)+next.Sub(now.Round(0)) < p.Period/2 {
		next = next.Add(p.Period)
	}
	s.Phase, s.At, s.Due = Waiting, next, false
	return s
}
