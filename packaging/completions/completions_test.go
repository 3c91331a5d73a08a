// Package completions_test runs the completions in the shells that are installed,
// with the programs themselves.
package completions_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// inBash calls the completion as readline does: words are split at = and :.
const inBash = `
source %FILE
compopt() { echo "$*"; }
COMP_LINE=$1 COMP_POINT=${#1} COMP_WORDS=() word=
while IFS= read -rn1 c; do case $c in
	[=:]) [[ -z $word ]] || COMP_WORDS+=("$word"); COMP_WORDS+=("$c"); word= ;;
	' '|'') [[ -z $word ]] || COMP_WORDS+=("$word"); word= ;;
	*) word+=$c ;;
esac done <<< "$1"
last=${COMP_WORDS[-1]}
[[ $1 == *' ' ]] && COMP_WORDS+=("")
[[ $1 != *' ' && $1 != *"$last" ]] && COMP_WORDS+=("${1##* }")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_callhome
printf '%s\n' "${COMPREPLY[@]}"`

func TestShellsCompleteWhatTheProgramKnows(t *testing.T) {
	bin := t.TempDir()
	build := exec.Command("go", "build", "-o", bin+"/", "../../cmd/...")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := os.WriteFile(filepath.Join(bin, "a file.json"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	shells := map[string][]string{
		"bash": {"bash", "-c", strings.ReplaceAll("[[ -e %LIB ]] && source %LIB\n"+inBash, "%LIB", "/usr/share/bash-completion/bash_completion"), "bash"},
		"fish": {"fish", "-c", "source %FILE; complete -C $argv[1]"},
	}
	for shell, command := range shells {
		t.Run(shell, func(t *testing.T) {
			if _, err := exec.LookPath(shell); err != nil {
				t.Skip(shell + " is not installed")
			}
			file, err := filepath.Abs("callhome." + shell)
			if err != nil {
				t.Fatal(err)
			}
			for line, want := range map[string]string{
				"callhome-mgr sess":                  "session sessions",
				"callhome-mgr call --wait ":          "netconf none ssh tcp",
				"callhome-mgr run --log-l":           "--log-level",
				"callhome-trigger --handover e":      "exec",
				"callhome-trigger --netconf-server ": "clixon confd none yuma",
				"callhome-nms devices a":             "accounts adopt",
				"callhome-nms devices re":            "remove revoke",
				"callhome-nms console --lock ":       "candidate running startup",
				"callhome-nms serve --duplicate r":   "refuse replace",
			} {
				args := slices.Clone(command[1:])
				args[1] = strings.ReplaceAll(args[1], "%FILE", file)
				cmd := exec.Command(command[0], append(args, line)...)
				cmd.Dir = bin
				cmd.Env = []string{"PATH=" + bin + ":/usr/bin:/bin", "HOME=" + bin}
				out, err := cmd.CombinedOutput()
				got := strings.Fields(string(out))
				slices.Sort(got)
				if err != nil || strings.Join(got, " ") != want {
					t.Errorf("%q: %v, %q, want %q", line, err, out, want)
				}
			}
		})
	}
}

// A client's or a device's name is never a command, neither while it is completed nor
// when the line is run.
func TestNamesAreNoCommands(t *testing.T) {
	const name, plain = `x$(touch made);"*' y`, "SHA256:a+b/c"
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "callhome-mgr"), []byte("#!/bin/sh\ncat <<'E'\n"+name+"\n"+plain+"\nE\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	file, err := filepath.Abs("callhome.bash")
	if err != nil {
		t.Fatal(err)
	}
	script := strings.ReplaceAll(inBash, "%FILE", file) + "\n" + `eval "printf %s ${COMPREPLY[0]}"`
	for typed, want := range map[string]string{"x": name, "SHA": plain} {
		cmd := exec.Command("bash", "-c", script, "bash", "callhome-mgr restart-call-home "+typed)
		cmd.Dir, cmd.Env = dir, []string{"PATH=" + dir + ":/usr/bin:/bin"}
		out, err := cmd.CombinedOutput()
		if _, run, _ := strings.Cut(string(out), "\n"); err != nil || run != want {
			t.Errorf("%q: %v, %q, want %q", typed, err, out, want)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "made")); err == nil {
		t.Error("the name was run")
	}
}
