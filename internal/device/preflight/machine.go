package preflight

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"callhome/internal/device/settings"
	"callhome/internal/sshdexec"
)

// sshdTime bounds each run of sshd.
const sshdTime = 10 * time.Second

// socketTime bounds each connect to a Unix socket.
const socketTime = 2 * time.Second

// machine is what the checks examine, collected once by inspect.
type machine struct {
	s          *settings.Settings
	uid        int    // of this process
	user       string // its name
	version    string // "OpenSSH_9.2p1 ...", "" if sshd does not run
	major      int
	minor      int
	config     map[string][]string // sshd -T: keyword in lower case to its values
	testOutput string              // of sshd -t
	testOK     bool
	accounts   []account
	perUser    bool    // the configuration can differ between users
	logins     []login // of the users that it admits
	ownUsers   bool    // standing connections have users of their own
	// privsepErr is why the privilege separation directory cannot be made.
	privsepErr error
	pamSetup   *pamSetup // nil where sshd does not run
	// defaultKeys is a pattern of the files that sshd takes host keys from
	// where nothing else is set.
	defaultKeys string
}

// number returns the value of a numeric keyword, 0 if it has none.
func (m *machine) number(keyword string) int {
	values := m.config[keyword]
	if len(values) == 0 {
		return 0
	}
	n, _ := strconv.Atoi(values[0])
	return n
}

// pam reports whether sshd uses PAM: the dump decides, else the options.
func (m *machine) pam() bool {
	if v := m.config["usepam"]; len(v) > 0 {
		return v[0] != "no"
	}
	return !slices.ContainsFunc(m.s.Sshd.Options, func(o string) bool { return strings.EqualFold(o, "UsePAM=no") })
}

// inspect runs sshd and collects what the checks examine.
func inspect(s *settings.Settings) *machine {
	m := &machine{s: s, uid: os.Geteuid(), privsepErr: sshdexec.MakePrivsepDir(), defaultKeys: "/etc/ssh/ssh_host_*_key"}
	m.user = "user " + strconv.Itoa(m.uid)
	m.accounts = accounts()
	for _, a := range m.accounts {
		if a.uid == m.uid {
			m.user = a.name
			break
		}
	}
	// Before 9.2 -V is an unknown option, whose usage message has the version.
	out, _ := ask(s, "-V")
	m.version, m.major, m.minor = parseVersion(out)
	if m.version == "" {
		return m
	}
	args := s.Sshd.TestArgs()
	m.testOutput, m.testOK = ask(s, append([]string{"-t"}, args...)...)
	if dump, ok := ask(s, append([]string{"-T"}, args...)...); ok {
		m.config = parseDump(dump)
		m.perUser = hasMatch(s.Sshd.Config)
		m.accounts = lookUp(m.config, m.accounts)
		m.logins = m.findLogins(m.accounts)
		p := m.findPAM()
		m.pamSetup = &p
	}
	return m
}

// hasMatch reports whether an sshd_config has a Match block, or may include one.
func hasMatch(file string) bool {
	data, err := os.ReadFile(file)
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		if len(fields) > 0 && (strings.EqualFold(fields[0], "Match") || strings.EqualFold(fields[0], "Include")) {
			return true
		}
	}
	return false
}

// ask runs sshd and returns its standard output and error.
func ask(s *settings.Settings, args ...string) (string, bool) {
	ctx, cancel := context.WithTimeout(context.Background(), sshdTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.Sshd.Sshd, args...)
	cmd.Env = sshdexec.Environ()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err == nil
}

// parseVersion finds "OpenSSH_9.2p1 Debian-2, ..." in the output of sshd -V.
func parseVersion(output string) (version string, major, minor int) {
	i := strings.Index(output, "OpenSSH_")
	if i < 0 {
		return "", 0, 0
	}
	version, _, _ = strings.Cut(output[i:], "\n")
	version, _, _ = strings.Cut(version, ",")
	number := strings.TrimPrefix(version, "OpenSSH_")
	end := strings.IndexFunc(number, func(r rune) bool { return r != '.' && (r < '0' || r > '9') })
	if end >= 0 {
		number = number[:end]
	}
	a, b, _ := strings.Cut(number, ".")
	major, _ = strconv.Atoi(a)
	minor, _ = strconv.Atoi(b)
	return strings.TrimSpace(version), major, minor
}

// parseDump reads sshd -T: "keyword value" lines. 10.x writes the keywords in
// CamelCase, versions before in lower case.
func parseDump(dump string) map[string][]string {
	config := make(map[string][]string)
	for line := range strings.Lines(dump) {
		key, value, ok := strings.Cut(strings.TrimRight(line, "\r\n"), " ")
		if ok {
			key = strings.ToLower(key)
			config[key] = append(config[key], value)
		}
	}
	return config
}

// testLines returns the lines of sshd -t that contain one of texts.
func (m *machine) testLines(texts ...string) []string {
	var out []string
	for line := range strings.Lines(m.testOutput) {
		for _, text := range texts {
			if strings.Contains(line, text) {
				out = append(out, strings.TrimSpace(line))
				break
			}
		}
	}
	return out
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
