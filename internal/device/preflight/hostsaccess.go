package preflight

import (
	"bytes"
	"os"

	"callhome/internal/device/hostsaccess"
	"callhome/internal/sysexits"
)

// sessionPrograms are what sshd executes for a connection since 9.8; Debian's is linked
// to libwrap then.
var sessionPrograms = []string{"/usr/lib/openssh/sshd-session", "/usr/libexec/openssh/sshd-session", "/usr/libexec/sshd-session"}

// checkHostsAccess reports the line by which an sshd with libwrap refuses NETCONF
// clients, which sshd itself does not log.
func checkHostsAccess(m *machine) []Finding {
	programs := sessionPrograms
	if m.s != nil {
		programs = append([]string{m.s.Sshd.Sshd}, programs...)
	}
	for _, p := range programs {
		if linked(p) {
			return hostsAccessFindings(hostsaccess.Dir)
		}
	}
	return nil
}

func hostsAccessFindings(dir string) []Finding {
	r, found := hostsaccess.Denying(dir)
	switch {
	case !found:
		return good("this sshd has libwrap, and no line of hosts.deny is for sshd")
	case r.All:
		return []Finding{lacking(sysexits.NoPerm, "admit the NETCONF clients in hosts.allow: sshd: ADDRESS; hosts_access(5)", "libwrap refuses every client of sshd, %s", r)}
	}
	return []Finding{warn("see that no NETCONF client is among them; hosts_access(5)", "libwrap refuses clients of sshd, %s", r)}
}

// linked reports whether a program is linked to libwrap.
func linked(program string) bool {
	data, err := os.ReadFile(program)
	return err == nil && bytes.Contains(data, []byte("libwrap.so"))
}
