package station

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"callhome/internal/nms/wire"
	"callhome/internal/ratelimit"
)

// spending is something that a device does and that costs the station work.
type spending int

const (
	logins          spending = iota // key exchanges with its host key
	opens                           // channels that it asks for
	requests                        // global requests
	channelRequests                 // requests on one channel
	idleData                        // KiB that it sends while it has no session
	rekeys                          // key exchanges after a login
)

// allowances are the budget of a device: of each as many as Burst at once, and in a
// minute. sshd sends at most a request a second (ClientAliveInterval), and on a channel
// where it has one; libnetconf2 calls again every ten seconds. A device without a
// session has only keepalives to send: more would be packets that the library drops.
// With OpenSSH's ciphers a key exchange is due after 1 GiB or more (RekeyLimit).
var allowances = [...]struct {
	what  string
	limit ratelimit.Limit
}{
	logins:          {"logins", ratelimit.Limit{Burst: 30}},
	opens:           {"channel opens", ratelimit.Limit{Burst: 30}},
	requests:        {"requests", ratelimit.Limit{Burst: 120}},
	channelRequests: {"requests on a channel", ratelimit.Limit{Burst: 120}},
	idleData:        {"KiB without a session", ratelimit.Limit{Burst: 4096}},
	rekeys:          {"key exchanges after its login", ratelimit.Limit{Burst: 10}},
}

// budget is what a device may do yet, on all its connections together.
type budget struct {
	mu sync.Mutex // guards of
	of [len(allowances)]ratelimit.Limit
}

func newBudget() *budget {
	b := new(budget)
	for i, a := range allowances {
		b.of[i] = a.limit
	}
	return b
}

// overBudget is an error: a device has done more than its budget allows.
type overBudget spending

func (e overBudget) Error() string {
	a := allowances[e]
	return fmt.Sprintf("the device is over its budget of %d %s a minute", a.limit.Burst, a.what)
}

func isOverBudget(err error) bool {
	var o overBudget
	return errors.As(err, &o)
}

// spend returns an error if the device is over its budget.
func (b *budget) spend(s spending, now time.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return spend(&b.of[s], s, now)
}

func spend(l *ratelimit.Limit, s spending, now time.Time) error {
	if _, ok := l.Allow(now); !ok {
		return overBudget(s)
	}
	return nil
}

// spend reports whether the device may do that. If not, its connection ends.
func (h *connection) spend(s spending) bool { return h.check(h.budget.spend(s, time.Now())) }

// spendOn is spend for requests on a channel, which has a budget of its own.
func (h *connection) spendOn(l *ratelimit.Limit) bool {
	return h.check(spend(l, channelRequests, time.Now()))
}

func (h *connection) check(err error) bool {
	if h.ended() {
		return false
	}
	if err != nil {
		h.end(err.Error(), wire.ProtocolError)
	}
	return err == nil
}

// idle must be called with the bytes of each read from the connection, by one goroutine at
// a time. A closed channel whose close is unanswered is no session: what is under way for
// it, up to its window of 2 MiB, is in the budget.
func (h *connection) idle(n int) {
	if h.busy() {
		return
	}
	for h.idleBytes += n; h.idleBytes >= 1<<10; h.idleBytes -= 1 << 10 {
		if !h.spend(idleData) {
			return
		}
	}
}
