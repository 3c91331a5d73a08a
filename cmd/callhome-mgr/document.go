package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"callhome/internal/device/api"
	"callhome/internal/device/config"
	"callhome/internal/device/preflight"
	"callhome/internal/device/rollout"
	"callhome/internal/device/settings"
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
		return usage(fmt.Errorf("check takes one FILE, found %q", strings.Join(c.Args().Slice(), " ")))
	}
	if c.NArg() == 1 {
		return checkDocument(os.Stdout, c.Args().First(), true, s.Sshd.Sshd)
	}
	code := preflight.Run(os.Stdout, s)
	if err := checkDocument(os.Stdout, defaultConfig, false, s.Sshd.Sshd); err != nil {
		return err
	}
	if code != sysexits.OK {
		return sysexits.New(code, "", errors.New("something is missing, see above"))
	}
	return nil
}

// checkDocument says what a document asks for. Its faults are the error.
func checkDocument(w io.Writer, file string, explicit bool, sshd string) error {
	found, err := rollout.Read(file, explicit, sshd)
	if err != nil {
		return err
	}
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		fmt.Fprintf(w, "%s is not there, so there are no standing connections\n", file)
		return nil
	}
	for _, name := range strangers(found) {
		fmt.Fprintf(w, "warning: the user %s is not on this machine, as far as /etc/passwd knows\n", printable(name))
	}
	for _, client := range found.Clients {
		kind := "persistent"
		if client.Periodic != nil {
			kind = "every " + strings.TrimSuffix(strings.TrimSuffix(client.Periodic.Period.String(), "0s"), "0m")
		}
		var to []string
		for _, e := range client.Endpoints {
			to = append(to, fmt.Sprintf("%s port %d", e.Host, e.Port))
		}
		fmt.Fprintf(w, "client %s: %s, %s\n", printable(client.Name), kind, strings.Join(to, ", "))
	}
	fmt.Fprintf(w, "%s: %s\n", file, count(len(found.Clients), "client"))
	return nil
}

// strangers returns the users of a configuration that the machine has not.
func strangers(c *config.Config) []string {
	var out []string
	for _, client := range c.Clients {
		for _, e := range client.Endpoints {
			for _, u := range e.Users {
				var unknown user.UnknownUserError
				if _, err := user.Lookup(u.Name); errors.As(err, &unknown) && !slices.Contains(out, u.Name) {
					out = append(out, u.Name)
				}
			}
		}
	}
	return out
}

func initFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "nms", Usage: "`HOST[:PORT]` of the NETCONF client; may be repeated, the preferred one first"},
		&cli.BoolFlag{Name: "each", DisableDefaultText: true, Usage: "keep a connection to each of them, not to the first that answers"},
		&cli.StringSliceFlag{Name: "user", Usage: "`NAME=FILE`: this user may log in with the public keys in FILE, and nobody else; may be repeated. Without it sshd_config decides"},
		&cli.StringFlag{Name: "netconf-server", Usage: "`NAME` of the NETCONF server's preset, as callhome-trigger has it"},
		&cli.StringFlag{Name: "output", Usage: "write to `FILE`, which must not exist, instead of standard output"},
	}
}

// initialise is callhome-mgr init: a minimal document for this machine.
func initialise(c *cli.Context) error {
	o := config.InitOptions{NMS: c.StringSlice("nms"), Preset: c.String("netconf-server"), Each: c.Bool("each")}
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
	if len(o.NMS) == 0 {
		return usage(errors.New("init needs a NETCONF client to call: --nms HOST[:PORT]"))
	}
	doc, err := config.Init(o)
	if err != nil {
		return usage(err)
	}
	if c.String("output") == "" {
		_, err := os.Stdout.Write(doc)
		return err
	}
	f, err := os.OpenFile(c.String("output"), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return usage(fmt.Errorf("%s is there already and is not replaced", c.String("output")))
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
		return config.User{}, usage(fmt.Errorf("--user %q is not NAME=FILE", word))
	}
	keys, err := os.ReadFile(file)
	if err != nil {
		return config.User{}, sysexits.New(sysexits.NoInput, "", fmt.Errorf("reading the keys of %s: %w", name, err))
	}
	u := config.User{Name: name, Keys: config.AuthorizedKeys(keys)}
	if len(u.Keys) == 0 {
		return config.User{}, sysexits.New(sysexits.NoInput, "", fmt.Errorf("reading the keys of %s: there is no public key in %s", name, file))
	}
	return u, nil
}

// clientTable prints the configured clients, and below it what failed last: in
// the table it would be wider than a terminal.
func clientTable(w io.Writer, list []proto.ClientStatus) {
	t := newTable(w)
	fmt.Fprintln(t, "CLIENT\tSTATE\tFOR\tENDPOINT\tADDRESS\tUSER\tSESSION\tFAILED\tNEXT")
	for _, c := range list {
		session, next := "", ""
		if c.Session != 0 {
			session = fmt.Sprint(c.Session)
		}
		if c.NextAttempt != nil {
			next = "in " + max(0, time.Until(*c.NextAttempt)).Round(100*time.Millisecond).String()
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\n", printable(c.Client), c.State, age(c.Since), printable(c.Endpoint), c.Address, printable(c.User), session, c.Failures, next)
	}
	t.Flush()
	title := "\nlast errors:\n"
	for _, c := range list {
		if e := c.LastError; e != nil {
			fmt.Fprintf(w, "%s  %s, %s ago, %s: %s\n", title, printable(c.Client), age(e.Time), e.Stage, printable(e.Message))
			title = ""
		}
	}
}

// configurationInWords says which configuration is in force.
func configurationInWords(s proto.ConfigStatus) string {
	words := "no configuration, so no standing connections"
	if s.Applied != nil {
		words = fmt.Sprintf("configuration %s with %s, applied %s ago", s.File, count(s.Clients, "client"), age(*s.Applied))
	}
	if s.Error != "" {
		words += "\nthe one read last was refused:\n" + indented(s.Error)
	}
	return words
}

// indented makes lines from outside fit for a terminal and keeps them lines.
func indented(text string) string {
	var out []string
	for line := range strings.Lines(text) {
		out = append(out, "  "+printable(strings.TrimRight(line, "\n")))
	}
	return strings.Join(out, "\n")
}

// count is "1 client", "2 clients".
func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
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
