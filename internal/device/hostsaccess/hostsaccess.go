// Package hostsaccess owns the reading of hosts.allow and hosts.deny (hosts_access(5)).
// It finds the line by which an sshd with libwrap, such as Debian's, refuses clients.
// That sshd ends with status 0 after five seconds and writes nothing to descriptor 2 (OpenSSH 9.2
// of Debian 12, measured). Package preflight warns of such a line, packages session
// and trigger name it as the cause. It never decides about one client: sshd does.
package hostsaccess

import (
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"callhome/internal/printable"
)

// Dir has the two files.
const Dir = "/etc"

// Rule is a line that refuses clients of sshd.
type Rule struct {
	File string
	Line int
	Text string
	// All: it refuses every client, and no earlier line admits one.
	All bool
}

func (r Rule) String() string { return fmt.Sprintf("%s line %d: %s", r.File, r.Line, r.Text) }

// Cause returns why an sshd that took a connection ended without a line; "": not by
// these files.
func Cause(dir string) string {
	r, found := Denying(dir)
	if !found {
		return ""
	}
	return "libwrap refuses clients of sshd, " + printable.Line(r.String())
}

// Denying returns the first line of the files in dir that refuses clients of sshd.
func Denying(dir string) (Rule, bool) {
	admits := false
	for _, f := range []struct {
		name string
		deny bool // what a line without an option means
	}{{"hosts.allow", false}, {"hosts.deny", true}} {
		file := filepath.Join(dir, f.name)
		text, _ := os.ReadFile(file) // one that cannot be read has no lines for sshd either
		for number, line := range joined(string(text)) {
			daemons, clients, deny := parse(line, f.deny)
			switch {
			case !names(daemons, "sshd"):
			case deny:
				return Rule{file, number, line, names(clients, "") && !admits}, true
			case names(clients, ""):
				return Rule{}, false // every client is admitted
			default:
				admits = true
			}
		}
	}
	return Rule{}, false
}

// joined yields the lines by number. One that ends with a backslash continues in the
// next one.
func joined(text string) iter.Seq2[int, string] {
	return func(yield func(int, string) bool) {
		begin, whole := 0, ""
		for i, line := range strings.Split(text, "\n") {
			if whole == "" {
				begin = i + 1
			}
			part, more := strings.CutSuffix(line, "\\")
			whole += part
			if more {
				continue
			}
			line, whole = strings.TrimSpace(whole), ""
			if line != "" && !strings.HasPrefix(line, "#") && !yield(begin, line) {
				return
			}
		}
	}
}

// parse splits "daemons : clients : options". Addresses of IPv6 are in brackets.
func parse(line string, deny bool) (daemons, clients []string, denies bool) {
	depth := 0
	fields := strings.FieldsFunc(line, func(r rune) bool {
		switch r {
		case '[':
			depth++
		case ']':
			depth--
		}
		return r == ':' && depth == 0
	})
	if len(fields) < 2 {
		return nil, nil, false
	}
	split := func(s string) []string {
		return strings.FieldsFunc(s, func(r rune) bool { return r == ' ' || r == '\t' || r == ',' })
	}
	for _, option := range fields[2:] {
		switch strings.ToUpper(strings.TrimSpace(option)) {
		case "DENY":
			deny = true
		case "ALLOW":
			deny = false
		}
	}
	return split(fields[0]), split(fields[1]), deny
}

// names reports whether a list has ALL or the name, without an exception.
func names(list []string, name string) bool {
	if i := slices.Index(list, "EXCEPT"); i >= 0 {
		// The names after EXCEPT make an exception for sshd only if sshd is among them.
		return name != "" && names(list[:i], name) && !names(list[i+1:], name)
	}
	return slices.ContainsFunc(list, func(word string) bool {
		word, _, _ = strings.Cut(word, "@")
		return word == "ALL" || name != "" && word == name
	})
}
