package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"callhome/internal/cmdline"
	"callhome/internal/device/api"
	"callhome/internal/device/config"
	"callhome/internal/device/preflight"
	"callhome/internal/device/rollout"
	"callhome/internal/device/settings"
	"callhome/internal/printable"
	"callhome/internal/proto"
	"callhome/internal/sysexits"

	"github.com/urfave/cli/v2"
)

// check is callhome-mgr check: with FILE that document, without it the machine
// and the document in its place, if there is one.
func check(c *cli.Context) error {
	s, _, err := settings.Load(nil, nil, os.LookupEnv)
	if err != nil {
		return err
	}
	if c.NArg() > 1 {
		return program.Usage(fmt.Errorf("check: expected at most one FILE, got %q", strings.Join(c.Args().Slice(), " ")))
	}
	if c.NArg() == 1 {
		return checkDocument(os.Stdout, c.Args().First(), true, s)
	}
	code := preflight.Run(os.Stdout, s, hasUsers(defaultConfig, s.Sshd.Sshd))
	if err := checkDocument(os.Stdout, defaultConfig, false, s); err != nil {
		return err
	}
	if code != sysexits.OK {
		return sysexits.New(code, "", errors.New("a call home would fail; see MISSING above"))
	}
	return nil
}

// checkDocument says what a document asks for. Its faults are the error.
func checkDocument(w io.Writer, file string, explicit bool, s *settings.Settings) error {
	found, err := rollout.Read(file, explicit, s.Sshd.Sshd)
	if err != nil {
		return err
	}
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		fmt.Fprintf(w, "%s does not exist: no standing connections\n", file)
		return nil
	}
	for _, warning := range found.Warnings {
		fmt.Fprintf(w, "warning: %s\n", printable.Quoted(warning.Error()))
	}
	var unreachable []string
	pam := sync.OnceValue(func() bool { return preflight.UsesPAM(s) })
	for _, client := range found.Clients {
		kind := "persistent"
		if client.Periodic != nil {
			kind = "every " + strings.TrimSuffix(strings.TrimSuffix(client.Periodic.Period.String(), "0s"), "0m")
		}
		var to []string
		for _, e := range client.Endpoints {
			to = append(to, fmt.Sprintf("%s port %d", e.Host, e.Port))
		}
		fmt.Fprintf(w, "client %s: %s, %s\n", printable.Quoted(client.Name), kind, strings.Join(to, ", "))
		if !printUsers(w, &client, pam) {
			unreachable = append(unreachable, client.Name)
		}
	}
	fmt.Fprintf(w, "%s: %s\n", file, cmdline.Count(len(found.Clients), "client"))
	if len(unreachable) > 0 && !explicit { // an explicit file may be for another machine
		return sysexits.New(sysexits.NoPerm, "correct the users or the document",
			fmt.Errorf("no user can log in to the connections of %s", printable.Quoted(strings.Join(unreachable, ", "))))
	}
	return nil
}

// printUsers prints who may log in to a client's connections and with which keys, if
// the document says so. It reports whether one of them can.
func printUsers(w io.Writer, client *config.Client, pam func() bool) (can bool) {
	seen := make(map[string]bool)
	for _, e := range client.Endpoints {
		if len(e.Users) == 0 {
			line := "  users: those that sshd_config allows; callhome-mgr check lists them"
			if len(e.UserCAs) > 0 {
				line += "; also with certificates of the CA " + preflight.Fingerprints(e.UserCAs)
			}
			if e.Restricted {
				line = "  warning: no user can log in: the list of users is empty"
			}
			if !seen[line] {
				seen[line] = true
				fmt.Fprintln(w, line)
			}
			can = can || !e.Restricted
		}
		for _, u := range e.Users {
			with := preflight.Fingerprints(u.Keys)
			if len(u.Keys) == 0 {
				with = "certificates of the CA " + preflight.Fingerprints(e.UserCAs)
			}
			why := preflight.UserFault(u.Name, pam())
			can = can || why == ""
			if line := fmt.Sprintf("  user %s, with %s", printable.Quoted(u.Name), with); !seen[line] {
				seen[line] = true
				fmt.Fprintln(w, line)
				if why != "" {
					fmt.Fprintf(w, "  warning: user %s cannot log in: %s\n", printable.Quoted(u.Name), printable.Quoted(why))
				}
			}
		}
	}
	return can
}

// hasUsers reports whether a document names users of its connections.
func hasUsers(file, sshd string) bool {
	found, err := rollout.Read(file, false, sshd)
	if err != nil {
		return false // checkDocument reports the error
	}
	return slices.ContainsFunc(found.Clients, func(c config.Client) bool {
		return slices.ContainsFunc(c.Endpoints, func(e config.Endpoint) bool { return e.Restricted })
	})
}

func initFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "nms", Usage: "call the NETCONF client at `HOST[:PORT]`; repeatable, the preferred one first"},
		&cli.BoolFlag{Name: "each", Usage: "keep a connection to each of them instead of the first that answers"},
		&cli.StringSliceFlag{Name: "user", Usage: "let user NAME log in with the public keys in FILE, given as `NAME=FILE`; repeatable. Without it sshd_config decides who may log in"},
		cmdline.ChoiceFlag("netconf-server", "", "use the preset of the NETCONF server `NAME`, as callhome-trigger has it", settings.PresetNames()...),
		&cli.StringFlag{Name: "output", Usage: "write to the new file `FILE` instead of standard output"},
	}
}

