package preflight

import (
	"cmp"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"callhome/internal/device/connect"
	"callhome/internal/device/settings"
	"callhome/internal/sshdexec"
	"callhome/internal/sysexits"

	"golang.org/x/sys/unix"
)

func checkSshd(m *machine) []Finding {
	s := m.s.Sshd.Sshd
	switch {
	case !exists(s):
		return []Finding{lacking(sysexits.NoInput, "apt install openssh-server, or set --sshd", "%s does not exist", s)}
	case m.version == "":
		return []Finding{lacking(sysexits.Config, "set --sshd to OpenSSH's sshd", "%s does not say that it is OpenSSH", s)}
	case m.major < 8 || m.major == 8 && m.minor < 4:
		return []Finding{warn("use OpenSSH 8.4 or later", "%s is %s; callhome is tested with 8.4 to 10.x", s, m.version)}
	}
	return good("%s, %s", s, m.version)
}

func checkPrivsep(m *machine) []Finding {
	switch {
	case m.uid != 0 && m.pam():
		return []Finding{warn("set --sshd-option UsePAM=no and have clients log in as "+m.user+", or run as root", "not running as root: sshd can log in nobody but %s, and only without PAM", m.user)}
	case m.uid != 0:
		return good("not needed: without root's rights sshd logs in nobody but %s", m.user)
	case m.privsepErr != nil:
		return []Finding{lacking(sysexits.OSErr, "install -d -m 0755 "+sshdexec.PrivsepDir, "%v", m.privsepErr)}
	case m.version == "":
		return nil
	}
	for _, line := range m.said("issing privilege separation directory:", "must be owned by root and not group or world-writable") {
		dir, _, _ := strings.Cut(strings.TrimSpace(line[strings.LastIndex(line, ":")+1:]), " ")
		return []Finding{lacking(sysexits.Config, "install -d -o root -g root -m 0755 "+dir, "%s", line)}
	}
	return good("directory in order")
}

func checkConfig(m *machine) []Finding {
	c := m.s.Sshd.Config
	name := cmp.Or(c, "the built-in configuration")
	switch {
	case c != "" && !exists(c):
		return []Finding{lacking(sysexits.NoInput, "install packaging/sshd_config there, or leave --sshd-config out", "%s does not exist", c)}
	case m.version == "":
		return nil
	case m.testOK:
		return good("sshd -t accepts %s and the options beside it", name)
	}
	// Its own lines, less what other checks say with more help.
	var out []Finding
	for line := range strings.Lines(m.testWords) {
		line = clean(line)
		if line == "" || isKeyLine(line) || strings.Contains(line, "rivilege separation") {
			continue
		}
		mend := "mend that line; sshd_config(5)"
		if strings.HasPrefix(line, "command-line: ") {
			mend = "mend --sshd-option; sshd_config(5)"
		}
		out = append(out, lacking(sysexits.Config, mend, "sshd -t: %s", line))
	}
	if out == nil {
		return good("sshd -t finds no fault in %s itself", name)
	}
	return out
}

func isKeyLine(line string) bool {
	for _, w := range []string{"host key", "hostkey", "host certificate", "UNPROTECTED", "@@@@", "Permissions ", "private key", "bad permissions", "No matching private key"} {
		if strings.Contains(line, w) {
			return true
		}
	}
	return false
}

func checkHostKeys(m *machine) []Finding {
	if m.version == "" {
		return nil
	}
	var out []Finding
	for _, k := range m.s.Sshd.HostKeys {
		switch {
		case !exists(k):
			out = append(out, lacking(sysexits.NoInput, "make it with ssh-keygen -t ed25519 -N '' -f "+k, "%s does not exist", k))
		case unix.Access(k, unix.R_OK) != nil:
			out = append(out, lacking(sysexits.NoPerm, "make it accessible to this user, or name one of its own", "%s may not be read by %s", k, m.user))
		}
	}
	if out != nil {
		return out
	}
	if kept := m.keptKeys(); kept != nil && m.said("no hostkeys available") != nil {
		return []Finding{lacking(sysexits.NoInput, "make one of "+m.user+"'s own: ssh-keygen -q -t ed25519 -N '' -f ~/host_key, and set --host-key",
			"%s are not for %s to read", strings.Join(kept, ", "), m.user)}
	}
	for _, line := range m.said("Unable to load host key", "bad permissions", "are too open") {
		out = append(out, warn("ssh-keygen -A makes missing default keys; a key needs mode 0600", "%s; sshd goes on without this key", line))
	}
	if lines := m.said("no hostkeys available"); lines != nil {
		return append(out, lacking(sysexits.NoInput, "ssh-keygen -A, or set --host-key", "%s", lines[0]))
	}
	if m.config == nil {
		return out
	}
	loaded := 0
	for _, k := range m.config["hostkey"] {
		if exists(k) {
			loaded++
		}
	}
	return append(out, good("%d of %d there", loaded, len(m.config["hostkey"]))...)
}

// keptKeys returns the host keys that sshd could not load though they are
// there, where that is because we are not root. Of its default ones it says
// nothing.
func (m *machine) keptKeys() []string {
	if m.uid == 0 {
		return nil
	}
	lines := m.said("Unable to load host key: ")
	if lines == nil {
		files, _ := filepath.Glob(m.defaultKeys) // the pattern is ours
		return files
	}
	var out []string
	for _, line := range lines {
		if _, file, _ := strings.Cut(line, "host key: "); exists(file) {
			out = append(out, file)
		}
	}
	return out
}

