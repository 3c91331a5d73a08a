package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"callhome/internal/cmdline"
	"callhome/internal/device/api"
	"callhome/internal/device/settings"
	"callhome/internal/printable"
	"callhome/internal/proto"

	"github.com/urfave/cli/v2"
)

func call(c *cli.Context) error {
	if name := c.String("client"); name != "" {
		if c.Args().Present() || c.String("opaque") != "" {
			return program.Usage(errors.New("call: --client takes no HOST and no --opaque; its configuration has them"))
		}
		return callHome(c, proto.MethodCallHome, proto.CallParams{Client: name, Wait: proto.Wait(c.String("wait"))})
	}
	target, err := settings.ParseTarget(c.Args().Slice())
	if err == nil && target.Opaque != "" {
		err = fmt.Errorf("unexpected argument %q; pass data with --opaque", target.Opaque)
	}
	if err != nil {
		return program.Usage(err)
	}
	p := proto.CallParams{Host: target.Host, Port: target.Port, Opaque: c.String("opaque"), Wait: proto.Wait(c.String("wait"))}
	method := proto.MethodCallHome
	if p.Opaque != "" {
		method = proto.MethodCallHomeOpaque
	}
	return callHome(c, method, p)
}

func callHome(c *cli.Context, method string, p proto.CallParams) error {
	return ask(c, func(m *api.Client) error {
		var s proto.SessionInfo
		if err := m.Call(c.Context, method, p, &s); err != nil {
			return err
		}
		return cmdline.Show(c, s, func(w io.Writer) { fmt.Fprintf(w, "session %d: %s\n", s.Session, stateText(s)) })
	})
}

func sessions(c *cli.Context) error {
	return watched(c, func(m *api.Client) (any, func(io.Writer), error) {
		var l proto.SessionList
		err := m.Call(c.Context, proto.MethodUserSessions, nil, &l)
		return l, func(w io.Writer) { table(w, l.Sessions, cmdline.TableWidth(c)) }, err
	})
}

func oneSession(c *cli.Context) error {
	id, err := idOf(c)
	if err != nil {
		return err
	}
	return ask(c, func(m *api.Client) error {
		var l proto.SessionList
		if err := m.Call(c.Context, proto.MethodUserSessions, nil, &l); err != nil {
			return err
		}
		for _, s := range l.Sessions {
			if s.Session == id {
				return cmdline.Show(c, s, func(w io.Writer) { details(w, s) })
			}
		}
		var st proto.Status
		if err := m.Call(c.Context, proto.MethodStatus, nil, &st); err != nil {
			return err
		}
		for _, s := range st.Recent {
			if s.Session == id {
				return cmdline.Show(c, s, func(w io.Writer) { details(w, s) })
			}
		}
		return proto.NewError(proto.CodeNoExists, fmt.Sprintf("no session %d; callhome-mgr sessions and status list them", id))
	})
}

func kill(c *cli.Context) error {
	id, err := idOf(c)
	if err != nil {
		return err
	}
	return ask(c, func(m *api.Client) error {
		var s proto.SessionInfo
		if err := m.Call(c.Context, proto.MethodKillUserSession, proto.SessionParams{Session: id}, &s); err != nil {
			return err
		}
		return cmdline.Show(c, s, func(w io.Writer) { fmt.Fprintf(w, "session %d: %s\n", s.Session, stateText(s)) })
	})
}

func restartCallHome(c *cli.Context) error {
	if c.NArg() > 1 {
		return program.Usage(fmt.Errorf("unexpected argument %q", c.Args().Get(1)))
	}
	return ask(c, func(m *api.Client) error {
		var r proto.RestartResult
		if err := m.Call(c.Context, proto.MethodRestartCallHome, proto.RestartParams{Client: c.Args().First()}, &r); err != nil {
			return err
		}
		return cmdline.Show(c, r, func(w io.Writer) {
			if len(r.Clients) == 0 {
				fmt.Fprintln(w, "no client waits or has been given up")
			}
			for _, name := range r.Clients {
				fmt.Fprintf(w, "calling client %s\n", printable.Quoted(name))
			}
		})
	})
}