// initialise is callhome-mgr init: a minimal document for this machine.
func initialise(c *cli.Context) error {
	o := config.InitOptions{Stations: c.StringSlice("nms"), Preset: c.String("netconf-server"), Each: c.Bool("each")}
	keys, err := filepath.Glob(filepath.Join(config.DefaultKeyDir, "ssh_host_*_key"))
	if err != nil {
		return err
	}
	for _, k := range keys {
		o.HostKeys = append(o.HostKeys, filepath.Base(k))
	}
	for _, word := range c.StringSlice("user") {
		u, err := userOf(word)
		if err != nil {
			return err
		}
		o.Users = append(o.Users, u)
	}
	if len(o.Stations) == 0 {
		return program.Usage(errors.New("init: no NETCONF client to call; add --nms HOST[:PORT]"))
	}
	doc, err := config.Init(o)
	if err != nil {
		return program.Usage(err)
	}
	if c.String("output") == "" {
		_, err := os.Stdout.Write(doc)
		return err
	}
	f, err := os.OpenFile(c.String("output"), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return program.Usage(fmt.Errorf("%s exists and is not replaced; choose another --output", c.String("output")))
	}
	if err != nil {
		return sysexits.New(sysexits.NoPerm, "", fmt.Errorf("writing the configuration: %w", err))
	}
	_, err = f.Write(doc)
	return errors.Join(err, f.Close())
}

// userOf understands NAME=FILE, a file of authorized_keys(5).
func userOf(word string) (config.User, error) {
	name, file, ok := strings.Cut(word, "=")
	if !ok || name == "" || file == "" {
		return config.User{}, program.Usage(fmt.Errorf("--user %q is not NAME=FILE", word))
	}
	keys, err := os.ReadFile(file)
	if err != nil {
		return config.User{}, sysexits.New(sysexits.NoInput, "", fmt.Errorf("reading the keys of %s: %w", name, err))
	}
	u := config.User{Name: name, Keys: config.AuthorizedKeys(keys)}
	if len(u.Keys) == 0 {
		return config.User{}, sysexits.New(sysexits.NoInput, "", fmt.Errorf("reading the keys of %s: no public key in %s", name, file))
	}
	return u, nil
}

// clientTable prints the configured clients, and below it what failed last: in
// the table it would be wider than a terminal.
func clientTable(w io.Writer, list []proto.ClientStatus, width int) {
	t := cmdline.NewTable(cmdline.Column{Title: "CLIENT"}, cmdline.Column{Title: "STATE", Whole: true}, cmdline.Column{Title: "FOR", Whole: true},
		cmdline.Column{Title: "ENDPOINT", Rank: 3}, cmdline.Column{Title: "ADDRESS", Rank: 1}, cmdline.Column{Title: "USER", Rank: 2},
		cmdline.Column{Title: "SESSION"}, cmdline.Column{Title: "FAILED"}, cmdline.Column{Title: "NEXT", Whole: true})
	for _, c := range list {
		session, next := "", ""
		if c.Session != 0 {
			session = fmt.Sprint(c.Session)
		}
		if c.NextAttempt != nil {
			next = "in " + max(0, time.Until(*c.NextAttempt)).Round(100*time.Millisecond).String()
		}
		t.Row(printable.Quoted(c.Client), c.State, cmdline.Age(c.Since), printable.Quoted(c.Endpoint), c.Address, printable.Quoted(c.User), session, c.Failures, next)
	}
	t.Print(w, width)
	title := "\nlast errors:\n"
	for _, c := range list {
		if e := c.LastError; e != nil {
			fmt.Fprintf(w, "%s  %s, %s ago, %s: %s\n", title, printable.Quoted(c.Client), cmdline.Age(e.Time), e.Stage, printable.Quoted(e.Message))
			title = ""
		}
	}
}

// configurationText says which configuration is in force.
func configurationText(s proto.ConfigStatus) string {
	words := "no configuration: no standing connections"
	switch {
	case s.Applied != nil && s.Missing:
		words = s.File + " does not exist: no standing connections"
	case s.Applied != nil:
		words = fmt.Sprintf("configuration %s with %s, applied %s ago", s.File, cmdline.Count(s.Clients, "client"), cmdline.Age(*s.Applied))
	}
	if len(s.Warnings) > 0 {
		words += "\nleft aside:\n" + indented(strings.Join(s.Warnings, "\n"))
	}
	if s.Error != "" {
		words += "\nthe last one read was refused:\n" + indented(s.Error)
	}
	return words
}

// indented makes lines from outside fit for a terminal and keeps them lines.
func indented(text string) string {
	var out []string
	for line := range strings.Lines(text) {
		out = append(out, "  "+printable.Quoted(strings.TrimRight(line, "\n")))
	}
	return strings.Join(out, "\n")
}

// state prints the clients as the state tree of our YANG module.
func state(c *cli.Context) error {
	return ask(c, func(m *api.Client) error {
		var st proto.Status
		if err := m.Call(c.Context, proto.MethodStatus, nil, &st); err != nil {
			return err
		}
		doc, err := config.State(st.Clients)
		if err != nil {
			return err
		}
		_, err = os.Stdout.Write(doc)
		return err
	})
}
