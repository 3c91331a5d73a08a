//go:build integration

package integration

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
	"sync"
	"testing"
	"time"

	"callhome/test/sandbox"
	"callhome/test/skips"

	"golang.org/x/sys/unix"
)

// trees are the Debian releases whose OpenSSH treeStories run with, beside
// the machine's own: 8.4 is the oldest that callhome knows, 10 the newest.
var trees = []string{"bullseye", "trixie"}

const treePatience = 8 * time.Minute // a slow mirror

// treeStories are the tests that call openTree.
var treeStories = []string{"TestEveryOpenSSH", "TestEveryOpenSSHSurvivesAnOutage", "TestPeriodicConnections", "TestWithNothingInstalledButOpenSSH", "TestAKilledMonitorLeavesNothing", "TestAnOrderlyCloseIsRecognised", "TestALoginRunsNoMotdScript"}

// buildTrees makes the trees that are not cached yet, while the other stories
// run: it needs the network, which they have not. For each a file in
// results says "ready DIRECTORY" or why there is none.
func buildTrees(results string) *sync.WaitGroup {
	var all sync.WaitGroup
	if !slices.ContainsFunc(treeStories, selected) {
		return &all
	}
	all.Go(func() {
		for _, name := range trees {
			result := ""
			if dir, err := buildTree(name); err != nil {
				result = fmt.Sprintf("no Debian %s tree: %v", name, err)
			} else {
				result = "ready " + dir
			}
			err := errors.Join(os.MkdirAll(results, 0o755),
				os.WriteFile(results+"/"+name+".new", []byte(result), 0o644),
				os.Rename(results+"/"+name+".new", results+"/"+name))
			if err != nil {
				fmt.Println(err)
			}
		}
	})
	return &all
}

// selected reports whether -test.run has a top-level test run.
func selected(test string) bool {
	pattern, _, _ := strings.Cut(flag.Lookup("test.run").Value.String(), "/")
	match, err := regexp.MatchString(pattern, test)
	return err == nil && match
}