func status(c *cli.Context) error {
	return watched(c, func(m *api.Client) (any, func(io.Writer), error) {
		var st proto.Status
		err := m.Call(c.Context, proto.MethodStatus, nil, &st)
		return st, func(w io.Writer) {
			fmt.Fprintf(w, "callhome-mgr %s, PID %d, running for %s\n", st.Version, st.PID, cmdline.Age(st.Since))
			width := cmdline.TableWidth(c)
			fmt.Fprintf(w, "%s; %s, %d of them failed before the login\n", cmdline.Count(st.Sessions, "session"), cmdline.Count(int(st.Calls), "call"), st.Failed)
			fmt.Fprintln(w, configurationText(st.Config))
			if len(st.Clients) > 0 {
				fmt.Fprintln(w)
				clientTable(w, st.Clients, width)
			}
			if len(st.Recent) > 0 {
				fmt.Fprintln(w, "\nended last:")
				table(w, st.Recent, width)
			}
		}, err
	})
}

func events(c *cli.Context) error {
	return ask(c, func(m *api.Client) error {
		var last proto.EventList
		if err := m.Call(c.Context, proto.MethodSubscribe, nil, &last); err != nil {
			return err
		}
		return cmdline.Events(c, "callhome-mgr", last.Events, m.Events(), printEvent)
	})
}

// sessionNumbers and clientNames are values that completion lists.
func sessionNumbers(line cmdline.Line) (out []string) {
	var l proto.SessionList
	fill(line, proto.MethodUserSessions, &l)
	for _, s := range l.Sessions {
		out = append(out, strconv.Itoa(s.Session))
	}
	return out
}

func clientNames(line cmdline.Line) (out []string) {
	var st proto.Status
	fill(line, proto.MethodStatus, &st)
	for _, c := range st.Clients {
		out = append(out, c.Client)
	}
	return out
}

// fill asks the manager of an incomplete line. A completion has no place for an error.
func fill(line cmdline.Line, method string, result any) {
	client, err := api.Dial(line.Option("socket", cmp.Or(os.Getenv("CALLHOME_MANAGER_SOCKET"), proto.DefaultSocket)))
	if err != nil {
		return
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), cmdline.CompletionTime)
	defer cancel()
	_ = client.Call(ctx, method, nil, result)
}

func idOf(c *cli.Context) (int, error) {
	id, err := strconv.Atoi(c.Args().First())
	if err != nil || c.NArg() != 1 || id < 1 {
		return 0, program.Usage(fmt.Errorf("expected one session number, got %q", strings.Join(c.Args().Slice(), " ")))
	}
	return id, nil
}

// watched prints what f returns, once or with --watch every second.
func watched(c *cli.Context, f func(*api.Client) (any, func(io.Writer), error)) error {
	return ask(c, func(m *api.Client) error {
		return cmdline.Watch(c, func() (any, func(io.Writer), error) { return f(m) })
	})
}

func table(w io.Writer, list []proto.SessionInfo, width int) {
	if len(list) == 0 {
		fmt.Fprintln(w, "no sessions")
		return
	}
	t := cmdline.NewTable(cmdline.Column{Title: "ID", Whole: true}, cmdline.Column{Title: "STATE", Whole: true}, cmdline.Column{Title: "NETCONF CLIENT"},
		cmdline.Column{Title: "USER"}, cmdline.Column{Title: "AGE", Whole: true}, cmdline.Column{Title: "SENT", Rank: 1},
		cmdline.Column{Title: "RECEIVED", Rank: 2}, cmdline.Column{Title: "RTT", Rank: 3}, cmdline.Column{Title: "CAUSE", KeepEnd: true})
	for _, s := range list {
		sent, received, rtt := "", "", ""
		if s.Stats != nil {
			sent, received, rtt = size(s.Stats.BytesSent), size(s.Stats.BytesReceived), s.Stats.RTT.Round(10*time.Microsecond).String()
		}
		t.Row(s.Session, s.State, where(s), printable.Quoted(s.User), cmdline.Age(s.Since), sent, received, rtt, printable.Quoted(s.Cause))
	}
	t.Print(w, width)
}

