//go:build integration

package packages

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"callhome/test/sandbox"
	"callhome/test/skips"
)

// The test binary runs three times: on the machine, to build the packages, which
// may need Go modules; as process 1 of namespaces, which reaps what a daemon
// leaves behind; and there, to run the tests.
const (
	stageEnv    = "CALLHOME_PACKAGES_STAGE"
	stageInit   = "init"
	stageTests  = "tests"
	workshopEnv = "CALLHOME_PACKAGES_DIR"
)

// The versions that are built: formerly is upgraded to now.
const (
	formerly = "0.1.0~1"
	now      = "0.1.0~2"
)

// Directories of the workshop.
const (
	dirFormerly = "formerly"
	dirNow      = "now"
	dirAgain    = "again" // now's, built elsewhere
)

func TestMain(m *testing.M) {
	flag.Parse()
	switch {
	case sandbox.Listing():
		os.Exit(m.Run())
	case os.Getenv(stageEnv) == stageInit:
		os.Exit(initMain())
	case os.Getenv(stageEnv) == stageTests:
		code := m.Run()
		skips.Print(os.Stdout)
		os.Exit(code)
	case os.Geteuid() != 0:
		os.Exit(skips.All("the packages' stories: they need root for Debian trees"))
	}
	os.Exit(outerMain())
}

func outerMain() int {
	workshop, err := os.MkdirTemp("", "callhome-packages-")
	if err == nil {
		defer os.RemoveAll(workshop)
		err = buildAll(workshop)
	}
	if why := buildTree(); err == nil && why != nil {
		err = os.WriteFile(filepath.Join(workshop, noTree), []byte(why.Error()), 0o644)
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	return sandbox.Enter(stageEnv+"="+stageInit, workshopEnv+"="+workshop)
}

func initMain() int {
	if err := errors.Join(sandbox.Mount(), sandbox.LoopbackUp()); err != nil {
		fmt.Println(err)
		return 1
	}
	return sandbox.Supervise(stageEnv + "=" + stageTests)
}

// buildAll builds the packages of this machine's architecture, and the listener
// of the stock ssh.
func buildAll(workshop string) error {
	source, err := filepath.Abs("../..")
	if err != nil {
		return err
	}
	arch, err := exec.Command("dpkg", "--print-architecture").Output()
	if err != nil {
		return fmt.Errorf("asking dpkg for its architecture: %w", err)
	}
	elsewhere := filepath.Join(workshop, "a copy")
	if err := copySource(source, elsewhere); err != nil {
		return err
	}
	for _, b := range []struct{ from, to, version, packages, formats string }{
		{source, dirFormerly, formerly, "callhome callhome-nms", "deb"},
		{source, dirNow, now, "callhome callhome-small callhome-nms callhome-dev", "deb rpm"},
		{elsewhere, dirAgain, now, "callhome callhome-small callhome-nms callhome-dev", "deb rpm"},
	} {
		cmd := exec.Command(filepath.Join(b.from, "packaging/build"), "-o", filepath.Join(workshop, b.to), strings.TrimSpace(string(arch)))
		cmd.Env = append(os.Environ(), "VERSION="+b.version, "PACKAGES="+b.packages, "FORMATS="+b.formats, "SOURCE_DATE_EPOCH=1700000000")
		if b.to == dirAgain {
			cmd.Env = append(cmd.Env, "TZ=Pacific/Auckland", "LC_ALL=C", "USER=other", "HOSTNAME=elsewhere")
		}
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("building %s: %w\n%s", b.to, err, out)
		}
		fmt.Printf("%s:\n%s", b.to, out)
	}
	cmd := exec.Command("go", "build", "-trimpath", "-o", workshop, "callhome/test/integration/clients/fdpass-listen")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building fdpass-listen: %w\n%s", err, out)
	}
	return nil
}

// copySource copies what git has, as it is in the working tree; git itself
// stays behind.
func copySource(from, to string) error {
	if err := os.Mkdir(to, 0o755); err != nil {
		return err
	}
	cmd := exec.Command("sh", "-c", `git -C "$1" ls-files -z --cached --others --exclude-standard | tar -C "$1" --null --ignore-failed-read -T - -c | tar -C "$2" -x`, "sh", from, to)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("copying the source: %w\n%s", err, out)
	}
	return nil
}
