// Package packaging embeds the files of packages that the programs need, too.
// It owns none of their meaning.
package packaging

import _ "embed"

// SshdConfig is the sshd_config of a call home, as the packages install it.
//
//go:embed sshd_config
var SshdConfig string
