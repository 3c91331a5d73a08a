package sshdexec

import (
	"strings"

	"callhome/packaging"
)

// builtIn are the options of the hardened configuration that is used where
// Command.Config is "": those of packaging/sshd_config, one KEY=VALUE each. sshd
// then reads no file at all (-f none, tried with 8.4 to 10.5).
func builtIn() []string {
	var out []string
	for line := range strings.Lines(packaging.SshdConfig) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		key, value, _ := strings.Cut(line, " ")
		out = append(out, key+"="+strings.TrimSpace(value))
	}
	return out
}
