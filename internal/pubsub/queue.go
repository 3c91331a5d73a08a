package pubsub

import (
	"cmp"
	"slices"
)

// numbered is an event with its number.
type numbered[E any] struct {
	number uint64
	event  E
}

// queue keeps the last events, the oldest first.
type queue[E any] struct {
	items []numbered[E]
	lost  uint64 // number of the last one that is no longer kept
}

// push adds an event and drops the oldest above limit. append moves the rest to a new
// array when the present one is used up.
func (q *queue[E]) push(n numbered[E], limit int) {
	q.items = append(q.items, n)
	if more := len(q.items) - limit; more > 0 {
		q.lost = q.items[more-1].number
		clear(q.items[:more]) // so that the array does not keep their text in memory
		q.items = q.items[more:]
	}
}

// after returns the first event after that number.
func (q *queue[E]) after(number uint64) (n numbered[E], ok bool) {
	i, _ := slices.BinarySearchFunc(q.items, number+1, func(n numbered[E], to uint64) int { return cmp.Compare(n.number, to) })
	if i == len(q.items) {
		return n, false
	}
	return q.items[i], true
}

// last returns the last events, at most n.
func (q *queue[E]) last(n int) []numbered[E] { return q.items[max(0, len(q.items)-n):] }
