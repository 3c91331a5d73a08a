package preflight

import (
	"errors"
	"net"
	"path/filepath"

	"callhome/internal/device/settings"
	"callhome/internal/sysexits"

	"golang.org/x/sys/unix"
)

func checkManager(m *machine) []Finding {
	conn, err := net.DialTimeout("unix", m.s.ManagerSocket, socketTime)
	if err == nil {
		conn.Close()
	}
	return managerFindings(m.s, err)
}

// managerFindings reports the result of connecting to the manager. Any user may
// connect to the socket itself, so EACCES comes from its directory.
func managerFindings(s *settings.Settings, err error) []Finding {
	socket := s.ManagerSocket
	denied := errors.Is(err, unix.EACCES)
	reach := "give " + filepath.Dir(socket) + " mode 0755 and this user the group callhome"
	switch {
	case err == nil:
		return good("answers at %s", socket)
	case s.Handover == settings.HandoverManager && denied:
		return []Finding{lacking(sysexits.NoPerm, reach+", or use --handover exec", "this user may not connect to the manager at %s", socket)}
	case s.Handover == settings.HandoverManager:
		return []Finding{lacking(sysexits.Unavailable, "start callhome-mgr, or use --handover exec", "no manager answers at %s", socket)}
	case s.Handover == settings.HandoverAuto && denied:
		return []Finding{warn(reach, "this user may not connect to the manager at %s; --handover auto continues without it", socket)}
	}
	return good("no manager answers at %s; not needed for --handover %s", socket, s.Handover)
}
