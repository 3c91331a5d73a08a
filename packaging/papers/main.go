// papers writes what goes with binaries that are given away: a list of all
// that was linked into them (CycloneDX 1.6) and the licences of it. It asks the
// binaries themselves, which say what they were built from, and the module
// cache. packaging/build calls it; it never looks at go.mod, where there may be
// more or other things than in a binary.
package main

import (
	"bytes"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// part is something that was linked in.
type part struct {
	Path, Version, Sum string
	Dir                string   // where its source is
	Licence            string   // SPDX identifier
	Texts              []string // file names in Dir
}

func main() {
	name := flag.String("name", "", "the package's `NAME`")
	version := flag.String("version", "", "and its `VERSION`")
	sbom := flag.String("sbom", "", "write the list of parts to `FILE`")
	licences := flag.String("licences", "", "write their licences to `FILE`")
	flag.Parse()
	if err := run(*name, *version, *sbom, *licences, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "papers:", err)
		os.Exit(1)
	}
}

func run(name, version, sbom, licences string, binaries []string) error {
	if name == "" || version == "" || sbom == "" || licences == "" || len(binaries) == 0 {
		return errors.New("expected -name, -version, -sbom, -licences and binaries; --help describes them")
	}
	parts, err := partsOf(binaries)
	if err != nil {
		return err
	}
	if err := find(parts); err != nil {
		return err
	}
	for _, out := range []struct {
		file  string
		write func(io.Writer) error
	}{
		{sbom, func(w io.Writer) error { return writeSBOM(w, name, version, parts) }},
		{licences, func(w io.Writer) error { return writeLicences(w, parts) }},
	} {
		var text bytes.Buffer
		if err := out.write(&text); err != nil {
			return err
		}
		if err := os.WriteFile(out.file, text.Bytes(), 0o644); err != nil {
			return fmt.Errorf("writing a package's papers: %w", err)
		}
	}
	return nil
}

// partsOf returns what the binaries say is in them, sorted, Go's own library
// first.
func partsOf(binaries []string) ([]*part, error) {
	found := make(map[string]*part)
	toolchain := ""
	for _, file := range binaries {
		info, err := buildinfo.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("reading what %s was built from: %w", file, err)
		}
		if toolchain != "" && toolchain != info.GoVersion {
			return nil, fmt.Errorf("%s was built with %s, others with %s", file, info.GoVersion, toolchain)
		}
		toolchain = info.GoVersion
		for _, d := range info.Deps {
			if d.Replace != nil {
				d = d.Replace
			}
			if old := found[d.Path]; old != nil && old.Version != d.Version {
				return nil, fmt.Errorf("%s has %s %s, another binary %s", file, d.Path, d.Version, old.Version)
			}
			found[d.Path] = &part{Path: d.Path, Version: d.Version, Sum: d.Sum}
		}
	}
	parts := []*part{{Path: "std", Version: strings.TrimPrefix(toolchain, "go")}}
	for _, p := range found {
		parts = append(parts, p)
	}
	slices.SortFunc(parts[1:], func(a, b *part) int { return strings.Compare(a.Path, b.Path) })
	return parts, nil
}

// find fills in where the parts' sources are, and under which licence.
func find(parts []*part) error {
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return fmt.Errorf("asking go for its library: %w", err)
	}
	dirs := map[string]string{"std": strings.TrimSpace(string(root))}
	args := []string{"mod", "download", "-json"}
	for _, p := range parts[1:] {
		args = append(args, p.Path+"@"+p.Version)
	}
	if len(parts) > 1 {
		out, err := exec.Command("go", args...).Output()
		if err != nil {
			return fmt.Errorf("asking go for the modules' sources: %w", err)
		}
		for d := json.NewDecoder(bytes.NewReader(out)); d.More(); {
			var m struct{ Path, Dir string }
			if err := d.Decode(&m); err != nil {
				return fmt.Errorf("reading go mod download's answer: %w", err)
			}
			dirs[m.Path] = m.Dir
		}
	}
	for _, p := range parts {
		p.Dir = dirs[p.Path]
		if err := p.findLicence(); err != nil {
			return err
		}
	}
	return nil
}

