package preflight

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"callhome/internal/device/settings"
	"callhome/internal/sysexits"
)

func checkSubsystem(m *machine) []Finding {
	command := m.s.Sshd.Subsystem
	if command == "" {
		for _, line := range m.config["subsystem"] {
			if name, rest, _ := strings.Cut(line, " "); name == "netconf" {
				command = rest
			}
		}
	}
	fields := strings.Fields(command)
	if len(fields) == 0 {
		return []Finding{lacking(sysexits.Config, settings.SubsystemHint(), "no command for the netconf subsystem is set")}
	}
	program := strings.Trim(fields[0], `"'`)
	if !strings.HasPrefix(program, "/") {
		return []Finding{warn("set --subsystem with the program's absolute path", "%s has no absolute path, and the PATH that sshd sets for the user has no sbin", program)}
	}
	if _, err := exec.LookPath(program); err != nil {
		return []Finding{lacking(sysexits.Config, "install the NETCONF server, or set --subsystem", "%s cannot be executed: %v", program, unwrapped(err))}
	}
	if path := netconfdSocket(fields); path != "" {
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

// netconfdSocket returns the socket on which yuma123's subsystem program expects
// netconfd, "" for another program.
func netconfdSocket(fields []string) string {
	if filepath.Base(strings.Trim(fields[0], `"'`)) != "netconf-subsystem" {
		return ""
	}
	path := "/tmp/ncxserver.sock" // its default
	for _, f := range fields[1:] {
		if v, ok := strings.CutPrefix(strings.Trim(f, `"'`), "--ncxserver-sockname="); ok {
			_, path, _ = strings.Cut(v, "@")
		}
	}
	return path
}

// unwrapped returns the cause of an error that repeats the path or address.
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
