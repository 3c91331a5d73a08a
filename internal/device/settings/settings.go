// Package settings owns the options of a call home: their table, the precedence of
// their sources (flag, environment, defaults file, built-in), and the checks of
// their values. The commands of the device load it; the packages below take a Call.
// It reads the defaults file, checks sshd's files, and never opens a connection.
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

// DefaultsFile is read before every call home, if it exists.
const DefaultsFile = "/etc/callhome/trigger.conf"

// DefaultsEnv names another defaults file; it must then exist.
const DefaultsEnv = "CALLHOME_DEFAULTS"

// Call has the checked options of one call home: the target, the connection, and the
// sshd that gets the socket. A change of it restarts every client's schedule
// (package reconnect).
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

// Settings are all options: those of the call home, and those of the program.
type Settings struct {
	Call
	Handover      Handover
	ManagerSocket string

	SshdLog   string
	LogFormat string
	LogLevel  string
	Syslog    bool
}

// Handover selects how sshd gets the connected socket.
type Handover string

// The ways of handing over (docs/handover.md).
const (
	HandoverExec    Handover = "exec"    // the trigger becomes sshd
	HandoverDetach  Handover = "detach"  // sshd is started in a session of its own
	HandoverManager Handover = "manager" // callhome-mgr gets the socket
	HandoverAuto    Handover = "auto"    // manager where one answers, else exec
)

// Proxy is a SOCKS or HTTP CONNECT proxy; the zero value is a direct connection.
type Proxy struct {
	Scheme      string // "socks5" or "http"; from a configuration also "socks4", "socks4a"
	Target             // of the proxy itself
	Credentials string // file with one line user:password, or ""
}

// Effective is one option's value in force and its source: "flag", "word" (the
// arguments HOST, PORT and OPAQUE), "environment", a file and line, a preset, or
// "built-in".
type Effective struct {
	Name, Value, Source string
}

// Given has the values of one source, by option name.
type Given map[string][]string

// Load reads the defaults file and the environment and returns the checked settings,
// with one Effective per option in the table's order. flags has the options of the
// command line, args HOST, PORT and OPAQUE. A wrong value has the exit status of its
// source: sysexits.Usage for the command line, sysexits.Config for the others.
func Load(flags Given, args []string, getenv func(string) (string, bool)) (*Settings, []Effective, error) {
	file, err := loadDefaults(getenv)
	if err != nil {
		return nil, nil, err
	}
	given, err := fromArgs(args)
	if err != nil {
		return nil, nil, usage(err)
	}
	from := sources{flags, given, getenv, file}
	s := &Settings{}
	effective := make([]Effective, 0, len(options))
	var host found // may have the port too, as HOST:PORT
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
			if err := o.take(s, v); err != nil {
				return nil, nil, refuse(o, v, f.source, err)
			}
		}
		if o.Name == "host" && f.values != nil {
			f.values = []string{s.Host} // the port has its own row
		}
		effective = append(effective, Effective{o.Name, strings.Join(f.values, Separator), f.source})
	}
	if err := s.finish(effective); err != nil {
		return nil, nil, err
	}
	return s, effective, nil
}

// portOf returns the source of the port. own is the port that host has as HOST:PORT;
// 0: none.
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

// sources are all sources of an option's value, the highest first.
type sources struct {
	flags, args Given
	getenv      func(string) (string, bool)
	file        *defaults
}

// found has the values of one source, its name and its rank.
type found struct {
	values []string
	source string
	rank   int
}

// The ranks; a lower one takes precedence.
const (
	rankCommandLine = iota
	rankEnvironment
	rankFile
	rankBuiltIn
)

// lookup returns the values of the highest source that has o. An empty variable or
// key counts as not set, as in a shell's ${X:-}.
func (from sources) lookup(o *Option) (found, error) {
	flag, arg := from.flags[o.Name], from.args[o.Name]
	if flag != nil && arg != nil {
		return found{}, usage(fmt.Errorf("%s given twice, as --%s %q and as the argument %q", o.Name, o.Name, flag[0], arg[0]))
	}
	if flag != nil {
		return found{flag, "flag", rankCommandLine}, nil
	}
	if arg != nil {
		return found{arg, "word", rankCommandLine}, nil
	}
	key := o.Env()
	if v, ok := from.getenv(key); ok && v != "" {
		return found{o.split(v), "environment", rankEnvironment}, nil
	}
	if e, ok := from.file.entries[key]; ok && e.value != "" {
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

// maxAnnounced limits the announced line to 250 bytes, which every tested client
// skips (docs/clients.md).
const maxAnnounced = 240

// finish applies the rules that concern several options. Their errors have the
// status of a configuration, except those of addresses, which are arguments.
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
			return fmt.Errorf("announcing the device: no --device-id, and the host name is unknown: %w", err)
		}
		if err := CheckDeviceID(name); err != nil {
			return fmt.Errorf("announcing the device by its host name: %w; set --device-id", err)
		}
		s.DeviceID = name
	case !s.Announce:
		s.Sshd.VersionAddendum = s.DeviceID
	}
	if n := len(sshdexec.EncodeOpaque(s.Opaque)); s.Announce && n > maxAnnounced {
		return fmt.Errorf("announcing OPAQUE: it has %d bytes when encoded; at most %d fit the line that every SSH client accepts", n, maxAnnounced)
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

// installed reports whether a file exists; tests replace it.
var installed = func(file string) bool {
	_, err := os.Stat(file)
	return !errors.Is(err, fs.ErrNotExist)
}

// useBuiltIn selects the built-in sshd configuration, if no file is given and none is
// installed.
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

// checkFamily refuses a local and a remote address of different families, and a
// link-local address without an interface.
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

// NeedTarget refuses settings without a host.
func (s *Settings) NeedTarget() error {
	if s.Host == "" {
		return usage(errors.New("no HOST given; expected HOST [PORT [OPAQUE]]"))
	}
	return nil
}

func fromArgs(args []string) (Given, error) {
	if len(args) == 0 {
		return nil, nil
	}
	t, err := ParseTarget(args)
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
