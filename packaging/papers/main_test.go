package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestOfABinary(t *testing.T) {
	dir := t.TempDir()
	binary := filepath.Join(dir, "callhome-trigger")
	cmd := exec.Command("go", "build", "-o", binary, "callhome/cmd/callhome-trigger")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building: %v\n%s", err, out)
	}
	sbom, licences := filepath.Join(dir, "sbom"), filepath.Join(dir, "licences")
	if err := run("callhome", "1.2.3", sbom, licences, []string{binary}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(licences)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Go's standard library", "github.com/hashicorp/go-hclog", "The Go Authors", "Permission is hereby granted"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the licences lack %q", want)
		}
	}
	data, err := os.ReadFile(sbom)
	if err != nil {
		t.Fatal(err)
	}
	var bom struct {
		BomFormat  string
		Components []struct {
			Name, Version, PURL string
			Licenses            []struct{ License struct{ ID string } }
		}
	}
	if err := json.Unmarshal(data, &bom); err != nil {
		t.Fatal(err)
	}
	found := false
	for _, c := range bom.Components {
		if c.Version == "" || len(c.Licenses) != 1 || c.Licenses[0].License.ID == "" || !strings.HasPrefix(c.PURL, "pkg:golang/"+c.Name+"@") {
			t.Errorf("%s is listed as %+v", c.Name, c)
		}
		found = found || c.Name == "github.com/hashicorp/go-hclog"
	}
	if bom.BomFormat != "CycloneDX" || !found {
		t.Errorf("%s with %d components, expected CycloneDX with github.com/hashicorp/go-hclog", bom.BomFormat, len(bom.Components))
	}
}

func TestLicenceID(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"Apache License\n   Version 2.0, January 2004", "Apache-2.0"},
		{"MIT\n\nPermission is hereby granted, free of\ncharge, to any person obtaining a copy", "MIT"},
		{"Redistributions in binary form must reproduce the above copyright notice. Nor the names may be used to endorse or\npromote products derived from this software", "BSD-3-Clause"},
		{"Redistributions in binary form must reproduce the above\ncopyright notice", "BSD-2-Clause"},
		{"All rights reserved.", ""},
	} {
		if got := licenceID(c.text); got != c.want {
			t.Errorf("licenceID(%q) is %q, expected %q", c.text, got, c.want)
		}
	}
}

func TestAPartWithoutALicenceIsRefused(t *testing.T) {
	dir := t.TempDir()
	p := &part{Path: "example.org/x", Version: "v1.0.0", Dir: dir}
	if err := p.findLicence(); err == nil {
		t.Error("a part without any paper was taken")
	}
	if err := os.WriteFile(filepath.Join(dir, "LICENSE"), []byte("All rights reserved."), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := p.findLicence(); err == nil {
		t.Error("a part with an unknown licence was taken")
	}
}

func TestTheSameBytes(t *testing.T) {
	parts := []*part{{Path: "std", Version: "1.26", Licence: "BSD-3-Clause"}, {Path: "a.b/c", Version: "v1", Licence: "MIT", Sum: "h1:x"}}
	var first, second bytes.Buffer
	for _, w := range []*bytes.Buffer{&first, &second} {
		if err := writeSBOM(w, "callhome", "1", parts); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("two lists of the same parts differ")
	}
}
