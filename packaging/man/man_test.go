// Package man_test holds the manual pages to the programs: the options that
// --help shows, the methods, events and errors of the API, the nodes of the
// configuration. A manual that lags behind fails here.
package man_test

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"callhome/internal/device/config"
	"callhome/internal/device/settings"
	"callhome/internal/proto"
	"callhome/test/skips"
)

// page is a manual page, as far as it is compared: its words by subsection.
type page struct {
	options map[string]map[string]string // subsection, option: what is said of it
	values  map[string]map[string]string // subsection, option: the placeholder of its value
	words   map[string][]string          // subsection: the words of its list
}

// read understands what these pages have of mdoc(7): .Ss, .It and text.
func read(t *testing.T, name string) page {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	p := page{make(map[string]map[string]string), make(map[string]map[string]string), make(map[string][]string)}
	section, option := "", ""
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		switch {
		case len(f) == 0:
		case f[0] == ".Sh":
			section, option = "", ""
		case f[0] == ".Ss":
			// What follows a macro is an argument, not the command's name.
			words := f[1:]
			if i := slices.IndexFunc(words, func(w string) bool { return w == "Ar" || w == "Op" }); i >= 0 {
				words = words[:i]
			}
			section, option = strings.Join(words, " "), ""
		case f[0] == ".It" && len(f) > 2 && f[1] == "Fl":
			option = strings.TrimPrefix(f[2], "-")
			if p.options[section] == nil {
				p.options[section] = make(map[string]string)
			}
			if _, twice := p.options[section][option]; twice {
				t.Errorf("%s: %s: --%s stands twice", name, section, option)
			}
			p.options[section][option] = " "
			if p.values[section] == nil {
				p.values[section] = make(map[string]string)
			}
			p.values[section][option] = macros.Replace(strings.Join(f[3:], " "))
		case f[0] == ".It":
			option = ""
			p.words[section] = append(p.words[section], strings.Join(f[1:], " "))
		case option != "":
			p.options[section][option] += strings.Join(f, " ") + " "
		}
	}
	return p
}

// macros are removed from a placeholder.
var macros = strings.NewReplacer("Ar ", "", "Ns ", "", "Op ", "", "Ns", "", " ", "")

// section is where the pages say which one they are in.
var section = map[string]string{"callhome-trigger": "8", "callhome-mgr": "8", "callhome-nms": "1"}

// flagLine is a line of --help that begins with an option.
var flagLine = regexp.MustCompile(`(?m)^ {3}--([A-Za-z0-9-]+)(?:, -[a-z])?(?: (\S+))?`)

// noun is what a placeholder is made of.
var noun = regexp.MustCompile(`^[A-Z]+(?:-[A-Z]+)*(?:[:=,@][A-Z]+)*$`)

// commandLine is one of its list of commands.
var commandLine = regexp.MustCompile(`(?m)^ {3}([a-z][a-z-]+) {2,}`)

func help(t *testing.T, program string, words ...string) string {
	t.Helper()
	out, err := exec.Command(program, append(words, "--help")...).Output()
	if err != nil {
		t.Fatalf("%s %v --help: %v", program, words, err)
	}
	return string(out)
}

// all collects what --help says of a program and, command by command, of its
// commands.
func all(t *testing.T, program string, words []string, into map[string][]string, values map[string]string) {
	text := help(t, program, words...)
	options := []string{}
	for _, m := range flagLine.FindAllStringSubmatch(text, -1) {
		// Of a command --help goes without saying.
		if len(words) == 0 || m[1] != "help" {
			options = append(options, m[1])
		}
		values[strings.Join(words, " ")+" --"+m[1]] = strings.NewReplacer("[", "", "]", "").Replace(m[2])
	}
	slices.Sort(options)
	into[strings.Join(words, " ")] = slices.Compact(options)
	if _, list, ok := strings.Cut(text, "\nCOMMANDS:\n"); ok {
		list, _, _ = strings.Cut(list, "\n\n")
		for _, m := range commandLine.FindAllStringSubmatch(list, -1) {
			if m[1] != "help" {
				all(t, program, append(slices.Clone(words), m[1]), into, values)
			}
		}
	}
}

func TestOptionsAreThePrograms(t *testing.T) {
	programs, err := filepath.Glob("../../cmd/*")
	if err != nil || len(programs) == 0 {
		t.Fatal(programs, err)
	}
	bin := t.TempDir()
	for _, dir := range programs {
		name := filepath.Base(dir)
		t.Run(name, func(t *testing.T) {
			build := exec.Command("go", "build", "-o", bin+"/", "./"+dir)
			build.Env = append(os.Environ(), "CGO_ENABLED=0")
			if out, err := build.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			want, values := make(map[string][]string), make(map[string]string)
			all(t, filepath.Join(bin, name), nil, want, values)
			p := read(t, name+"."+section[name])
			for command, options := range want {
				at := command
				if name == "callhome-trigger" {
					at = "Options"
				}
				if got := slices.Sorted(maps.Keys(p.options[at])); !slices.Equal(got, options) && len(got)+len(options) > 0 {
					t.Errorf("%s %s has the options\n%q, the manual\n%q", name, command, options, got)
				}
			}
			for option, value := range values {
				command, long, _ := strings.Cut(option, " --")
				if name == "callhome-trigger" {
					command = "Options"
				}
				if value != "" && !noun.MatchString(value) {
					t.Errorf("%s %s: the placeholder %q is not a noun", name, option, value)
				}
				if got := p.values[command][long]; got != value && long != "help" {
					t.Errorf("%s %s has the placeholder %q, the manual %q", name, option, value, got)
				}
			}
			for command := range p.options {
				if _, ok := want[command]; !ok && command != "Options" {
					t.Errorf("the manual has %s %s, which there is not", name, command)
				}
			}
		})
	}
}

