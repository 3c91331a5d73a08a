package settings

import (
	"fmt"
	"strings"
)

// The checks of this file are for values that do not come through the table of
// options, as those of a configuration document.

// CheckHost refuses a host that is neither a name nor an address to connect to.
func CheckHost(host string) error {
	_, err := parseHost(host)
	return err
}

// CheckInterface refuses a string that cannot be the name of an interface or VRF.
func CheckInterface(name string) error {
	if name == "" || len(name) > maxInterfaceName || strings.ContainsAny(name, "/ ") || hasControl(name) {
		return fmt.Errorf("not an interface name")
	}
	return nil
}

// CheckDeviceID restricts the identifier to characters that every SSH client accepts
// in a version string and that never need quoting.
func CheckDeviceID(v string) error {
	if v == "" || len(v) > 64 {
		return fmt.Errorf("a device id has 1 to 64 characters")
	}
	if strings.ContainsFunc(v, func(r rune) bool { return notInName(r) && !strings.ContainsRune(":/+=@,", r) }) {
		return fmt.Errorf("a device id has only letters, digits and -_.:/+=@,")
	}
	return nil
}

// Preset returns the subsystem command of the named NETCONF server, and the server
// port that it requires in SSH_CONNECTION; 0: any.
func Preset(name string) (subsystem string, port uint16, err error) {
	p := findPreset(name)
	if p == nil {
		return "", 0, fmt.Errorf("expected one of %s; for another server set its subsystem", strings.Join(PresetNames(), ", "))
	}
	return p.subsystem, p.port, nil
}
