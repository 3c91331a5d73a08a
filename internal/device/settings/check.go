package settings

import (
	"fmt"
	"strings"
)

// What follows checks single values for callers that have them from elsewhere
// than the table of options. A value that passes is used as it stands.

// CheckHost refuses what is neither a name nor an address that can be called.
func CheckHost(host string) error {
	_, err := parseHost(host)
	return err
}

// CheckInterface refuses what is no name of an interface or VRF.
func CheckInterface(name string) error {
	if name == "" || len(name) > maxInterfaceName || strings.ContainsAny(name, "/ ") || hasControl(name) {
		return fmt.Errorf("not an interface name")
	}
	return nil
}

// CheckDeviceID keeps the identifier to what every SSH client tolerates in a
// version string and what needs no quoting anywhere.
func CheckDeviceID(v string) error {
	if v == "" || len(v) > 64 {
		return fmt.Errorf("a device id has 1 to 64 characters")
	}
	if strings.ContainsFunc(v, func(r rune) bool { return notInName(r) && !strings.ContainsRune(":/+=@,", r) }) {
		return fmt.Errorf("a device id is made of letters, digits and -_.:/+=@,")
	}
	return nil
}

// Preset returns what the named NETCONF server needs of SSH: the command of
// its subsystem, and the server port that it expects in SSH_CONNECTION, 0 where
// it does not look.
func Preset(name string) (subsystem string, port uint16, err error) {
	p := findPreset(name)
	if p == nil {
		return "", 0, fmt.Errorf("expected one of %s; for another server set its subsystem", presetNames())
	}
	return p.subsystem, p.port, nil
}
