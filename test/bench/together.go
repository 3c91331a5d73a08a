package main

import (
	"fmt"
	"strconv"
	"sync"
	"time"

	"callhome/internal/proto"
)

// together measures what sessions that begin at once leave of the daemon: threads and
// memory, 5 s later.
func together(f *fixture) error {
	l, err := listen()
	if err != nil {
		return err
	}
	defer l.Close()
	go drain(l)
	const sessions = 50
	fmt.Printf("%-46s %10s %10s %10s\n", strconv.Itoa(sessions)+" sessions begun", "threads", "RSS KiB", "a session")
	for _, way := range []struct {
		name string
		each func(call func())
	}{
		{"at once", func(call func()) {
			var wg sync.WaitGroup
			for range sessions {
				wg.Go(call)
			}
			wg.Wait()
		}},
		{"one after another", func(call func()) {
			for range sessions {
				call()
			}
		}},
	} {
		for i, dir := range []string{*bin, *beside} {
			if dir == "" {
				continue
			}
			d, err := f.startManagerOf(dir, "together"+strconv.Itoa(i))
			if err != nil {
				return err
			}
			before, _ := memory(d.cmd.Process.Pid)
			failed := make(chan error, sessions)
			way.each(func() { failed <- d.call(l, proto.WaitNone) })
			for range sessions {
				if err := <-failed; err != nil {
					d.end()
					return err
				}
			}
			time.Sleep(5 * time.Second)
			pid := d.cmd.Process.Pid
			rss, _ := memory(pid)
			fmt.Printf("%-46s %10d %10d %10.1f\n", way.name+f.builds[i].name, field("/proc/"+strconv.Itoa(pid)+"/status", "Threads:"), rss, float64(rss-before)/sessions)
			d.end()
		}
	}
	return nil
}
