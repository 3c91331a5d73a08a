package internal_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// maxLines bounds the two pages that a newcomer reads first.
const maxLines = 150

func page(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile("../" + name)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), "\n"); n > maxLines {
		t.Errorf("%s has %d lines, at most %d", name, n, maxLines)
	}
	return string(text)
}

// declared are the functions, methods, types and variables of a file.
func declared(t *testing.T, file string) map[string]bool {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "../"+file, nil, 0)
	if err != nil {
		t.Errorf("docs/architecture.md names %s: %v", file, err)
		return nil
	}
	out := make(map[string]bool)
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			out[d.Name.Name] = true
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch spec := spec.(type) {
				case *ast.TypeSpec:
					out[spec.Name.Name] = true
				case *ast.ValueSpec:
					for _, n := range spec.Names {
						out[n.Name] = true
					}
				}
			}
		}
	}
	return out
}

var (
	quoted = regexp.MustCompile("`([A-Za-z]+)`")
	goFile = regexp.MustCompile(`internal/[a-z/]+\.go`)
)

// Each row that names a file names what is declared there.
func TestArchitectureIsTrue(t *testing.T) {
	rows := 0
	for line := range strings.Lines(page(t, "docs/architecture.md")) {
		files := goFile.FindAllString(line, -1)
		if !strings.HasPrefix(line, "|") || files == nil {
			continue
		}
		rows++
		all := make(map[string]bool)
		for _, f := range files {
			maps.Copy(all, declared(t, f))
		}
		for _, m := range quoted.FindAllStringSubmatch(line, -1) {
			if !all[m[1]] {
				t.Errorf("%s is not declared in %s", m[1], strings.Join(files, ", "))
			}
		}
	}
	if rows < 20 {
		t.Errorf("only %d rows name a file", rows)
	}
}

// Each room of the tree stands on the page, and no other.
func TestArchitectureListsEveryRoom(t *testing.T) {
	_, rooms, _ := strings.Cut(page(t, "docs/architecture.md"), "| rooms | own |")
	rooms, _, _ = strings.Cut(rooms, "\n## ")
	var listed []string
	for line := range strings.Lines(rooms) {
		cells := strings.Split(line, "|")
		if len(cells) < 3 {
			continue
		}
		for _, m := range quoted.FindAllStringSubmatch(cells[1], -1) {
			listed = append(listed, m[1])
		}
	}
	var there []string
	for pkg := range sources(t) {
		if strings.HasPrefix(pkg, "internal/") {
			there = append(there, path.Base(pkg))
		}
	}
	slices.Sort(listed)
	slices.Sort(there)
	if !slices.Equal(listed, there) {
		t.Errorf("the page lists\n%q, the tree has\n%q", listed, there)
	}
}

func TestTheFrontPageIsShort(t *testing.T) { page(t, "README.md") }
