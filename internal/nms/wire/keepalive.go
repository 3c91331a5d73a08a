package wire

import (
	"errors"
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
// takes message 3 for one of a channel). So the first keepalive opens a channel of a type
// that no server has: each server that has sessions must answer that (RFC 4254 section
// 5.1). A server that does not answer it is sent global requests from then on.
type Keepalive struct {
	conn            ssh.Conn
	under           *Conn
	channel, global means
	useGlobal       atomic.Bool  // the peer has not answered the open of a channel in time
	roundTrip       atomic.Int64 // of the last keepalive that was answered
}

// means is a way to get an answer from the peer.
type means struct {
	ask     func() error // returns when the peer has answered, or the connection's error
	pending atomic.Bool  // an answer is missing; a second request would wait for it
}

// NewKeepalive returns the Keepalive of a connection over under.
func NewKeepalive(conn ssh.Conn, under *Conn) *Keepalive {
	k := &Keepalive{conn: conn, under: under}
	k.channel.ask, k.global.ask = k.openChannel, k.sendRequest
	return k
}

// ErrSilent means that nothing came from the peer after a keepalive.
var ErrSilent = errors.New("no answer to a keepalive")

// Ask sends a keepalive and returns nil when anything has come from the peer within
// limit, ErrSilent when nothing has, and another error at once when the connection ends.
// Several calls at a time are allowed.
func (k *Keepalive) Ask(limit time.Duration) error {
	before := k.under.Received()
	if k.useGlobal.Load() {
		return k.wait(&k.global, limit, before)
	}
	err := k.wait(&k.channel, limit/2, before)
	if errors.Is(err, ErrSilent) {
		k.useGlobal.Store(true)
		return k.wait(&k.global, limit-limit/2, before)
	}
	return err
}

// RoundTrip returns the time from the last answered keepalive to its answer, 0 before
// the first one.
func (k *Keepalive) RoundTrip() time.Duration { return time.Duration(k.roundTrip.Load()) }

func (k *Keepalive) wait(m *means, limit time.Duration, before uint64) error {
	answered := make(chan error, 1)
	if m.pending.CompareAndSwap(false, true) {
		go func() {
			sent := time.Now()
			err := m.ask()
			if err == nil {
				k.roundTrip.Store(int64(time.Since(sent)))
			}
			m.pending.Store(false)
			answered <- err
		}()
	}
	select {
	case err := <-answered:
		return err
	case <-time.After(limit):
	}
	if k.under.Received() == before {
		return ErrSilent
	}
	return nil
}

func (k *Keepalive) sendRequest() error {
	_, _, err := k.conn.SendRequest(keepaliveRequest, true, nil)
	return err
}

// openChannel opens a channel. A refusal is the expected answer.
func (k *Keepalive) openChannel() error {
	channel, requests, err := k.conn.OpenChannel(keepaliveChannel, nil)
	var refused *ssh.OpenChannelError
	switch {
	case errors.As(err, &refused):
		return nil
	case err == nil: // a server that opens any channel
		go ssh.DiscardRequests(requests)
		channel.Close()
	}
	return err
}
