// Package docs_test keeps the documents true: README and docs/*.md. Each block
// of code in them says by a comment in front of it how it is held to the
// programs:
//
//	<!-- run: NAME -->              TestDocuments runs it, in the scene NAME
//	<!-- run: NAME; not WORDS: WHY -->  the same, without lines that begin so
//	<!-- tested by: TestNAME -->    that test has the block's content
//	<!-- not run: WHY -->           it cannot be run here
//
// Blocks of ```text and ```json are not commands. Quoted messages are to be
// found in the sources, tests that are named exist, links lead somewhere.
package docs_test

import (
	"os"
	"path/filepath"
	"testing"
)

const root = "../.."

// documents are docs/*.md and the pages of the root and of examples, with their
// text.
func documents(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob(root + "/docs/*.md")
	if err != nil || len(files) < 4 {
		t.Fatal(files, err)
	}
	out := make(map[string]string)
	for _, f := range append(files, root+"/README.md", root+"/CONTRIBUTING.md", root+"/SECURITY.md", root+"/examples/README.md") {
		name, err := filepath.Rel(root, f)
		if err != nil {
			t.Fatal(err)
		}
		out[name] = read(t, f)
	}
	return out
}

func read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
