package preflight

import (
	"path/filepath"
	"strings"

	"callhome/internal/sysexits"

	"golang.org/x/sys/unix"
)

func checkHostKeys(m *machine) []Finding {
	if m.version == "" {
		return nil
	}
	var out []Finding
	for _, k := range m.s.Sshd.HostKeys {
		switch {
		case !exists(k):
			out = append(out, lacking(sysexits.NoInput, "create it with ssh-keygen -t ed25519 -N '' -f "+k, "%s does not exist", k))
		case unix.Access(k, unix.R_OK) != nil:
			out = append(out, lacking(sysexits.NoPerm, "make it readable for this user, or set another --host-key", "%s is not readable for %s", k, m.user))
		}
	}
	if out != nil {
		return out
	}
	if unreadable := m.unreadableKeys(); unreadable != nil && m.testLines("no hostkeys available") != nil {
		return []Finding{lacking(sysexits.NoInput, "create one that "+m.user+" owns: ssh-keygen -q -t ed25519 -N '' -f ~/host_key, and set --host-key",
			"%s are not readable for %s", strings.Join(unreadable, ", "), m.user)}
	}
	for _, line := range m.testLines("Unable to load host key", "bad permissions", "are too open") {
		out = append(out, warn("ssh-keygen -A makes missing default keys; a key needs mode 0600", "%s; sshd starts without this key", line))
	}
	if lines := m.testLines("no hostkeys available"); lines != nil {
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
	return append(out, good("%d of %d exist", loaded, len(m.config["hostkey"]))...)
}

// unreadableKeys returns the host keys that exist and that sshd cannot load, if
// this process is not root. sshd reports no default key.
func (m *machine) unreadableKeys() []string {
	if m.uid == 0 {
		return nil
	}
	lines := m.testLines("Unable to load host key: ")
	if lines == nil {
		files, _ := filepath.Glob(m.defaultKeys) // a constant, so no error
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
	for _, line := range m.testLines("Could not load host certificate", "No matching private key for certificate") {
		out = append(out, warn("sign the host key: ssh-keygen -s CA -I ID -h -n NAME KEY.pub", "%s; sshd starts without it, and a client that trusts only the CA refuses the device", line))
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

// checkUserCA examines the files itself: sshd does not report a missing one.
func checkUserCA(m *machine) []Finding {
	var out []Finding
	for _, keyword := range []string{"trustedusercakeys", "authorizedprincipalsfile", "revokedkeys"} {
		for _, file := range m.config[keyword] {
			switch {
			case file == "none" || !strings.HasPrefix(file, "/") || strings.Contains(file, "%"):
			case exists(file):
				out = append(out, good("%s", file)...)
			default:
				out = append(out, warn("create the file, or remove the option", "%s names %s, which does not exist; sshd reports nothing and refuses the logins that need it", keyword, file))
			}
		}
	}
	return out
}
