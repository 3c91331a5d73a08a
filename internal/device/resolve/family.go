package resolve

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"
)

// family is the network of package net for the addresses of one family.
type family string

const (
	ip4 family = "ip4"
	ip6 family = "ip6"
)

// ask queries one name server for the addresses of one family.
type ask func(ctx context.Context, server string, of family, fqdn string) ([]netip.Addr, error)

// Times for the name servers. Package net waits 5 s for each before it tries the
// next, as long as a whole call home may take.
const (
	// nextServer is the time without an answer after which the next server is asked, too.
	nextServer = 500 * time.Millisecond
	// firstServers is the time in which "no such name" of a later server is ignored while
	// an earlier one may still know the name (a private one before a public one).
	firstServers = time.Second
)

// answer is how one name server answered.
type answer struct {
	server int
	addrs  []netip.Addr
	err    error
}

// query asks the servers for the addresses of one family, the next one where one
// is slow or fails. The first that has addresses decides.
func query(ctx context.Context, do ask, servers []string, of family, fqdn string) ([]netip.Addr, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answers := make(chan answer, len(servers))
	asked := 0
	next := func() {
		i := asked
		asked++
		go func() {
			addrs, err := do(ctx, servers[i], of, fqdn)
			answers <- answer{i, addrs, err}
		}()
	}
	began := time.Now()
	next()
	failed := make(map[int]error)
	timer := time.NewTicker(nextServer)
	defer timer.Stop()
	for {
		select {
		case a := <-answers:
			if a.err == nil && len(a.addrs) > 0 {
				return a.addrs, nil
			}
			failed[a.server] = a.err
			if asked < len(servers) && !notFound(a.err) {
				next()
			}
		case <-timer.C:
			if asked < len(servers) {
				next()
			}
		case <-ctx.Done():
			return nil, &net.DNSError{Err: ctx.Err().Error(), Name: fqdn, IsTimeout: true}
		}
		if err, ok := verdict(failed, len(servers), time.Since(began)); ok {
			return nil, err
		}
	}
}

// verdict returns the error with which a query ends, once it is certain: each
// server has failed, or one says that there is no such name and no earlier one may
// still know it.
func verdict(failed map[int]error, servers int, elapsed time.Duration) (error, bool) {
	var last error
	for i := range servers {
		err, done := failed[i]
		switch {
		case done && notFound(err):
			return err, true
		case done:
			last = err
		case elapsed < firstServers:
			return nil, false
		}
	}
	return last, len(failed) == servers
}

func notFound(err error) bool {
	var dns *net.DNSError
	return errors.As(err, &dns) && dns.IsNotFound
}
