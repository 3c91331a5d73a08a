package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"callhome/internal/proto"
)

// together measures what 50 sessions leave of the daemon, by how they began: threads
// and memory. The sessions are real sshds that wait for a login. Each measurement is
// settleTime after the last call. The memory without sessions is that after a first one
// has ended: what any call needs belongs to no session.
func together(f *fixture) error {
	l, err := listen()
	if err != nil {
		return err
	}
	defer l.Close()
	go drain(l)
	const sessions = 50
	fmt.Printf("%-46s %10s %10s %10s %10s\n", strconv.Itoa(sessions)+" sessions begun", "threads", "RSS KiB", "without", "a session")
	for _, way := range []struct {
		name string
		each func(call func() error) error
	}{
		{"at once", func(call func() error) error { return atOnce(sessions, call) }},
		{"one after another", func(call func() error) error {
			for range sessions {
				if err := call(); err != nil {
					return err
				}
			}
			return nil
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
			if err := d.call(l, proto.WaitTCP); err != nil {
				d.end()
				return err
			}
			d.endSessions()
			time.Sleep(settleTime)
			pid := d.cmd.Process.Pid
			before, _ := memory(pid)
			if err := way.each(func() error { return d.call(l, proto.WaitNone) }); err != nil {
				d.end()
				return err
			}
			time.Sleep(settleTime)
			rss, _ := memory(pid)
			fmt.Printf("%-46s %10d %10d %10d %10.1f\n", way.name+f.builds[i].name, field("/proc/"+strconv.Itoa(pid)+"/status", "Threads:"), rss, before, float64(rss-before)/sessions)
			d.end()
		}
	}
	return nil
}

// endSessions ends every session of the daemon.
func (d *daemon) endSessions() {
	var l proto.SessionList
	if d.client.Call(context.Background(), proto.MethodUserSessions, nil, &l) == nil {
		for _, s := range l.Sessions {
			_ = d.client.Call(context.Background(), proto.MethodKillUserSession, proto.SessionParams{Session: s.Session}, nil)
		}
	}
}
