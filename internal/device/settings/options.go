package settings

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"callhome/internal/device/dial"
	"callhome/internal/proto"
	"callhome/internal/sshdexec"
)

// Separator separates the values of a repeatable option in one string: in the
// environment, in the defaults file and in the output of --show-config.
const Separator = ";"

// maxInterfaceName is IFNAMSIZ less its NUL (netdevice(7)).
const maxInterfaceName = 15

// Option is one row of the table: an option of the command line, an environment
// variable and a key of the defaults file.
type Option struct {
	Name    string
	Arg     string // placeholder of the value in help; "" for a switch
	Default string
	Usage   string
	Repeat  bool
	Values  []string // the values that it can have; nil: those that set takes
	set     func(*Settings, string) error
	// otherwise is what to do where none of Values fits.
	otherwise string
}

// Env returns the option's name as environment variable and as key of the
// defaults file.
func (o *Option) Env() string {
	return "CALLHOME_" + strings.ToUpper(strings.ReplaceAll(o.Name, "-", "_"))
}

// Options returns a copy of the table, in the order of help and --show-config.
func Options() []Option { return append([]Option(nil), options...) }

var options = []Option{
	{Name: "host", Arg: "HOST", Usage: "NETCONF client to call: a name or an address",
		set: func(s *Settings, v string) error { return setHost(&s.Target, v) }},
	{Name: "port", Arg: "PORT", Default: decimal(proto.DefaultPort), Usage: "port of the NETCONF client (netconf-ch-ssh)",
		set: func(s *Settings, v string) (err error) { s.Port, err = parsePort(v); return }},
	{Name: "opaque", Arg: "TEXT", Usage: "data for the log and, as CALLHOME_OPAQUE, for the session",
		set: func(s *Settings, v string) (err error) { s.Opaque, err = parseOpaque(v); return }},
	{Name: "handover", Arg: "MODE", Default: "auto", Usage: "how sshd gets the socket: exec, detach, manager, or auto (manager if one answers, else exec)",
		Values: []string{"exec", "detach", "manager", "auto"},
		set:    func(s *Settings, v string) error { s.Handover = Handover(v); return nil }},
	{Name: "manager-socket", Arg: "PATH", Default: proto.DefaultSocket, Usage: "socket of callhome-mgr",
		set: func(s *Settings, v string) error { return absolute(v, &s.ManagerSocket) }},

	{Name: "connect-timeout", Arg: "TIME", Default: "5s", Usage: "time limit of one attempt, for all addresses together",
		set: func(s *Settings, v string) error {
			return duration(v, &s.ConnectTimeout, 10*time.Millisecond, time.Hour)
		}},
	{Name: "attempts", Arg: "NUMBER", Default: "1", Usage: "number of attempts",
		set: func(s *Settings, v string) error { return number(v, &s.Attempts, 1, 1000) }},
	{Name: "retry-wait", Arg: "TIME", Default: "1s", Usage: "pause between two attempts",
		set: func(s *Settings, v string) error { return duration(v, &s.RetryWait, 0, 24*time.Hour) }},
	{Name: "local-address", Arg: "ADDRESS", Usage: "source address",
		set: func(s *Settings, v string) (err error) {
			if s.Dial.LocalAddress, err = netip.ParseAddr(v); err != nil {
				return fmt.Errorf("not an IP address")
			}
			return nil
		}},
	{Name: "local-port", Arg: "PORT", Usage: "source port",
		set: func(s *Settings, v string) (err error) { s.Dial.LocalPort, err = parsePort(v); return }},
	{Name: "interface", Arg: "INTERFACE", Usage: "interface or VRF of the connection (SO_BINDTODEVICE)",
		set: func(s *Settings, v string) error {
			s.Dial.Interface = v
			return CheckInterface(v)
		}},
	{Name: "netns", Arg: "PATH", Usage: "network namespace to connect in, as /run/netns/NAME",
		set: func(s *Settings, v string) error { return absolute(v, &s.Dial.Netns) }},
	{Name: "tcp-keepalive", Arg: "IDLE,INTERVAL,COUNT", Default: "30,10,6", Usage: "TCP keepalive in seconds and probes; off for none",
		set: func(s *Settings, v string) error { return setKeepalive(&s.Dial, v) }},
	{Name: "tcp-user-timeout", Arg: "TIME", Default: "90s", Usage: "time limit for unacknowledged data; 0 for the kernel's own",
		set: func(s *Settings, v string) error { return duration(v, &s.Dial.UserTimeout, 0, 24*time.Hour) }},
	{Name: "dscp", Arg: "NUMBER", Usage: "DSCP of the packets, 0 to 63",
		set: func(s *Settings, v string) error {
			s.Dial.DSCP = new(int)
			return number(v, s.Dial.DSCP, 0, 63)
		}},
	{Name: "proxy", Arg: "URL", Usage: "socks5://HOST:PORT or http://HOST:PORT (CONNECT)",
		set: setProxy},
	{Name: "proxy-credentials", Arg: "FILE", Usage: "file with one line user:password for the proxy",
		set: func(s *Settings, v string) error { return path(v, &s.Proxy.Credentials) }},

	{Name: "sshd", Arg: "FILE", Default: "/usr/sbin/sshd", Usage: "the sshd to run",
		set: func(s *Settings, v string) error { return absolute(v, &s.Sshd.Sshd) }},
	{Name: "sshd-config", Arg: "FILE", Default: "/etc/callhome/sshd_config", Usage: "sshd's configuration; if the default does not exist, the built-in copy of it",
		set: func(s *Settings, v string) error { return path(v, &s.Sshd.Config) }},
	{Name: "host-key", Arg: "FILE", Repeat: true, Usage: "host key, instead of sshd's default ones",
		set: func(s *Settings, v string) error { return appendPath(v, &s.Sshd.HostKeys) }},
	{Name: "host-certificate", Arg: "FILE", Repeat: true, Usage: "certificate of a host key",
		set: func(s *Settings, v string) error { return appendPath(v, &s.Sshd.HostCertificates) }},
	{Name: "netconf-server", Arg: "NAME", Usage: "preset of --subsystem and --ssh-connection-port: " + strings.Join(PresetNames(), ", ") + "; none cancels a preset",
		Values: append(PresetNames(), noPreset), otherwise: "; for another server set --subsystem",
		set: setPreset},
	{Name: "subsystem", Arg: "COMMAND", Usage: "command that serves the netconf subsystem",
		set: func(s *Settings, v string) error {
			if hasControl(v) {
				return fmt.Errorf("contains a control character")
			}
			s.Sshd.Subsystem = v
			return nil
		}},
	{Name: "ssh-connection-port", Arg: "PORT", Usage: "server port that the subsystem sees in SSH_CONNECTION",
		set: func(s *Settings, v string) (err error) { s.Sshd.SSHConnectionPort, err = parsePort(v); return }},
	{Name: "ssh-keepalive", Arg: "INTERVAL,COUNT", Usage: "SSH keepalive in seconds and unanswered probes, instead of sshd_config's",
		set: func(s *Settings, v string) error {
			n, err := numbers(v, 2, 86400)
			if err == nil {
				s.Sshd.KeepAlive = &sshdexec.KeepAlive{Interval: n[0], CountMax: n[1]}
			}
			return err
		}},
	{Name: "sshd-option", Arg: "KEY=VALUE", Repeat: true, Usage: "any other option of sshd_config(5)",
		set: func(s *Settings, v string) error {
			s.Sshd.Options = append(s.Sshd.Options, v)
			return sshdexec.CheckOption(v)
		}},
	{Name: "sshd-log", Arg: "FILE", Default: "auto", Usage: "where sshd logs: auto, syslog, stderr or a file",
		set: func(s *Settings, v string) error {
			if v == "auto" || v == "syslog" || v == "stderr" {
				s.SshdLog = v
				return nil
			}
			if err := absolute(v, &s.SshdLog); err != nil {
				return fmt.Errorf("expected auto, syslog, stderr or the absolute path of a file")
			}
			return nil
		}},
	{Name: "announce", Usage: "write MSG-ID, MSG-VER and DEVICE-ID lines before sshd's version string",
		set: func(s *Settings, v string) error { return boolean(v, &s.Announce) }},
	{Name: "device-id", Arg: "ID", Usage: "the device's identifier: for --announce, else in sshd's version string",
		set: func(s *Settings, v string) error { s.DeviceID = v; return CheckDeviceID(v) }},

	{Name: "log-format", Arg: "FORMAT", Default: "text", Usage: "text or json",
		Values: []string{"text", "json"},
		set:    func(s *Settings, v string) error { s.LogFormat = v; return nil }},
	{Name: "log-level", Arg: "LEVEL", Default: "warn", Usage: "debug, info, warn or error",
		Values: []string{"debug", "info", "warn", "error"},
		set:    func(s *Settings, v string) error { s.LogLevel = v; return nil }},
	{Name: "syslog", Usage: "log to syslog (facility daemon) instead of stderr",
		set: func(s *Settings, v string) error { return boolean(v, &s.Syslog) }},
}

