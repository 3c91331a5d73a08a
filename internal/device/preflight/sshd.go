package preflight

import (
	"cmp"
	"strings"

	"callhome/internal/sshdexec"
	"callhome/internal/sysexits"
)

func checkSshd(m *machine) []Finding {
	s := m.s.Sshd.Sshd
	switch {
	case !exists(s):
		return []Finding{lacking(sysexits.NoInput, "apt install openssh-server, or set --sshd", "%s does not exist", s)}
	case m.version == "":
		return []Finding{lacking(sysexits.Config, "set --sshd to OpenSSH's sshd", "%s is not OpenSSH's sshd: -V prints no OpenSSH version", s)}
	case m.major < 8 || m.major == 8 && m.minor < 4:
		return []Finding{warn("use OpenSSH 8.4 or later", "%s is %s; callhome is tested with 8.4 to 10.x", s, m.version)}
	}
	return good("%s, %s", s, m.version)
}

func checkPrivsep(m *machine) []Finding {
	switch {
	case m.uid != 0 && m.pam():
		return []Finding{warn("set --sshd-option UsePAM=no and have clients log in as "+m.user+", or run as root", "not running as root: only %s can log in, and only without PAM", m.user)}
	case m.uid != 0:
		return good("not needed: not running as root, and logins only as %s", m.user)
	case m.privsepErr != nil:
		return []Finding{lacking(sysexits.OSErr, "install -d -m 0755 "+sshdexec.PrivsepDir, "%v", m.privsepErr)}
	case m.version == "":
		return nil
	}
	for _, line := range m.testLines("issing privilege separation directory:", "must be owned by root and not group or world-writable") {
		dir, _, _ := strings.Cut(strings.TrimSpace(line[strings.LastIndex(line, ":")+1:]), " ")
		return []Finding{lacking(sysexits.Config, "install -d -o root -g root -m 0755 "+dir, "%s", line)}
	}
	return good("the directory exists, with the right owner and mode")
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
		return good("sshd -t accepts %s and the options given", name)
	}
	// Without the lines that other checks report.
	var out []Finding
	for line := range strings.Lines(m.testOutput) {
		line = strings.TrimSpace(line)
		if line == "" || isKeyLine(line) || strings.Contains(line, "rivilege separation") {
			continue
		}
		fix := "correct that line; sshd_config(5)"
		if strings.HasPrefix(line, "command-line: ") {
			fix = "correct --sshd-option; sshd_config(5)"
		}
		out = append(out, lacking(sysexits.Config, fix, "sshd -t: %s", line))
	}
	if out == nil {
		return good("sshd -t finds no fault in %s itself", name)
	}
	return out
}

func isKeyLine(line string) bool {
	for _, text := range []string{"host key", "hostkey", "host certificate", "UNPROTECTED", "@@@@", "Permissions ", "private key", "bad permissions", "No matching private key"} {
		if strings.Contains(line, text) {
			return true
		}
	}
	return false
}

// checkKeepalive computes when sshd and TCP detect that a client has vanished.
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
		ssh, slow = 2*ssh, ", as this version takes twice as long (fixed in 9.5)"
	}
	k := m.s.Dial.KeepAlive
	tcp := k.Idle + k.Interval*k.Count
	switch {
	case ssh == 0 && tcp == 0:
		return []Finding{warn("set --ssh-keepalive 30,3 and --tcp-keepalive 30,10,6", "none: the session of a client that vanished never ends")}
	case ssh == 0:
		return []Finding{warn("set --ssh-keepalive 30,3", "TCP alone, after %d s; RFC 8071 section 4.1 asks for SSH's", tcp)}
	case tcp == 0 || ssh < tcp:
		return good("a silent client is dropped after %d s, by sshd%s", ssh, slow)
	}
	return good("a silent client is dropped after %d s by TCP, after %d s by sshd%s", tcp, ssh, slow)
}
