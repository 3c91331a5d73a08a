package main

import (
	"container/heap"
	"time"
)

// queued is what can stand in a queue. place is its position plus one, and 0
// where it stands in none; the queue keeps it.
type queued[T any] interface {
	before(T) bool
	place() *int
}

// queue is a heap whose members can be moved and taken out.
type queue[T queued[T]] []T

func (q queue[T]) Len() int           { return len(q) }
func (q queue[T]) Less(i, j int) bool { return q[i].before(q[j]) }
func (q queue[T]) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	*q[i].place(), *q[j].place() = i+1, j+1
}

// Push is heap.Interface's; others call put.
func (q *queue[T]) Push(x any) {
	*q = append(*q, x.(T))
	*x.(T).place() = len(*q)
}

// Pop is heap.Interface's; others call take.
func (q *queue[T]) Pop() any {
	last := len(*q) - 1
	x := (*q)[last]
	*q = (*q)[:last]
	*x.place() = 0
	return x
}

// put adds x, or finds its place anew.
func (q *queue[T]) put(x T) {
	if i := *x.place(); i > 0 {
		heap.Fix(q, i-1)
		return
	}
	heap.Push(q, x)
}

// take removes x, if it is there.
func (q *queue[T]) take(x T) {
	if i := *x.place(); i > 0 {
		heap.Remove(q, i-1)
	}
}

// timer is the one event that a device or an NMS waits for.
type timer struct {
	due   time.Duration
	order uint64 // among those of the same moment: first set, first run
	at    int
	run   func()
}

func (t *timer) before(u *timer) bool {
	return t.due < u.due || t.due == u.due && t.order < u.order
}

func (t *timer) place() *int { return &t.at }

// clock is the virtual time: it stands still while something runs and leaps to
// the next thing then.
type clock struct {
	now    time.Duration // since the NMS went
	timers queue[*timer]
	orders uint64
}

// set lets t run at a time, and at no other that was set before.
func (c *clock) set(t *timer, at time.Duration) {
	c.orders++
	t.due, t.order = max(at, c.now), c.orders
	c.timers.put(t)
}

// run runs what is due until end, or until enough says so.
func (c *clock) run(end time.Duration, enough func() bool) {
	for len(c.timers) > 0 && c.timers[0].due <= end && !enough() {
		t := c.timers[0]
		c.timers.take(t)
		c.now = t.due
		t.run()
	}
}