func setHost(t *Target, v string) error {
	host, port, err := splitHost(v)
	if err != nil {
		return err
	}
	t.Host, t.Port = host, port
	return nil
}

func setProxy(s *Settings, v string) error {
	scheme, rest, ok := strings.Cut(v, "://")
	if !ok || scheme != "socks5" && scheme != "http" {
		return fmt.Errorf("expected socks5://HOST:PORT or http://HOST:PORT")
	}
	if strings.Contains(rest, "@") {
		return fmt.Errorf("every user of this machine can read a command line; use --proxy-credentials FILE")
	}
	rest = strings.Replace(rest, "%25", "%", 1) // a zone in a URL (RFC 6874)
	host, port, err := splitHost(strings.TrimSuffix(rest, "/"))
	if err != nil {
		return err
	}
	if port == 0 {
		return fmt.Errorf("no port; expected %s://HOST:PORT", scheme)
	}
	s.Proxy.Scheme, s.Proxy.Host, s.Proxy.Port = scheme, host, port
	return nil
}

func setKeepalive(o *dial.Options, v string) error {
	if v == "off" {
		o.KeepAlive = dial.KeepAlive{}
		return nil
	}
	n, err := numbers(v, 3, 32767)
	if err != nil {
		return err
	}
	if n[0] == 0 || n[1] == 0 || n[2] == 0 || n[2] > 127 {
		return fmt.Errorf("idle and interval are 1 to 32767 s, count 1 to 127 (tcp(7))")
	}
	o.KeepAlive = dial.KeepAlive{Idle: n[0], Interval: n[1], Count: n[2]}
	return nil
}

