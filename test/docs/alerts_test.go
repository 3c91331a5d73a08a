//go:build integration

package docs_test

import (
	"os/exec"
	"path/filepath"
	"testing"

	"callhome/test/sandbox"
)

// The shipped alerts fire on the series on which they are to, and on no other.
func TestAlerts(t *testing.T) {
	sandbox.Need(t, "promtool") // Debian's prometheus
	files, err := filepath.Glob(root + "/packaging/prometheus/*.test.yml")
	if err != nil || len(files) != 2 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			if out, err := exec.Command("promtool", "test", "rules", file).CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}