func (p *part) findLicence() error {
	files, err := os.ReadDir(p.Dir)
	if err != nil {
		return fmt.Errorf("looking for the licence of %s: %w", p.Path, err)
	}
	for _, f := range files {
		upper := strings.ToUpper(f.Name())
		isPaper := slices.ContainsFunc([]string{"LICENSE", "LICENCE", "COPYING", "NOTICE", "PATENTS"}, func(s string) bool { return strings.HasPrefix(upper, s) })
		if f.IsDir() || !isPaper {
			continue
		}
		text, err := os.ReadFile(filepath.Join(p.Dir, f.Name()))
		if err != nil {
			return fmt.Errorf("reading the licence of %s: %w", p.Path, err)
		}
		if id := licenceID(string(text)); id != "" && p.Licence == "" {
			p.Licence = id
		}
		p.Texts = append(p.Texts, f.Name())
	}
	if p.Licence == "" {
		return fmt.Errorf("%s %s has no licence that is known here (in %s): see whether it may be given away, then add it to the table in packaging/papers", p.Path, p.Version, p.Dir)
	}
	return nil
}

// marks are sentences that only one licence has, the longer licence first where
// one contains the other.
var marks = []struct{ id, sentence string }{
	{"Apache-2.0", "Apache License Version 2.0, January 2004"},
	{"MPL-2.0", "Mozilla Public License, version 2.0"},
	{"MPL-2.0", "Mozilla Public License Version 2.0"},
	{"MIT", "Permission is hereby granted, free of charge, to any person obtaining a copy"},
	{"BSD-3-Clause", "may be used to endorse or promote products derived from this software"},
	{"BSD-2-Clause", "Redistributions in binary form must reproduce the above copyright notice"},
}

// licenceID returns the SPDX identifier of a licence's text, "" for an unknown
// one.
func licenceID(text string) string {
	text = strings.Join(strings.Fields(strings.ReplaceAll(text, ">", " ")), " ") // some quote it
	for _, m := range marks {
		if strings.Contains(text, m.sentence) {
			return m.id
		}
	}
	return ""
}

// writeLicences writes every part's papers, one after another.
func writeLicences(w io.Writer, parts []*part) error {
	fmt.Fprintf(w, "The programs are linked with the following.\n")
	for _, p := range parts {
		for _, name := range p.Texts {
			text, err := os.ReadFile(filepath.Join(p.Dir, name))
			if err != nil {
				return fmt.Errorf("reading the licence of %s: %w", p.Path, err)
			}
			fmt.Fprintf(w, "\n%s\n%s %s (%s): %s\n\n%s\n", strings.Repeat("=", 78), p.title(), p.Version, p.Licence, name, bytes.TrimSpace(text))
		}
	}
	return nil
}

func (p *part) title() string {
	if p.Path == "std" {
		return "Go's standard library"
	}
	return p.Path
}

// purl is the package URL by which scanners know a part.
func (p *part) purl() string { return "pkg:golang/" + p.Path + "@" + p.Version }

// writeSBOM writes a CycloneDX document without a date or a serial number: the
// same binaries give the same bytes.
func writeSBOM(w io.Writer, name, version string, parts []*part) error {
	type property struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	}
	type licence struct {
		Licence struct {
			ID string `json:"id"`
		} `json:"license"`
	}
	type component struct {
		Type       string     `json:"type"`
		Ref        string     `json:"bom-ref"`
		Name       string     `json:"name"`
		Version    string     `json:"version"`
		Licences   []licence  `json:"licenses"`
		PURL       string     `json:"purl"`
		Properties []property `json:"properties,omitempty"`
	}
	type dependency struct {
		Ref       string   `json:"ref"`
		DependsOn []string `json:"dependsOn"`
	}
	of := func(kind, name, version, id, purl string) component {
		c := component{Type: kind, Ref: purl, Name: name, Version: version, Licences: make([]licence, 1), PURL: purl}
		c.Licences[0].Licence.ID = id
		return c
	}
	all := make([]component, 0, len(parts))
	refs := make([]string, 0, len(parts))
	for _, p := range parts {
		c := of("library", p.Path, p.Version, p.Licence, p.purl())
		if p.Sum != "" {
			c.Properties = []property{{"go:sum", p.Sum}} // go.sum's own hash, of the module's tree
		}
		all = append(all, c)
		refs = append(refs, c.Ref)
	}
	own := of("application", name, version, "Apache-2.0", "pkg:generic/"+name+"@"+version)
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(struct {
		Format   string `json:"bomFormat"`
		Spec     string `json:"specVersion"`
		Version  int    `json:"version"`
		Metadata struct {
			Component component `json:"component"`
		} `json:"metadata"`
		Components   []component  `json:"components"`
		Dependencies []dependency `json:"dependencies"`
	}{"CycloneDX", "1.6", 1, struct {
		Component component `json:"component"`
	}{own}, all, []dependency{{own.Ref, refs}}})
}