// take checks a value and sets it.
func (o *Option) take(s *Settings, v string) error {
	if last := len(o.Values) - 1; last > 0 && !slices.Contains(o.Values, v) {
		return fmt.Errorf("expected %s or %s%s", strings.Join(o.Values[:last], ", "), o.Values[last], o.otherwise)
	}
	return o.set(s, v)
}

func boolean(v string, to *bool) (err error) {
	if *to, err = strconv.ParseBool(v); err != nil {
		return fmt.Errorf("expected true or false")
	}
	return nil
}

func number(v string, to *int, low, high int) error {
	n, err := strconv.Atoi(v)
	if err != nil || n < low || n > high {
		return fmt.Errorf("expected a number from %d to %d", low, high)
	}
	*to = n
	return nil
}

func numbers(v string, count, high int) ([]int, error) {
	parts := strings.Split(v, ",")
	if len(parts) != count {
		return nil, fmt.Errorf("expected %d numbers, separated by commas", count)
	}
	out := make([]int, count)
	for i, p := range parts {
		if err := number(p, &out[i], 0, high); err != nil {
			return nil, fmt.Errorf("%q: %w", p, err)
		}
	}
	return out, nil
}

// duration parses Go's notation (5s, 1m30s) or a number of seconds, as cmdline's
// DurationFlag does.
func duration(v string, to *time.Duration, low, high time.Duration) error {
	if v != "" && strings.Trim(v, "0123456789.") == "" {
		v += "s"
	}
	d, err := time.ParseDuration(v)
	if err != nil || d < low || d > high {
		return fmt.Errorf("expected a time from %v to %v, as 5s or 500ms", low, high)
	}
	*to = d
	return nil
}

func path(v string, to *string) error {
	if v == "" || v[0] == '-' || hasControl(v) {
		return fmt.Errorf("not a usable file name")
	}
	*to = v
	return nil
}

func appendPath(v string, to *[]string) error {
	var p string
	if err := path(v, &p); err != nil {
		return err
	}
	*to = append(*to, p)
	return nil
}

func absolute(v string, to *string) error {
	if !filepath.IsAbs(v) {
		return fmt.Errorf("expected an absolute path")
	}
	return path(v, to)
}

func hasControl(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}