func checkHostCertificates(m *machine) []Finding {
	var out []Finding
	for _, line := range m.said("Could not load host certificate", "No matching private key for certificate") {
		out = append(out, warn("sign the host key: ssh-keygen -s CA -I ID -h -n NAME KEY.pub", "%s; sshd goes on without it, and a client that trusts the CA alone will refuse the device", line))
	}
	for _, c := range m.s.Sshd.HostCertificates {
		if !exists(c) {
			return []Finding{lacking(sysexits.NoInput, "sign the host key: ssh-keygen -s CA -I ID -h -n NAME KEY.pub", "%s does not exist", c)}
		}
	}
	for _, c := range m.config["hostcertificate"] {
		if c != "none" && out == nil {
			out = append(out, good("%s", c)...)
		}
	}
	return out
}

// checkUserCA looks itself: sshd says nothing of a CA file that is not there.
func checkUserCA(m *machine) []Finding {
	var out []Finding
	for _, keyword := range []string{"trustedusercakeys", "authorizedprincipalsfile", "revokedkeys"} {
		for _, file := range m.config[keyword] {
			switch {
			case file == "none" || !strings.HasPrefix(file, "/") || strings.Contains(file, "%"):
			case exists(file):
				out = append(out, good("%s", file)...)
			default:
				out = append(out, warn("put the file there, or take the option out", "%s names %s, which does not exist; sshd reports nothing and refuses the logins that need it", keyword, file))
			}
		}
	}
	return out
}

func checkSubsystem(m *machine) []Finding {
	command := m.s.Sshd.Subsystem
	if command == "" {
		for _, line := range m.config["subsystem"] {
			if name, rest, _ := strings.Cut(line, " "); name == "netconf" {
				command = rest
			}
		}
	}
	words := strings.Fields(command)
	if len(words) == 0 {
		return []Finding{lacking(sysexits.Config, settings.SubsystemHint(), "no command for the netconf subsystem")}
	}
	program := strings.Trim(words[0], `"'`)
	if !strings.HasPrefix(program, "/") {
		return []Finding{warn("set --subsystem with the program's absolute path", "%s is looked for in the PATH that sshd gives the user, which has no sbin", program)}
	}
	if _, err := exec.LookPath(program); err != nil {
		return []Finding{lacking(sysexits.Config, "install the NETCONF server, or set --subsystem", "%s cannot be executed: %v", program, unwrapped(err))}
	}
	if path := netconfdSocket(words); path != "" {
		conn, err := net.DialTimeout("unix", path, socketTime)
		if err != nil {
			return []Finding{lacking(sysexits.Unavailable, "start netconfd, or set --subsystem with its --ncxserver-sockname=PORT@PATH", "no netconfd answers at %s: %v", path, unwrapped(err))}
		}
		conn.Close()
	}
	if p := m.s.Sshd.SSHConnectionPort; p != 0 {
		return good("%s, which sees server port %d", command, p)
	}
	return good("%s", command)
}

// netconfdSocket returns where yuma123's subsystem program looks for netconfd,
// "" for another program.
func netconfdSocket(words []string) string {
	if filepath.Base(strings.Trim(words[0], `"'`)) != "netconf-subsystem" {
		return ""
	}
	path := "/tmp/ncxserver.sock" // built in
	for _, w := range words[1:] {
		if v, ok := strings.CutPrefix(strings.Trim(w, `"'`), "--ncxserver-sockname="); ok {
			_, path, _ = strings.Cut(v, "@")
		}
	}
	return path
}

// unwrapped returns the cause of a failure that names itself what it was about.
func unwrapped(err error) error {
	var program *exec.Error
	var call *os.SyscallError
	switch {
	case errors.As(err, &program):
		return program.Err
	case errors.As(err, &call):
		return call.Err
	}
	return err
}

// checkSource tries where a call home would leave from, where that is set.
func checkSource(m *machine) []Finding {
	o := m.s.Dial
	var from []string
	if o.LocalAddress.IsValid() {
		from = append(from, o.LocalAddress.String())
	}
	if o.LocalPort != 0 {
		from = append(from, "port "+strconv.Itoa(int(o.LocalPort)))
	}
	if o.Interface != "" {
		from = append(from, "interface "+o.Interface)
	}
	if o.Netns != "" {
		from = append(from, "namespace "+o.Netns)
	}
	if from == nil {
		return nil
	}
	if err := connect.TrySource(o); err != nil {
		return []Finding{lacking(sysexits.Code(err), cmp.Or(sysexits.Hint(err), "check --local-address and --local-port"), "%v", err)}
	}
	return good("%s", strings.Join(from, ", "))
}

// checkKeepalive works out when a client that vanished without a word is
// noticed, by sshd and by TCP.
func checkKeepalive(m *machine) []Finding {
	if m.config == nil {
		return nil
	}
	ssh := m.number("clientaliveinterval") * (m.number("clientalivecountmax") + 1)
	if m.number("clientalivecountmax") == 0 {
		ssh = 0 // never
	}
	slow := ""
	if m.major == 9 && m.minor >= 2 && m.minor < 5 {
		ssh, slow = 2*ssh, ", as this version takes twice as long (mended in 9.5)"
	}
	k := m.s.Dial.KeepAlive
	tcp := k.Idle + k.Interval*k.Count
	switch {
	case ssh == 0 && tcp == 0:
		return []Finding{warn("set --ssh-keepalive 30,3 and --tcp-keepalive 30,10,6", "none: a client that vanishes without a word holds its session for ever")}
	case ssh == 0:
		return []Finding{warn("set --ssh-keepalive 30,3", "TCP alone, after %d s; RFC 8071 section 4.1 asks for SSH's", tcp)}
	case tcp == 0 || ssh < tcp:
		return good("a silent client is dropped after %d s, by sshd%s", ssh, slow)
	}
	return good("a silent client is dropped after %d s by TCP, after %d s by sshd%s", tcp, ssh, slow)
}
