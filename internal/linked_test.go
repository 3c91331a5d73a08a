package internal_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// tooLarge are packages that no program for devices links, with what each costs there.
var tooLarge = map[string]string{
	"text/template":                    "calls methods by name, so the linker keeps those of every type: 1 to 2 MB",
	"html/template":                    "as text/template",
	"net/http":                         "with TLS and X.509 1 MB, and 0.1 ms at the start of each command",
	"crypto/tls":                       "0.5 MB",
	"expvar":                           "net/http",
	"google.golang.org/protobuf/proto": "reflection over generated types: 1 MB",
	"runtime/metrics":                  "0.1 ms at the start of each command",
}

func TestWhatDevicesDoNotLink(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "callhome/cmd/callhome-trigger", "callhome/cmd/callhome-mgr").Output()
	if err != nil {
		t.Fatal(err)
	}
	linked := strings.Fields(string(out))
	for name, why := range tooLarge {
		if slices.Contains(linked, name) {
			t.Errorf("%s is linked: %s; go list -deps and go mod why tell by whom", name, why)
		}
	}
}
