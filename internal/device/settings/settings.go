// Package settings owns what callhome-trigger can be told: the table of its
// options, their order of precedence (flag, environment, defaults file,
// built-in) and the checks that a value must pass before anything is opened.
// The trigger's command line calls it. It reads one file
// and never opens a connection.
package settings

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"callhome/internal/device/dial"
	"callhome/internal/sshdexec"
	"callhome/internal/sysexits"
)

// DefaultsFile is read before every call home, where it exists.
const DefaultsFile = "/etc/callhome/trigger.conf"

// DefaultsEnv names another defaults file; it must then exist.
const DefaultsEnv = "CALLHOME_DEFAULTS"

// Call is what one call home is made with, every value checked: whom to call,
// how to connect, and which sshd gets the socket. The rooms below the commands
// take a Call; a change of it is a change for every client.
type Call struct {
	Target

	ConnectTimeout time.Duration
	Attempts       int
	RetryWait      time.Duration
	Dial           dial.Options
	Proxy          Proxy

	Sshd     sshdexec.Command
	Announce bool
	DeviceID string
}

// Settings are all options: those of the call, and those of the program that
// makes it.
type Settings struct {
	Call
	Handover      Handover
	ManagerSocket string

	SshdLog   string
	LogFormat string
	LogLevel  string
	Syslog    bool
}

// Handover is how the connected socket gets to sshd.
type Handover string

// The ways of handing over (docs/handover.md).
const (
	HandoverExec    Handover = "exec"    // the trigger becomes sshd
	HandoverDetach  Handover = "detach"  // sshd is started in a session of its own
	HandoverManager Handover = "manager" // callhome-mgr gets the socket
	HandoverAuto    Handover = "auto"    // manager where one answers, else exec
)

// Proxy is the way through a SOCKS or HTTP CONNECT proxy; the zero value is the
// direct way.
type Proxy struct {
	Scheme      string // "socks5" or "http"; from a configuration also "socks4", "socks4a"
	Target             // of the proxy itself
	Credentials string // file with one line user:password, or ""
}

// Effective is one option's value in force and where it came from: "flag",
// "word" (HOST, PORT or OPAQUE), "environment", a file and line, a preset, or
// "built-in".
type Effective struct {
	Name, Value, Source string
}

// Given is what each source has to say, option name to its values.
type Given map[string][]string

// Load reads the defaults file and the environment and returns the settings
// in force, checked, with one Effective per option in the table's order. flags
// holds what the command line gave; words are HOST, PORT and OPAQUE. A wrong
// value is an error of the source that it came from: sysexits.Usage for the
// command line, sysexits.Config for the others.
func Load(flags Given, words []string, getenv func(string) (string, bool)) (*Settings, []Effective, error) {
	file, err := loadDefaults(getenv)
	if err != nil {
		return nil, nil, err
	}
	given, err := fromWords(words)
	if err != nil {
		return nil, nil, usage(err)
	}
	from := sources{flags, given, getenv, file}
	s := &Settings{}
	var effective []Effective
	var host found // whose HOST:PORT says the port too
	for i := range options {
		o := &options[i]
		f, err := from.lookup(o)
		if err != nil {
			return nil, nil, err
		}
		switch o.Name {
		case "host":
			host = f
		case "port":
			if f, err = portOf(host, f, s.Port); err != nil {
				return nil, nil, err
			}
		}
		for _, v := range f.values {
			if err := o.set(s, v); err != nil {
				return nil, nil, refuse(o, v, f.source, err)
			}
		}
		if o.Name == "host" && f.values != nil {
			f.values = []string{s.Host} // its port has a row of its own
		}
		effective = append(effective, Effective{o.Name, strings.Join(f.values, Separator), f.source})
	}
	if err := s.finish(effective); err != nil {
		return nil, nil, err
	}
	return s, effective, nil
}

// portOf returns what says the port, where host has said the port own (0: it
// has not) in one word with itself.
func portOf(host, port found, own uint16) (found, error) {
	switch {
	case own == 0 || port.rank < host.rank:
		return port, nil
	case port.rank == host.rank:
		err := fmt.Errorf("port given twice, in host %q and as port %q", host.values[0], port.values[0])
		if host.rank == rankCommandLine {
			return found{}, usage(err)
		}
		return found{}, sysexits.New(sysexits.Config, "", fmt.Errorf("%s: %w", host.source, err))
	}
	return found{[]string{decimal(own)}, host.source, host.rank}, nil
}

// sources are all places that an option's value can come from, the highest
// first.
type sources struct {
	flags, words Given
	getenv       func(string) (string, bool)
	file         *defaults
}

// found is what one of them has: values, how it is named, and its rank.
type found struct {
	values []string
	source string
	rank   int
}

// The ranks; a lower one outranks.
const (
	rankCommandLine = iota
	rankEnvironment
	rankFile
	rankBuiltIn
)

