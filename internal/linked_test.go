package internal_test

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// tooLarge are packages that no program for devices links, with what each costs there.
var tooLarge = map[string]string{
	"expvar":                           "net/http",
	"google.golang.org/protobuf/proto": "with its reflection over generated types 1 MB",
	"runtime/metrics":                  "0.1 ms at the start of each command",
}

// ofMetrics are those that only metrics need.
var ofMetrics = map[string]string{
	"net/http":   "with TLS and X.509 1.8 MB, and 0.1 ms at the start of each command",
	"crypto/tls": "0.5 MB",
}

func TestWhatDevicesDoNotLink(t *testing.T) {
	for tags, unwanted := range map[string][]map[string]string{"": {tooLarge}, "nometrics": {tooLarge, ofMetrics}} {
		out, err := exec.Command("go", "list", "-deps", "-tags", tags, "callhome/cmd/callhome-trigger", "callhome/cmd/callhome-mgr").Output()
		if err != nil {
			t.Fatal(err)
		}
		linked := strings.Fields(string(out))
		for _, list := range unwanted {
			for name, why := range list {
				if slices.Contains(linked, name) {
					t.Errorf("with tags %q %s is linked: %s; go list -deps and go mod why tell by whom", tags, name, why)
				}
			}
		}
	}
}

// A call of a method by a name that only the run knows (text/template has one) makes the
// linker keep the exported methods of all types: 2 MB.
func TestDevicesCallNoMethodByName(t *testing.T) {
	for _, program := range []string{"callhome-trigger", "callhome-mgr"} {
		build := exec.Command("go", "build", "-o", t.TempDir(), "-ldflags=-dumpdep", "callhome/cmd/"+program)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		out, err := build.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %.1000s", err, out)
		}
		for line := range strings.Lines(string(out)) {
			if from, to, ok := strings.Cut(line, " -> "); ok && strings.Contains(to, "<ReflectMethod>") {
				t.Errorf("%s: %s is reached from %s", program, strings.TrimSpace(to), from)
			}
		}
	}
}
