package main

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// packets are the steps of a login, by what the stock client reports with -vv when it
// has the packet that ends the step.
var packets = []struct{ name, reported string }{
	{"banner", "Remote protocol version"},
	{"key exchange proposed", "SSH2_MSG_KEXINIT received"},
	{"keys exchanged", "SSH2_MSG_NEWKEYS received"},
	{"service accepted", "SSH2_MSG_SERVICE_ACCEPT received"},
	{"none refused", "Authentications that can continue"},
	{"key accepted", "Server accepts key"},
	{"login", "Authenticated to"},
	{"session opened", "channel 0: open confirm"},
	{"subsystem started", "subsystem request accepted"},
	{"hello", ""},
}

// loginSteps measures where the time of one login goes, by the times at which the
// client has its packets.
func loginSteps(f *fixture) error {
	l, err := listen()
	if err != nil {
		return err
	}
	defer l.Close()
	const kex = "curve25519-sha256"
	callers := f.callers(l)
	steps := make([][]*way, len(callers)) // by caller and packet
	var ways []*way
	for i, c := range callers {
		for _, p := range packets {
			steps[i] = append(steps[i], &way{name: p.name})
		}
		round := 0
		ways = append(ways, &way{name: c.name, once: func() (time.Duration, error) {
			round++
			at := make([]time.Duration, len(packets))
			var mu sync.Mutex // guards at
			took, err := f.login(l, kex, c.call, func(line string, since time.Duration) {
				mu.Lock()
				defer mu.Unlock()
				for k, p := range packets {
					if at[k] == 0 && p.reported != "" && strings.Contains(line, p.reported) {
						at[k] = since
					}
				}
			})
			mu.Lock()
			defer mu.Unlock()
			at[len(at)-1] = took
			before := time.Duration(0)
			for k, t := range at {
				if t > 0 && round > warmup { // a client need not send each request
					steps[i][k].times = append(steps[i][k].times, t-before)
					before = t
				}
			}
			return took, err
		}})
	}
	n := max(*rounds/4, 1)
	if err := interleave(n, ways); err != nil {
		return err
	}
	fmt.Printf("where the time goes from accept to NETCONF hello, median ms of %d rounds, interleaved, ssh -vv, %s\n", n, kex)
	for i, c := range callers {
		fmt.Printf("%c: %s\n", 'A'+i, c.name)
	}
	row := func(name string, of func(i int) string) {
		fmt.Printf("%-24s", name)
		for i := range callers {
			fmt.Printf(" %8s", of(i))
		}
		fmt.Println()
	}
	row("", func(i int) string { return string(rune('A' + i)) })
	for k, p := range packets {
		if !slices.ContainsFunc(steps, func(s []*way) bool { return len(s[k].times) > 0 }) {
			continue
		}
		row(p.name, func(i int) string { return steps[i][k].median() })
	}
	row("in all", func(i int) string { return ways[i].median() })
	return nil
}

// median returns the median in ms, "-" without times.
func (w *way) median() string {
	if len(w.times) == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", ms(w.at(50)))
}