// lookup returns what the highest source has for o. A variable or key that is
// set and empty is not set, as a shell's ${X:-} has it.
func (from sources) lookup(o *Option) (found, error) {
	flag, word := from.flags[o.Name], from.words[o.Name]
	if flag != nil && word != nil {
		return found{}, usage(fmt.Errorf("%s given twice, as --%s %q and as the word %q", o.Name, o.Name, flag[0], word[0]))
	}
	if flag != nil {
		return found{flag, "flag", rankCommandLine}, nil
	}
	if word != nil {
		return found{word, "word", rankCommandLine}, nil
	}
	if v, ok := from.getenv(o.Env()); ok && v != "" {
		return found{o.split(v), "environment", rankEnvironment}, nil
	}
	if e, ok := from.file.entries[o.Env()]; ok && e.value != "" {
		return found{o.split(e.value), from.file.path + ":" + strconv.Itoa(e.line), rankFile}, nil
	}
	if o.Default == "" {
		return found{nil, "built-in", rankBuiltIn}, nil
	}
	return found{[]string{o.Default}, "built-in", rankBuiltIn}, nil
}

func (o *Option) split(v string) []string {
	if !o.Repeat {
		return []string{v}
	}
	var out []string
	for _, item := range strings.Split(v, Separator) {
		if item = strings.TrimSpace(item); item != "" {
			out = append(out, item)
		}
	}
	return out
}

// maxAnnounced keeps the announced line at 250 bytes, which every client that
// was tried reads over (docs/clients.md).
const maxAnnounced = 240

// finish applies what depends on more than one option. Errors are of the
// configuration, but for those of the addresses, which callers pass as words.
func (s *Settings) finish(effective []Effective) error {
	if err := s.checkFamily(); err != nil {
		return usage(err)
	}
	if err := s.combine(effective); err != nil {
		return sysexits.New(sysexits.Config, "", err)
	}
	return nil
}

func (s *Settings) combine(effective []Effective) error {
	switch {
	case s.Announce && s.DeviceID == "":
		name, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("announcing the device: no --device-id, and its host name is not known: %w", err)
		}
		if err := CheckDeviceID(name); err != nil {
			return fmt.Errorf("announcing the device by its host name: %w; set --device-id", err)
		}
		s.DeviceID = name
	case !s.Announce:
		s.Sshd.VersionAddendum = s.DeviceID
	}
	if n := len(sshdexec.EncodeOpaque(s.Opaque)); s.Announce && n > maxAnnounced {
		return fmt.Errorf("announcing OPAQUE: encoded it has %d bytes, and no more than %d fit the line that every SSH client tolerates", n, maxAnnounced)
	}
	applyPreset(s, effective)
	useBuiltIn(s, effective)
	s.Sshd.Opaque = s.Opaque
	s.Sshd.DSCP = s.Dial.DSCP
	if s.Proxy.Credentials != "" && s.Proxy.Scheme == "" {
		return errors.New("--proxy-credentials without --proxy")
	}
	return s.Sshd.Check()
}

// installed reports whether a file exists; tests have machines of their own.
var installed = func(file string) bool {
	_, err := os.Stat(file)
	return !errors.Is(err, fs.ErrNotExist)
}

// useBuiltIn takes the sshd configuration that is built in, where no file is named
// and none is installed.
func useBuiltIn(s *Settings, effective []Effective) {
	for i := range effective {
		e := &effective[i]
		if e.Name != "sshd-config" || e.Source != "built-in" {
			continue
		}
		if !installed(s.Sshd.Config) {
			e.Value, e.Source = "", "built-in configuration, "+s.Sshd.Config+" does not exist"
			s.Sshd.Config = ""
		}
	}
}

// checkFamily refuses addresses that no connection can have together.
func (s *Settings) checkFamily() error {
	next := s.Target
	if s.Proxy.Scheme != "" {
		next = s.Proxy.Target
	}
	to, ok := next.Addr()
	from := s.Dial.LocalAddress.Unmap()
	switch {
	case !ok:
		return nil
	case from.IsValid() && from.Is4() != to.Is4():
		return fmt.Errorf("local address %v and %v are not of one family", from, to)
	case to.Is6() && to.IsLinkLocalUnicast() && to.Zone() == "" && from.Zone() == "" && s.Dial.Interface == "":
		return fmt.Errorf("%v is a link-local address; expected its zone too, as in %v%%eth0, or --interface, or a --local-address with a zone", to, to)
	}
	return nil
}

// NeedTarget refuses settings in which no source names a host.
func (s *Settings) NeedTarget() error {
	if s.Host == "" {
		return usage(errors.New("no HOST given; expected HOST [PORT [OPAQUE]]"))
	}
	return nil
}

func fromWords(words []string) (Given, error) {
	if len(words) == 0 {
		return nil, nil
	}
	t, err := ParseWords(words)
	if err != nil {
		return nil, err
	}
	g := Given{"host": {t.Host}}
	if t.Port != 0 {
		g["port"] = []string{decimal(t.Port)}
	}
	if t.Opaque != "" {
		g["opaque"] = []string{t.Opaque}
	}
	return g, nil
}

func decimal(port uint16) string { return strconv.Itoa(int(port)) }

func usage(err error) error {
	return sysexits.New(sysexits.Usage, "callhome-trigger --help lists the options", err)
}

func refuse(o *Option, value, source string, err error) error {
	switch source {
	case "flag", "word":
		return usage(fmt.Errorf("--%s %q: %w", o.Name, value, err))
	}
	return sysexits.New(sysexits.Config, "", fmt.Errorf("%s: %s=%q: %w", source, o.Env(), value, err))
}
