//go:build integration

package docs_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"callhome/test/docs/markdown"
	"callhome/test/sandbox"
	"callhome/test/skips"
)

func TestMain(m *testing.M) {
	flag.Parse()
	if !sandbox.Listing() && os.Geteuid() != 0 {
		os.Exit(skips.All("the documents' commands: they need root for namespaces and users"))
	}
	code := m.Run()
	skips.Print(os.Stdout)
	os.Exit(code)
}

// runMarker names a scene, and perhaps the lines that are left out.
var runMarker = regexp.MustCompile(`^run: ([a-z-]+)(?:; not "([^"]+)": .+)?$`)

// scripts are the blocks that are run, by document and scene, in their order.
func scripts(t *testing.T) map[string][]string {
	t.Helper()
	out := make(map[string][]string)
	for name, text := range documents(t) {
		for _, b := range markdown.Blocks(name, text) {
			if !strings.HasPrefix(b.Marker, "run: ") {
				continue
			}
			m := runMarker.FindStringSubmatch(b.Marker)
			if m == nil {
				t.Errorf("%s:%d: %q is not understood", b.File, b.Line, b.Marker)
				continue
			}
			var lines, left []string
			for line := range strings.Lines(b.Text) {
				if m[2] != "" && strings.HasPrefix(line, m[2]) {
					left = append(left, line)
					continue
				}
				lines = append(lines, line)
			}
			if m[2] != "" && left == nil {
				t.Errorf("%s:%d: no line begins with %q", b.File, b.Line, m[2])
			}
			out[name+" "+m[1]] = append(out[name+" "+m[1]], strings.Join(lines, ""))
		}
	}
	return out
}

// patience is for a scene that compiles.
const patience = 3 * time.Minute

// TestDocuments runs every block that is marked so, out of the document, each
// scene on a machine of its own: a copy of this one's file system that is
// written nowhere, in namespaces of its own.
func TestDocuments(t *testing.T) {
	found := scripts(t)
	for name := range found {
		if _, ok := scenes[name]; !ok {
			t.Errorf("%s is marked to be run, and there is no such scene", name)
		}
	}
	for name, scene := range scenes {
		if found[name] == nil {
			t.Errorf("no document has the scene %s", name)
			continue
		}
		t.Run(strings.ReplaceAll(name, " ", "/"), func(t *testing.T) { play(t, scene, found[name]) })
	}
}

// play puts the document's blocks in their places in the scene: "@1" is the
// first one, "@file NAME 1" puts it into a file instead of running it.
func play(t *testing.T, scene string, blocks []string) {
	t.Parallel()
	var script strings.Builder
	script.WriteString(prelude)
	used, last := make([]bool, len(blocks)), 0
	for line := range strings.Lines(scene) {
		word := strings.Fields(line)
		if len(word) == 0 || !strings.HasPrefix(word[0], "@") {
			script.WriteString(line)
			continue
		}
		n := 0
		if _, err := fmt.Sscan(strings.TrimPrefix(word[len(word)-1], "@"), &n); err != nil || n < 1 || n > len(blocks) {
			t.Fatalf("the scene says %s, the document has %d blocks", strings.TrimSpace(line), len(blocks))
		}
		if n <= last {
			t.Fatalf("the scene has block %d after block %d; a reader types them in the document's order", n, last)
		}
		used[n-1], last = true, n
		if word[0] == "@file" {
			fmt.Fprintf(&script, "cat >> %s <<'EOF-OF-THE-BLOCK'\n%sEOF-OF-THE-BLOCK\n", word[1], blocks[n-1])
		} else {
			script.WriteString(transcript(blocks[n-1]))
		}
	}
	if i := slices.Index(used, false); i >= 0 {
		t.Fatalf("the scene leaves out block %d:\n%s", i+1, blocks[i])
	}
	out, err := onAMachineOfItsOwn(t, script.String())
	if err != nil {
		t.Errorf("%v\n%s", err, tail(out))
	}
}

// transcript turns a block that shows commands behind "$ " and what they print
// into one that runs them and compares. The keys are new in each run: the document
// has … in place of a fingerprint.
func transcript(block string) string {
	if !strings.HasPrefix(block, "$ ") {
		return block
	}
	var out strings.Builder
	for _, shown := range strings.Split(block, "$ ")[1:] {
		command, want, _ := strings.Cut(shown, "\n")
		fmt.Fprintf(&out, "{ %s\n} | sed 's|SHA256:[A-Za-z0-9+/]\\{43\\}|SHA256:…|' | diff - /dev/fd/9 9<<'EOF-OF-THE-BLOCK'\n%sEOF-OF-THE-BLOCK\n", command, want)
	}
	return out.String()
}

func tail(s string) string {
	lines := strings.Split(s, "\n")
	return strings.Join(lines[max(0, len(lines)-60):], "\n")
}

// onAMachineOfItsOwn runs a script of bash and returns what it printed.
func onAMachineOfItsOwn(t *testing.T, script string) (string, error) {
	t.Helper()
	repository, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	scratch := t.TempDir()
	inside := filepath.Join(scratch, "script")
	if err := os.WriteFile(inside, []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	// The first shell is process 1 of the namespaces; with it all end.
	cmd := sandbox.Command("bash", "-eu", "-c", furnish, "furnish", scratch, repository)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH") + ":/usr/local/sbin:/usr/sbin:/sbin", "HOME=/root", "USER=root", "LC_ALL=C.UTF-8",
		"CGO_ENABLED=0", "GOFLAGS=-buildvcs=false", "GOPROXY=off"}
	if dir := os.Getenv("CALLHOME_BIN_DIR"); dir != "" {
		cmd.Env = append(cmd.Env, "CALLHOME_BIN_DIR="+dir)
	}
	for _, name := range []string{"GOCACHE", "GOMODCACHE"} {
		out, err := exec.Command("go", "env", name).Output()
		if err != nil {
			t.Fatal(err)
		}
		cmd.Env = append(cmd.Env, name+"="+strings.TrimSpace(string(out)))
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	// What a scene leaves in the background may hold the pipe open.
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	err = cmd.Wait()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.ExitCode() == 3:
		skips.Story(t, "the file system cannot be laid over: "+strings.TrimSpace(out.String()))
	case errors.Is(err, exec.ErrWaitDelay):
		err = nil
	}
	return out.String(), err
}