func buildTree(name string) (string, error) {
	cache := os.Getenv("CALLHOME_TREES")
	if cache == "" {
		cache = "/var/cache/callhome-test"
	}
	dir := filepath.Join(cache, name)
	if _, err := os.Stat(dir + "/usr/sbin/sshd"); err == nil {
		return dir, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	if _, err := exec.LookPath("debootstrap"); err != nil {
		return "", errors.New("debootstrap is not installed")
	}
	mirror, err := aptMirror()
	if err != nil {
		return "", err
	}
	// Two runs at once, or one that was ended, must not leave half a tree
	// under the name.
	half, err := os.MkdirTemp(cache, name+".new-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(half)
	cmd := exec.Command("timeout", "-k", "5", fmt.Sprint(int(treePatience.Seconds())),
		"debootstrap", "--variant=minbase", "--include=openssh-server", name, half, mirror)
	// debootstrap mounts /proc below the tree; in a namespace of its own that
	// goes with it, whatever happens.
	cmd.SysProcAttr = &unix.SysProcAttr{Unshareflags: unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	if out, err := cmd.CombinedOutput(); err != nil {
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		return "", fmt.Errorf("debootstrap: %w: %s", err, lines[len(lines)-1])
	}
	err = errors.Join(os.Chmod(half, 0o755), os.Rename(half, dir))
	if _, there := os.Stat(dir + "/usr/sbin/sshd"); there == nil {
		return dir, nil // made by us, or meanwhile by another run
	}
	return "", err
}

// aptMirror asks the machine's own apt where its Debian comes from.
func aptMirror() (string, error) {
	out, err := exec.Command("apt-get", "indextargets", "--format", "$(REPO_URI) $(LABEL)", "Created-By: Packages").Output()
	if err != nil {
		return "", fmt.Errorf("asking apt for its mirror: %w", err)
	}
	for line := range bytes.Lines(out) {
		if uri, label, _ := strings.Cut(strings.TrimSpace(string(line)), " "); label == "Debian" {
			return uri, nil
		}
	}
	return "", errors.New("apt knows no Debian mirror")
}

// mounted are the trees that stories live in already, by name.
var mounted struct {
	mu   sync.Mutex
	root map[string]string // guarded by mu
}

// openTree waits for a tree and returns the root that a device can live in,
// with the keys, sockets and programs below /run at the same paths as here.
// The tree itself is never written.
func openTree(t *testing.T, tree string) string {
	t.Helper()
	var result string
	sandbox.Await(t, treePatience, "the Debian "+tree+" tree", func() error {
		data, err := os.ReadFile(os.Getenv(workshopEnv) + "/trees/" + tree)
		result = string(data)
		return err
	})
	dir, ok := strings.CutPrefix(result, "ready ")
	if !ok {
		skips.Story(t, result)
	}
	mounted.mu.Lock()
	defer mounted.mu.Unlock()
	if mounted.root[tree] == "" {
		root, err := mountTree(tree, dir)
		if err != nil {
			t.Fatalf("mounting the tree %s: %v", tree, err)
		}
		if mounted.root == nil {
			mounted.root = make(map[string]string)
		}
		mounted.root[tree] = root
	}
	return mounted.root[tree]
}

// onOpenSSHs runs a story with the machine's own OpenSSH and with those of
// trees; root is the tree's, "" for ours.
func onOpenSSHs(t *testing.T, trees []string, story func(t *testing.T, name, root string)) {
	for _, tree := range append([]string{""}, trees...) {
		name := tree
		if name == "" {
			name = "this machine"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := ""
			if tree != "" {
				root = openTree(t, tree)
			}
			story(t, name, root)
		})
	}
}

func mountTree(name, dir string) (string, error) {
	root := filepath.Join(runDir, "trees", name, "root")
	if err := sandbox.Overlay(dir, filepath.Dir(root), root); err != nil {
		return "", err
	}
	binds := []struct {
		from string
		flag uintptr
	}{
		{"/proc", unix.MS_REC}, {"/dev", unix.MS_REC}, {"/run", 0}, {"/usr", unix.MS_REC},
	}
	for _, b := range binds {
		to := root + b.from
		if b.from == "/usr" {
			to = root + hostUsr
		}
		if err := os.MkdirAll(to, 0o755); err != nil {
			return "", err
		}
		if err := unix.Mount(b.from, to, "", unix.MS_BIND|b.flag, ""); err != nil {
			return "", fmt.Errorf("%s: %w", b.from, err)
		}
	}
	if err := fillEtc(root + "/etc"); err != nil {
		return "", err
	}
	if err := os.MkdirAll(root+"/etc/callhome", 0o755); err != nil {
		return "", err
	}
	return root, sandbox.CopyFile("/etc/callhome/sshd_config", root+"/etc/callhome/sshd_config", 0o644)
}

// hostUsr is where a tree has the machine's own /usr.
const hostUsr = "/host/usr"

// abroad is a command of the machine's own that runs in a tree, too: with the
// machine's loader and libraries in place of the tree's.
func abroad(t *testing.T, command string) string {
	t.Helper()
	program, args, _ := strings.Cut(command, " ")
	out, err := exec.Command("ldd", program).Output()
	if err != nil {
		t.Fatalf("ldd %s: %v", program, err)
	}
	inTree := func(file string) string {
		file, err := filepath.EvalSymlinks(file)
		if err != nil || !strings.HasPrefix(file, "/usr/") {
			skips.Story(t, fmt.Sprintf("%s needs %s, which is not below /usr: it cannot be lent to another tree", program, file))
		}
		return strings.Replace(file, "/usr", hostUsr, 1)
	}
	var loader string
	var dirs []string
	for line := range strings.Lines(string(out)) {
		for word := range strings.FieldsSeq(line) {
			switch {
			case !strings.HasPrefix(word, "/"):
			case strings.Contains(line, "=>"):
				if dir := filepath.Dir(inTree(word)); !slices.Contains(dirs, dir) {
					dirs = append(dirs, dir)
				}
			default:
				loader = inTree(word)
			}
		}
	}
	return loader + " --library-path " + strings.Join(dirs, ":") + " " + inTree(program) + " " + args
}
