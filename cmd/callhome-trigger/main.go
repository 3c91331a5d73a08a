// callhome-trigger makes one NETCONF SSH call home (RFC 8071): it connects to
// the NETCONF client and hands the socket to `sshd -i`. Its command line is package
// triggercmd's.
package main

import (
	"os"

	"callhome/internal/device/triggercmd"
)

// version is set by the linker (Makefile).
var version = "unknown"

func main() { os.Exit(triggercmd.Main(version, os.Args)) }
