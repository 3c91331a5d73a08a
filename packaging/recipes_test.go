package packaging

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// first returns what the group of a pattern matches in a file.
func first(t *testing.T, file, pattern string) string {
	t.Helper()
	m := regexp.MustCompile(pattern).FindStringSubmatch(read(t, file))
	if m == nil {
		t.Fatalf("%s has no %s", file, pattern)
	}
	return m[1]
}

// All that names a version names that of CHANGELOG.md's newest release, and all that
// names Go's names that of go.mod.
func TestVersionsAgree(t *testing.T) {
	release := first(t, "../CHANGELOG.md", `(?m)^## ([0-9.]+)$`)
	recipe := "yocto/callhome_" + release + ".bb"
	for file, pattern := range map[string]string{
		"buildroot/callhome.mk":      `(?m)^CALLHOME_VERSION = (.*)$`,
		"../clients/c/Makefile":      `(?m)^VERSION := (.*)$`,
		"../clients/python/setup.py": `version="(.*)"`,
		recipe:                       `callhome-([0-9.]+)\.tar\.gz, as`,
	} {
		if got := first(t, file, pattern); got != release {
			t.Errorf("%s has version %s, CHANGELOG.md %s", file, got, release)
		}
	}
	goVersion := first(t, "../go.mod", `(?m)^go ([0-9]+\.[0-9]+)`)
	for _, file := range []string{"buildroot/callhome.mk", "buildroot/Config.in", recipe, "README.md", "../README.md", "../CONTRIBUTING.md"} {
		for _, m := range regexp.MustCompile(`Go ([0-9]+\.[0-9]+)`).FindAllStringSubmatch(read(t, file), -1) {
			if m[1] != goVersion {
				t.Errorf("%s needs Go %s, go.mod %s", file, m[1], goVersion)
			}
		}
		if !strings.Contains(read(t, file), "Go "+goVersion) {
			t.Errorf("%s does not say that it needs Go %s", file, goVersion)
		}
	}
}

// The recipes that a release has are for its own source, whatever its version.
func TestRecipesAreForTheSourceBesideThem(t *testing.T) {
	for _, version := range []string{"0.1.0", "0.1.0~345.gbcce39b", "1.2.3"} {
		source := filepath.Join(t.TempDir(), "callhome-"+version+".tar.gz")
		if err := os.WriteFile(source, []byte("the source"), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("./recipes", source)
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		files := make(map[string]string)
		for r := tar.NewReader(bytes.NewReader(out)); ; {
			h, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			text, err2 := io.ReadAll(r)
			if err != nil || err2 != nil {
				t.Fatal(err, err2)
			}
			if h.Typeflag == tar.TypeReg {
				files[h.Name] = string(text)
			}
		}
		name := "callhome-" + version + ".tar.gz"
		mk, recipe := files["buildroot/callhome/callhome.mk"], files["yocto/callhome/callhome_"+version+".bb"]
		if !strings.Contains(mk, "\nCALLHOME_VERSION = "+version+"\n") || !strings.Contains(mk, name) || !strings.Contains(recipe, name) {
			t.Errorf("the recipes are not for %s:\n%s\n%s", name, mk, recipe)
		}
		want := fmt.Sprintf("sha256  %x  %s\n", sha256.Sum256([]byte("the source")), name)
		if got := files["buildroot/callhome/callhome.hash"]; got != want {
			t.Errorf("the hash is %q, want %q", got, want)
		}
		for _, f := range []string{"buildroot/callhome/" + name, "yocto/callhome/files/" + name} {
			if files[f] != "the source" {
				t.Errorf("%s is not the source", f)
			}
		}
		if len(files) != 6 {
			t.Errorf("the archive has %q", slices.Collect(maps.Keys(files)))
		}
	}
}
