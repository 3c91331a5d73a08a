package wire

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"
)

// Names of what a keepalive sends.
const (
	// keepaliveRequest is a global request that OpenSSH and the SSH servers modelled on
	// it answer, if only with a failure.
	keepaliveRequest = "keepalive@openssh.com"
	// keepaliveChannel is a type of channel that no server has.
	keepaliveChannel = "keepalive@callhome.invalid"
)

// Keepalive asks the peer for an answer; anything that the peer sends counts.
//
// The library ends a connection whose peer answers a global request with
// SSH_MSG_UNIMPLEMENTED, as SSH servers without global requests do (v0.59: mux.onePacket
// takes message 3 for one of a channel). So only OpenSSH is sent global requests from the
// begin on. Another server is asked to open a channel of a type that no server has: each
// server that has sessions must answer that (RFC 4254 section 5.1). One that does not
// answer it is sent global requests from then on.
//
// The answer to a global request needs nobody who waits for it: the library drops one that
// it has not asked for (v0.58: mux.handleGlobalPacket). It has no such means for channels,
// so there a goroutine waits for the answer.
type Keepalive struct {
	conn      ssh.Conn
	under     *Conn
	useGlobal atomic.Bool

	mu             sync.Mutex // guards the fields that follow
	opening, again bool       // a goroutine waits for the answer; it is to ask again then
}

// NewKeepalive returns the Keepalive of a connection over under.
func NewKeepalive(conn ssh.Conn, under *Conn) *Keepalive {
	k := &Keepalive{conn: conn, under: under}
	k.useGlobal.Store(strings.HasPrefix(string(conn.ServerVersion()), "SSH-2.0-OpenSSH"))
	return k
}

// ErrSilent means that nothing came from the peer after a keepalive.
var ErrSilent = errors.New("no answer to a keepalive")

// Round is one keepalive. Its user waits for the answer, in whatever way.
type Round struct {
	k      *Keepalive
	begun  time.Time
	limit  time.Duration
	before uint64 // received
	asked  int    // requests
	two    bool   // a channel first, then a global request
}

// Begin begins a round that has its answer within limit. Its user must call Next.
func (k *Keepalive) Begin(limit time.Duration) *Round {
	return &Round{k: k, begun: time.Now(), limit: limit, before: k.under.Received(), two: !k.useGlobal.Load()}
}

// Next returns what the user has to send now, nil for nothing, and the time until it must
// call Next again; before that it may. The time is 0 at the end of the round: then err says
// whether the peer has answered. send may block while the peer does not read.
func (r *Round) Next() (send func() error, wait time.Duration, err error) {
	took := time.Since(r.begun)
	switch {
	case r.k.under.Received() != r.before:
		return nil, 0, nil
	case took >= r.limit:
		return nil, 0, ErrSilent
	case r.asked == 0:
		r.asked++
		if r.two {
			return r.k.openChannel, r.limit / 2, nil
		}
		return r.k.sendRequest, r.limit, nil
	case r.two && r.asked == 1 && took >= r.limit/2:
		r.asked++
		r.k.useGlobal.Store(true)
		return r.k.sendRequest, r.limit - took, nil
	case r.two && r.asked == 1:
		return nil, r.limit/2 - took, nil
	}
	return nil, r.limit - took, nil
}

// Ask sends a keepalive and returns nil when anything has come from the peer within
// limit, ErrSilent when nothing has, and another error at once when the connection ends.
// Several calls at a time are allowed.
func (k *Keepalive) Ask(limit time.Duration) error {
	for r := k.Begin(limit); ; {
		heard, received, ended := k.under.next()
		if received == r.before && ended != nil {
			return ended
		}
		send, wait, err := r.Next()
		if wait == 0 {
			return err
		}
		if send != nil {
			go func() { _ = send() }() // an error ends the connection
		}
		select {
		case <-heard:
		case <-time.After(wait):
		}
	}
}

// RoundTrip returns the time from the last answered keepalive to its answer, 0 before
// the first one.
func (k *Keepalive) RoundTrip() time.Duration {
	k.under.mu.Lock()
	defer k.under.mu.Unlock()
	return k.under.roundTrip
}

// requestMsg is SSH_MSG_GLOBAL_REQUEST.
type requestMsg struct {
	Type      string `sshtype:"80"`
	WantReply bool
}

var keepalivePacket = ssh.Marshal(requestMsg{keepaliveRequest, true})

func (k *Keepalive) sendRequest() error {
	k.under.ask()
	return Send(k.conn, slices.Clone(keepalivePacket)) // the library overwrites it
}

// openChannel opens a channel, and does not wait. While a former one is unanswered it has
// no effect before that answer.
func (k *Keepalive) openChannel() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.again = k.opening
	if !k.opening {
		k.opening = true
		go k.openChannels()
	}
	return nil
}

// openChannels opens a channel as often as is wanted. A refusal is the expected answer.
func (k *Keepalive) openChannels() {
	for again := true; again; {
		k.under.ask()
		channel, requests, err := k.conn.OpenChannel(keepaliveChannel, nil)
		if err == nil { // a server that opens any channel
			go ssh.DiscardRequests(requests)
			channel.Close()
		}
		k.mu.Lock()
		var refused *ssh.OpenChannelError
		again = k.again && (err == nil || errors.As(err, &refused))
		k.opening, k.again = again, false
		k.mu.Unlock()
	}
}
