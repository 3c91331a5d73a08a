package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"callhome/internal/api"
	"callhome/internal/config"
	"callhome/internal/preflight"
	"callhome/internal/proto"
	"callhome/internal/settings"
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
		return checkDocument(os.Stdout, c.Args().First(), true, s)
	}
	code := preflight.Run(os.Stdout, s)
	if err := checkDocument(os.Stdout, defaultConfig, false, s); err != nil {
		return err
	}
	if code != sysexits.OK {
		return sysexits.New(code, "", errors.New("something is missing, see above"))
	}
	return nil
}

// checkDocument says what a document asks for. Its faults are the error.
func checkDocument(w io.Writer, file string, explicit bool, s *settings.Settings) error {
	found, err := readConfig(file, explicit, s.Sshd.Sshd)
	if err != nil {
		return err
	}
	for _, client := range found.Clients {
		kind := "persistent"
		if client.Periodic != nil {
			kind = "every " + client.Periodic.Period.String()
		}
		var to []string
		for _, e := range client.Endpoints {
			to = append(to, fmt.Sprintf("%s port %d", e.Host, e.Port))
		}
		fmt.Fprintf(w, "client %s: %s, %s\n", printable(client.Name), kind, strings.Join(to, ", "))
	}
	fmt.Fprintf(w, "%s: %d clients\n", file, len(found.Clients))
	return nil
}

func initFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "nms", Required: true, Usage: "`HOST[:PORT]` of the NETCONF client; may be repeated, the preferred one first"},
		&cli.BoolFlag{Name: "each", DisableDefaultText: true, Usage: "keep a connection to each of them, not to the first that answers"},
		&cli.StringSliceFlag{Name: "user", Usage: "`NAME=FILE`: this user may log in with the public keys in FILE, and nobody else; may be repeated. Without it sshd_config decides"},
		&cli.StringFlag{Name: "netconf-server", Usage: "`NAME` of the NETCONF server's preset, as callhome-trigger has it"},
		&cli.StringFlag{Name: "output", Usage: "write to `FILE`, which must not exist, instead of standard output"},
	}
}

// initialise is callhome-mgr init: a minimal document for this machine.
func initialise(c *cli.Context) error {
	if c.Args().Present() {
		return usage(fmt.Errorf("init takes no words, found %q", c.Args().First()))
	}
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
	doc, err := config.Init(o)
	if err != nil {
		return sysexits.New(sysexits.Config, "", err)
	}
	if c.String("output") == "" {
		_, err := os.Stdout.Write(doc)
		return err
	}
	f, err := os.OpenFile(c.String("output"), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
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

// clientTable prints the configured clients.
func clientTable(w io.Writer, list []proto.ClientStatus) {
	t := newTable(w)
	fmt.Fprintln(t, "CLIENT\tSTATE\tFOR\tENDPOINT\tADDRESS\tUSER\tSESSION\tCONNECTIONS\tFAILED\tNEXT ATTEMPT\tLAST ERROR")
	for _, c := range list {
		session, next, failure := "", "", ""
		if c.Session != 0 {
			session = fmt.Sprint(c.Session)
		}
		if c.NextAttempt != nil {
			next = "in " + max(0, time.Until(*c.NextAttempt)).Round(100*time.Millisecond).String()
		}
		if e := c.LastError; e != nil {
			failure = fmt.Sprintf("%s ago, %s: %s", age(e.Time), e.Stage, e.Message)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\t%s\t%s\n", printable(c.Client), c.State, age(c.Since), printable(c.Endpoint), c.Address, printable(c.User), session, c.Connections, c.Failures, next, printable(failure))
	}
	t.Flush()
}

// configurationInWords says which configuration is in force.
func configurationInWords(s proto.ConfigStatus) string {
	words := "no configuration, so no standing connections"
	if s.Applied != nil {
		words = fmt.Sprintf("configuration %s with %d clients, applied %s ago", s.File, s.Clients, age(*s.Applied))
	}
	if s.Error != "" {
		words += "; the one read last was refused: " + printable(s.Error)
	}
	return words
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
