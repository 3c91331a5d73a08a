// Package wake owns the wake-up channel: a channel of capacity one, on which any
// number of signals are one signal until the receiver takes it. Goroutines that
// wait for changes use it. It never blocks the sender and carries no data.
package wake

// New returns a wake-up channel.
func New() chan struct{} { return make(chan struct{}, 1) }

// Up signals c, unless a signal waits there already.
func Up(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
