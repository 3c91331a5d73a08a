package internal_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// release is the version on top of CHANGELOG.md, which packaging/version prints.
func release(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../CHANGELOG.md")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^## ([0-9]+\.[0-9]+\.[0-9]+)`).FindSubmatch(text)
	if m == nil {
		t.Fatal("CHANGELOG.md names no version")
	}
	return string(m[1])
}

// The version stands in the clients, the recipes and the documents' samples, too.
func TestVersionsAgree(t *testing.T) {
	want := release(t)
	places := map[string]string{ // file to a pattern of each version in it
		"clients/python/setup.py":         `version="([0-9.]+)"`,
		"clients/python/callhome.py":      `__version__ = "([0-9.]+)"`,
		"clients/c/Makefile":              `VERSION := ([0-9.]+)`,
		"packaging/buildroot/callhome.mk": `CALLHOME_VERSION = ([0-9.]+)`,
		"packaging/yocto/callhome_*.bb":   `callhome-([0-9]+\.[0-9]+\.[0-9]+)\.tar`,
		"docs/*.md":                       `callhome-(?:mgr|nms|trigger) ([0-9]+\.[0-9]+\.[0-9]+)|"version":"([0-9.]+)"`,
	}
	for pattern, version := range places {
		files, err := filepath.Glob("../" + pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("no file %s: %v", pattern, err)
		}
		found := 0
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range regexp.MustCompile(version).FindAllStringSubmatch(string(text), -1) {
				found++
				if got := strings.Join(slices.Clone(m[1:]), ""); got != want {
					t.Errorf("%s has version %s, CHANGELOG.md %s", file, got, want)
				}
			}
		}
		if found == 0 {
			t.Errorf("%s names no version", pattern)
		}
	}
	if names, _ := filepath.Glob("../packaging/yocto/callhome_*.bb"); len(names) != 1 || filepath.Base(names[0]) != "callhome_"+want+".bb" {
		t.Errorf("the Yocto recipes are %q, want version %s", names, want)
	}
}
