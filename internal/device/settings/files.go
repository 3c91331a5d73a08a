package settings

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"callhome/internal/sshdexec"
	"callhome/internal/sysexits"

	"golang.org/x/sys/unix"
)

// CheckFiles checks, before the call home, the files that sshd needs after it: sshd
// itself, its configuration, its keys, and the command of the netconf subsystem.
// Errors carry their exit status.
func (c *Call) CheckFiles() error {
	s := &c.Sshd
	if err := regular(s.Sshd, unix.X_OK); err != nil {
		return missing("sshd", s.Sshd, err, "install OpenSSH's server, or set --sshd")
	}
	if s.Config != "" {
		// sshd reads a directory as an empty configuration, which allows everything.
		if err := regular(s.Config, unix.R_OK); err != nil {
			return missing("sshd's configuration", s.Config, err, "install packaging/sshd_config there, or leave --sshd-config out to use the one built in")
		}
	}
	for _, k := range s.HostKeys {
		if err := regular(k, unix.R_OK); err != nil {
			return missing("the host key", k, err, "create it with ssh-keygen -t ed25519 -N '' -f "+k)
		}
	}
	for _, k := range s.HostCertificates {
		if err := regular(k, unix.R_OK); err != nil {
			return missing("the host certificate", k, err, "sign the host key with ssh-keygen -s CA -h")
		}
	}
	return checkSubsystem(s)
}

func checkSubsystem(s *sshdexec.Command) error {
	if s.Subsystem != "" {
		return nil
	}
	where := "the built-in sshd configuration"
	if s.Config != "" {
		where = s.Config
		config, err := os.ReadFile(s.Config)
		if err != nil {
			return missing("sshd's configuration", s.Config, err, "make it readable")
		}
		if servesNetconf(string(config)) {
			return nil
		}
	}
	return sysexits.New(sysexits.Config, SubsystemHint(), fmt.Errorf("no command for the netconf subsystem is set, and %s has none", where))
}

// regular returns an error if path is not a regular file that this process may use
// with mode.
func regular(path string, mode uint32) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return errors.New("not a regular file")
	}
	return unix.Access(path, mode)
}

func missing(what, path string, err error, hint string) error {
	code := sysexits.NoInput
	if errors.Is(err, fs.ErrPermission) {
		code, hint = sysexits.NoPerm, "make it accessible to this user, or run as root"
	}
	var p *fs.PathError
	if errors.As(err, &p) {
		err = p.Err
	}
	return sysexits.New(code, hint, fmt.Errorf("%s %s: %w", what, path, err))
}

// servesNetconf reports whether an sshd_config may define the netconf subsystem, in
// itself or in an included file.
func servesNetconf(config string) bool {
	for line := range strings.Lines(config) {
		fields := strings.Fields(strings.Replace(line, "=", " ", 1))
		if len(fields) == 0 {
			continue
		}
		if strings.EqualFold(fields[0], "Include") ||
			strings.EqualFold(fields[0], "Subsystem") && len(fields) > 1 && strings.Trim(fields[1], `"`) == "netconf" {
			return true
		}
	}
	return false
}
