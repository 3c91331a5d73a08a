package main

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// ownMounts are the directives that give a service a mount namespace
// (systemd.exec(5)). The tmpfs that the manager mounts for the sessions' files
// would be gone with it, and the next manager find none.
var ownMounts = []string{
	"BindPaths", "BindReadOnlyPaths", "ExecPaths", "ExtensionDirectories", "ExtensionImages", "InaccessiblePaths", "MountAPIVFS",
	"MountFlags", "MountImages", "NoExecPaths", "PrivateDevices", "PrivateIPC", "PrivateMounts", "PrivateTmp", "ProcSubset",
	"ProtectControlGroups", "ProtectHome", "ProtectKernelLogs", "ProtectKernelModules", "ProtectKernelTunables", "ProtectProc",
	"ProtectSystem", "ReadOnlyPaths", "ReadWritePaths", "RootDirectory", "RootImage", "TemporaryFileSystem",
}

func TestTheUnitLetsSessionsOutliveTheManager(t *testing.T) {
	data, err := os.ReadFile("../../packaging/systemd/callhome-mgr.service")
	if err != nil {
		t.Fatal(err)
	}
	set := make(map[string]string)
	for line := range strings.Lines(string(data)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(key, "#") {
			set[key] = value
		}
	}
	for key := range set {
		if slices.Contains(ownMounts, key) {
			t.Errorf("%s gives the manager mounts of its own", key)
		}
	}
	for key, value := range map[string]string{"KillMode": "process", "RuntimeDirectoryPreserve": "yes"} {
		if set[key] != value {
			t.Errorf("%s is %q, expected %s", key, set[key], value)
		}
	}
}