// The trigger's table has what the manual has to say: what a value is called
// and their built-in values.
func TestTriggersTable(t *testing.T) {
	p := read(t, "callhome-trigger.8")
	for _, o := range settings.Options() {
		text := p.options["Options"][o.Name]
		if o.Default != "" && !strings.Contains(text, o.Default) {
			t.Errorf("--%s: the manual does not say that it is %s; it says %s", o.Name, o.Default, text)
		}
		if o.Repeat != strings.Contains(text, "repeatable") {
			t.Errorf("--%s: repeatable is %v, the manual says %s", o.Name, o.Repeat, text)
		}
	}
}

func TestMethodsEventsErrors(t *testing.T) {
	p := read(t, "callhome-api.7")
	var errors []string
	for code := proto.Code(1); code.String() != "CALLHOME_ERR_INTERNAL"; code++ {
		errors = append(errors, fmt.Sprintf("%d Er %v", code, code))
	}
	for what, want := range map[string][]string{
		"Methods": command(constants(t, "Method")),
		"Events":  command(proto.Events),
		"Errors":  errors,
	} {
		got := slices.Sorted(slices.Values(p.words[what]))
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s of the manual:\n%q, of the program:\n%q", what, got, want)
		}
	}
	text := source(t, "callhome-api.7")
	for _, s := range proto.Stages {
		if !strings.Contains(text, string(s)) {
			t.Errorf("the manual lacks the stage %s", s)
		}
	}
}

func command(words []string) (out []string) {
	for _, w := range words {
		out = append(out, "Cm "+w)
	}
	return out
}

// constants returns the values of proto's constants whose names begin so.
func constants(t *testing.T, prefix string) (words []string) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "../../internal/proto/proto.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(f, func(n ast.Node) bool {
		s, ok := n.(*ast.ValueSpec)
		if !ok || !strings.HasPrefix(s.Names[0].Name, prefix) || len(s.Values) != 1 {
			return true
		}
		if lit, ok := s.Values[0].(*ast.BasicLit); ok && lit.Kind == token.STRING {
			if w, err := strconv.Unquote(lit.Value); err == nil {
				words = append(words, w)
			}
		}
		return true
	})
	return words
}

func source(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// Every leaf and container that our module adds is in the manual, and its
// example is a document that is taken.
func TestConfiguration(t *testing.T) {
	modules, err := filepath.Glob("../yang/callhome@*.yang")
	if err != nil || len(modules) != 1 {
		t.Fatal(modules, err)
	}
	text := source(t, "callhome.json.5")
	added := regexp.MustCompile(`(?m)^ {4}(?:leaf|container) ([a-z-]+)`).FindAllStringSubmatch(source(t, modules[0]), -1)
	if len(added) < 10 {
		t.Fatalf("found %d nodes in %s", len(added), modules[0])
	}
	for _, m := range added {
		if m[1] != "state" && !strings.Contains(text, "callhome:"+m[1]) {
			t.Errorf("the manual lacks callhome:%s", m[1])
		}
	}
	defaults := regexp.MustCompile(`(?s)leaf ([a-z-]+) \{[^{}]*(?:\{[^{}]*\}[^{}]*)?default "(\d+)";`).FindAllStringSubmatch(source(t, modules[0]), -1)
	if len(defaults) != 4 {
		t.Fatalf("found the built-in values %q", defaults)
	}
	for _, m := range defaults {
		if !regexp.MustCompile(`(?s)` + m[1] + `\s[^()]*\(` + m[2] + `[:)]`).MatchString(text) {
			t.Errorf("the manual does not say that %s is %s", m[1], m[2])
		}
	}
	_, example, ok := strings.Cut(text, ".Bd -literal\n")
	example, _, end := strings.Cut(example, ".Ed\n")
	if !ok || !end {
		t.Fatal("the manual has no example")
	}
	c, faults := config.Parse([]byte(example), config.Features{}, config.Defaults{})
	if err := faults.Err(); err != nil || len(c.Clients) != 1 {
		t.Errorf("the example: %v", err)
	}
}

func TestGoodForm(t *testing.T) {
	if _, err := exec.LookPath("mandoc"); err != nil {
		skips.Story(t, "mandoc is not installed")
	}
	pages, err := filepath.Glob("*.[1578]")
	if err != nil || len(pages) != 5 {
		t.Fatal(pages, err)
	}
	out, _ := exec.Command("mandoc", append([]string{"-T", "lint"}, pages...)...).CombinedOutput()
	for line := range bytes.Lines(out) {
		// What a machine's index of manuals lacks is no fault of ours.
		if !bytes.Contains(line, []byte("outdated mandoc.db")) && !bytes.Contains(line, []byte("referenced manual not found")) {
			t.Errorf("%s", line)
		}
	}
}
