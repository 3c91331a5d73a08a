package preflight

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"callhome/internal/sshdexec"
	"callhome/internal/sysexits"
)

// pamSetup is what PAM runs at a login.
type pamSetup struct {
	how sshdexec.PAM
	why string // sshd's own service is used
	// service is its name, modules what its file and those that it includes name.
	service string
	modules []string
	missing string   // the first file that it includes and that does not exist
	motd    []string // the scripts that pam_motd runs
	other   otherPAM
}

// The directories of services and of the scripts that Debian's pam_motd runs.
const (
	pamDir  = "/etc/pam.d"
	motdDir = "/etc/update-motd.d"
)

// findPAM returns the setup for this machine's sshd.
func (m *machine) findPAM() pamSetup {
	p := pamSetup{service: sshdexec.PAMService}
	if p.how, p.why = m.s.Sshd.FindPAM(); p.how == sshdexec.PAMDefault {
		p.service = "sshd"
		if v := m.config["pamservicename"]; len(v) > 0 {
			p.service = v[0]
		}
	}
	p.modules, p.missing = pamModules(pamDir, p.service, "", 0)
	p.other = pamOther(pamDir, p.service)
	p.motd, _ = filepath.Glob(motdDir + "/*")
	p.motd = slices.DeleteFunc(p.motd, func(script string) bool {
		info, err := os.Stat(script)
		return err != nil || info.Mode()&0o111 == 0
	})
	return p
}

// otherPAM is what PAM takes from the service "other": the kinds that a service's file has
// no line of (pam.d(5)).
type otherPAM struct {
	kinds, modules []string
	refuses        bool // "other" has no line of one of them either, or only pam_deny's
}

// pamOther returns it for the kinds without which sshd lets in no user, not even one with
// a key. Measured with Linux-PAM 1.5 and OpenSSH 9.2.
func pamOther(dir, service string) (out otherPAM) {
	for _, kind := range []string{"account", "session"} {
		if own, _ := pamModules(dir, service, kind, 0); len(own) > 0 {
			continue
		}
		more, _ := pamModules(dir, "other", kind, 0)
		out.kinds, out.modules = append(out.kinds, kind), append(out.modules, more...)
		out.refuses = out.refuses || !slices.ContainsFunc(more, func(m string) bool { return m != "pam_deny" && m != "pam_warn" })
	}
	return out
}

// pamModules returns the modules that a service's file names (pam.d(5)) for a kind, as
// "session", with "" for all, in its order and each once, with those of included files.
// missing is the first included file that does not exist.
func pamModules(dir, service, kind string, depth int) (modules []string, missing string) {
	const deepest = 8 // includes may be a circle
	text, err := os.ReadFile(filepath.Join(dir, service))
	if err != nil || depth > deepest {
		return nil, filepath.Join(dir, service)
	}
	for line := range strings.Lines(string(text)) {
		of, module, included := parsePAM(line)
		if kind != "" && of != "" && of != kind {
			continue
		}
		more := []string{module}
		if included != "" {
			var lost string
			if more, lost = pamModules(dir, included, cmp.Or(of, kind), depth+1); missing == "" {
				missing = lost
			}
		}
		for _, name := range more {
			if name != "" && !slices.Contains(modules, name) {
				modules = append(modules, name)
			}
		}
	}
	return modules, missing
}

// parsePAM returns the kind of a line, "" for any, and either its module or the file
// that it includes.
func parsePAM(line string) (kind, module, included string) {
	line, _, _ = strings.Cut(line, "#")
	// [value=action ...] is one word with spaces.
	if before, rest, ok := strings.Cut(line, "["); ok {
		_, after, _ := strings.Cut(rest, "]")
		line = before + "[]" + after
	}
	switch f := strings.Fields(line); {
	case len(f) == 2 && f[0] == "@include":
		return "", "", f[1]
	case len(f) < 3:
		return "", "", ""
	case f[1] == "include" || f[1] == "substack":
		return strings.TrimPrefix(f[0], "-"), "", f[2]
	default:
		return strings.TrimPrefix(f[0], "-"), strings.TrimSuffix(filepath.Base(f[2]), ".so"), ""
	}
}

// checkPAM says which PAM service a login goes through, and what delays it there.
func checkPAM(m *machine) []Finding {
	p := m.pamSetup
	if p == nil || !m.pam() {
		return nil
	}
	runs, file := "service "+p.service, filepath.Join(pamDir, p.service)
	if p.how == sshdexec.PAMDefault {
		runs += ", because " + p.why
	}
	switch {
	case p.missing != "":
		return []Finding{lacking(sysexits.Config, "create that file, or remove "+file+" if it is callhome's", "%s; its file %s does not exist, so no user can log in", runs, p.missing)}
	case len(p.other.kinds) > 0:
		what, repair := fmt.Sprintf("%s; its file has no line for %s, and the service other", runs, strings.Join(p.other.kinds, " and for ")), "write these lines into "+file+", as packaging/pam.d has them"
		if p.other.refuses {
			return []Finding{lacking(sysexits.Config, repair, "%s refuses each user", what)}
		}
		return []Finding{warn(repair, "%s takes its place, which runs %s", what, strings.Join(p.other.modules, ", "))}
	case slices.Contains(p.modules, "pam_motd") && len(p.motd) > 0:
		return []Finding{warn("install "+sshdexec.PAMFile+" as packaging/pam.d has it", "%s; pam_motd runs the %d scripts of %s as root at each login, and the client waits", runs, len(p.motd), motdDir)}
	}
	return good("%s, which runs %s", runs, strings.Join(p.modules, ", "))
}