func details(w io.Writer, s proto.SessionInfo) {
	row := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "%-14s  %s\n", name, printable.Quoted(value))
		}
	}
	row("session", strconv.Itoa(s.Session))
	row("state", stateText(s))
	row("host", fmt.Sprintf("%s port %d", s.Host, s.Port))
	row("remote", s.Remote)
	row("local", s.Local)
	row("client", s.Client)
	row("endpoint", s.Endpoint)
	row("started by", string(s.Via))
	since := " ago"
	if s.Ended == nil {
		row("age", cmdline.Age(s.Since))
		row("sshd", "PID "+strconv.Itoa(s.PID))
	} else {
		since = " before the end"
		row("lasted", s.Ended.Sub(s.Since).Round(time.Millisecond).String())
		row("ended", cmdline.Age(*s.Ended)+" ago")
		row("end", string(s.End))
	}
	row("user", s.User)
	row("method", s.Method)
	row("key", s.Key)
	row("certificate", s.Cert)
	row("opaque", s.Opaque)
	if st := s.Stats; st != nil {
		row("sent", size(st.BytesSent))
		row("received", size(st.BytesReceived))
		row("round trip", st.RTT.String())
		row("retransmits", strconv.Itoa(int(st.Retransmits)))
		row("unacknowledged", strconv.Itoa(int(st.Unacked)))
		row("last data", st.LastData.Round(time.Millisecond).String()+since)
	}
}

func printEvent(w io.Writer, e proto.Event) {
	fmt.Fprintf(w, "%s %s: %s", cmdline.Time(e.Time), subject(e), e.Event)
	if e.Outage != 0 {
		fmt.Fprintf(w, " after %v", e.Outage.Round(time.Millisecond))
	}
	for _, words := range []string{e.Session.Cause, oneLine(e.Text)} {
		if words != "" {
			fmt.Fprintf(w, " (%s)", printable.Quoted(words))
		}
	}
	fmt.Fprintln(w)
}

// oneLine joins the lines of a text, such as the faults of a document.
func oneLine(text string) string {
	text = strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r == '\n' }), "; ")
	return strings.ReplaceAll(text, ":; ", ": ")
}

// subject names the client, the session or the configuration of an event.
func subject(e proto.Event) string {
	switch {
	case e.Client != nil:
		return "client " + printable.Quoted(e.Client.Client)
	case e.Session.Session == 0:
		return "configuration"
	}
	return fmt.Sprintf("session %d %s", e.Session.Session, where(e.Session))
}

// where names the NETCONF client of a session by its address, once that is known.
func where(s proto.SessionInfo) string {
	if s.Remote != "" {
		return s.Remote
	}
	return fmt.Sprintf("%s port %d", s.Host, s.Port)
}

// stateText describes the state of a session.
func stateText(s proto.SessionInfo) string {
	switch s.State {
	case proto.StateCalling:
		return "calling " + where(s)
	case proto.StateStarting:
		return "connected to " + where(s) + ", sshd is starting"
	case proto.StateKeyExchange:
		return "connected to " + where(s) + ", no login yet"
	case proto.StateAuthenticated:
		return printable.Quoted(s.User) + " has logged in from " + where(s)
	case proto.StateServing:
		return printable.Quoted(s.User) + " from " + where(s) + " has started the netconf subsystem"
	}
	return "closed at " + string(s.Stage) + ": " + printable.Quoted(s.Cause)
}

func size(n uint64) string {
	const k = 1024
	switch {
	case n < k:
		return fmt.Sprintf("%d B", n)
	case n < k*k:
		return fmt.Sprintf("%.1f KiB", float64(n)/k)
	}
	return fmt.Sprintf("%.1f MiB", float64(n)/(k*k))
}
