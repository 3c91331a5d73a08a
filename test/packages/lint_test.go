//go:build integration

package packages

import (
	"crypto/md5"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"callhome/test/skips"
)

// scripts are all shell scripts of packaging.
var scripts = []string{"build", "recipes", "release", "units", "version", "scripts/*", "buildroot/S95callhome-mgr", "openrc/*", "procd/*"}

// foreign are those whose interpreter is not sh itself; it sources them.
var foreign = []string{"openrc", "procd"}

func TestScriptsAreShell(t *testing.T) {
	for _, pattern := range scripts {
		files, err := filepath.Glob("../../packaging/" + pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("nothing matches %s (%v)", pattern, err)
		}
		for _, file := range files {
			args := []string{"-s", "sh"}
			for _, dir := range foreign {
				if filepath.Base(filepath.Dir(file)) == dir {
					args = append(args, "-e", "SC2034,SC2154") // variables that its framework reads and sets
				}
			}
			say(t, "shellcheck", append(args, file)...)
			say(t, "dash", "-n", file)
			say(t, "busybox", "ash", "-n", file)
		}
	}
}

func TestUnits(t *testing.T) {
	out := say(t, "../../packaging/units")
	for _, want := range []string{"no complaint about", "exposure level for callhome-mgr.service", "exposure level for callhome-nms.service"} {
		if !strings.Contains(out, want) {
			t.Errorf("packaging/units does not say %q:\n%s", want, out)
		}
	}
}

func TestAppArmorProfiles(t *testing.T) {
	for _, name := range []string{"callhome-mgr"} {
		profile := "../../packaging/apparmor/usr.sbin." + name
		say(t, "apparmor_parser", "--skip-kernel-load", "--skip-cache", profile)
		names := say(t, "apparmor_parser", "--names", profile)
		if strings.TrimSpace(names) != name {
			t.Errorf("%s is the profile %q, expected %s", profile, names, name)
		}
		t.Run(name+" enforced", func(t *testing.T) {
			// It was never seen enforced, so it complains only.
			if text, err := os.ReadFile(profile); err != nil || !strings.Contains(string(text), "flags=(complain)") {
				t.Errorf("%s would be enforced without ever having been tried (%v)", profile, err)
			}
			if _, err := os.Stat("/sys/kernel/security/apparmor"); err != nil {
				skips.Story(t, "this kernel has no AppArmor; the profile was parsed")
			}
		})
	}
}

// Debian's policy, as lintian reads it. Go's programs without cgo are static, and no
// debhelper makes these packages, which would write dpkg-maintscript-helper's calls.
func TestLintian(t *testing.T) {
	if _, err := exec.LookPath("lintian"); err != nil {
		skips.Story(t, "lintian is not installed: 124 packages with its dependencies, which no other test needs")
	}
	debs, err := filepath.Glob(workshop(dirNow, "*.deb"))
	if err != nil || len(debs) != 4 {
		t.Fatalf("%d .debs were built (%v), expected 4", len(debs), err)
	}
	say(t, "lintian", append([]string{"--allow-root", "--fail-on", "error,warning", "--suppress-tags", "statically-linked-binary,maintainer-script-should-not-use-dpkg-maintscript-helper"}, debs...)...)
}

// Buildroot's own make reads the package's file, with its macro empty.
func TestBuildrootPackage(t *testing.T) {
	cmd := exec.Command("make", "-s", "-f", "-", "all")
	cmd.Dir = "../../packaging/buildroot"
	cmd.Stdin = strings.NewReader("golang-package =\ninclude callhome.mk\nall:\n\t@echo $(CALLHOME_TAGS)\n")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "nometrics") {
		t.Errorf("make reads callhome.mk: %v\n%s", err, out)
	}
}

// There is no bitbake here: what can be wrong without it is looked at.
func TestYoctoRecipe(t *testing.T) {
	recipe, err := os.ReadFile("../../packaging/yocto/callhome_0.1.0.bb")
	if err != nil {
		t.Fatal(err)
	}
	licence, err := os.ReadFile("../../LICENSE")
	if err != nil {
		t.Fatal(err)
	}
	if sum := fmt.Sprintf("md5=%x", md5.Sum(licence)); !strings.Contains(string(recipe), sum) {
		t.Errorf("the recipe has another licence than LICENSE, %s", sum)
	}
	for _, file := range []string{"packaging/sshd_config", "packaging/trigger.conf", "packaging/systemd/callhome-mgr.service", "packaging/buildroot/S95callhome-mgr"} {
		if _, err := os.Stat("../../" + file); err != nil || !strings.Contains(string(recipe), filepath.Base(file)) {
			t.Errorf("the recipe installs %s: %v", file, err)
		}
	}
}

// The versions of the recipes are that of the newest release in the changelog.
func TestVersionsAgree(t *testing.T) {
	changelog, err := os.ReadFile("../../CHANGELOG.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(strings.Replace(string(changelog), "\n## Unreleased\n", "\n", 1), "\n## ")
	version, _, _ := strings.Cut(rest, "\n")
	version = strings.Fields(version)[0]
	if _, err := os.Stat("../../packaging/yocto/callhome_" + version + ".bb"); err != nil {
		t.Errorf("there is no Yocto recipe of %s: %v", version, err)
	}
	mk, err := os.ReadFile("../../packaging/buildroot/callhome.mk")
	if err != nil || !strings.Contains(string(mk), "CALLHOME_VERSION = "+version+"\n") {
		t.Errorf("Buildroot's package is not of %s (%v)", version, err)
	}
	// In a checkout, what the packages are called begins with it.
	if out := say(t, "../../packaging/version"); !strings.HasPrefix(out, version) {
		t.Errorf("packaging/version says %q, the changelog %s", out, version)
	}
}
