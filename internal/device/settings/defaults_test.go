package settings

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"callhome/internal/sysexits"
)

// systemd's own parser reads these values equally (252, as os-release through
// systemd-tmpfiles).
func TestParseDefaultsReadsValuesAsSystemdDoes(t *testing.T) {
	for _, tt := range []struct {
		name  string
		value string // the text after "="
		want  string
	}{
		{"nothing", ``, ``},
		{"plain text", `nms`, `nms`},
		{"white space around", " \t nms \t\r", `nms`},
		{"white space within", `a  b`, `a  b`},
		{"an equals sign", `a=b`, `a=b`},
		{"a hash is no comment behind a value", `a #b`, `a #b`},
		{"a hash alone", `#b`, `#b`},
		{"a dollar stands for itself", `$HOME`, `$HOME`},
		{"letters beyond ASCII", `é`, `é`},
		{"a backslash preserves what follows", `a\ b\\c\"d`, `a b\c"d`},
		{"a backslash preserves white space at the start", ` \ a`, ` a`},
		{"a backslash preserves white space at the end", `a\  `, `a `},
		{"a backslash at the end continues the line", "a\\\nb", `ab`},
		{"a continued line keeps its white space", "a \\\n  b", `a   b`},
		{"a value that begins on the next line", "\\\n  b", `  b`},
		{"single quotes", `'a b'`, `a b`},
		{"single quotes keep white space and backslashes", `' a\n\' `, ` a\n\`},
		{"single quotes span lines", "'a\nb'", "a\nb"},
		{"a backslash does not continue a line in single quotes", "'a\\\nb'", "a\\\nb"},
		{"double quotes", `"a b"`, `a b`},
		{"double quotes span lines", "\"a\nb\"", "a\nb"},
		{"double quotes keep white space", "\" a \"\t", ` a `},
		{"the escapes within double quotes", `"\"\\\$\` + "`" + `"`, "\"\\$`"},
		{"other backslashes stay within double quotes", `"a\xb\'"`, `a\xb\'`},
		{"a backslash continues a line in double quotes", "\"a\\\nb\"", `ab`},
		{"a single quote within double ones", `"it's"`, `it's`},
		{"double quotes within single ones", `'a "b"'`, `a "b"`},
		{"empty quotes", `""`, ``},
		{"an apostrophe inside a value is not a quote", `it's`, `it's`},
		{"quotes after the first space stay", `/bin/sh -c "x y" 'z'`, `/bin/sh -c "x y" 'z'`},
		{"quotes behind an escape stay", `\"a"b"`, `"a"b"`},
		{"quoted parts join", `"a"'b' "c"`, `abc`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			// Twice: at the end of the text, and followed by a line.
			for _, after := range []string{"", "\n", "\nCALLHOME_PORT=1\n"} {
				got, err := parseDefaults("CALLHOME_OPAQUE=" + tt.value + after)
				if err != nil {
					t.Fatalf("%q with %q behind it: %v", tt.value, after, err)
				}
				if v := got["CALLHOME_OPAQUE"].value; v != tt.want {
					t.Errorf("%q with %q behind it gives %q, want %q", tt.value, after, v, tt.want)
				}
				if after != "" && after != "\n" && got["CALLHOME_PORT"].value != "1" {
					t.Errorf("%q swallows the line behind it", tt.value)
				}
			}
		})
	}
}

func TestParseDefaultsCountsLines(t *testing.T) {
	text := strings.Join([]string{
		`# CALLHOME_HOST=comment`,
		`; CALLHOME_HOST=comment`,
		``,
		" \t# CALLHOME_HOST=comment",
		"\t CALLHOME_HOST \t=nms\r",
		`CALLHOME_SUBSYSTEM='a`,
		`# no comment`,
		`b'`,
		`CALLHOME_OPAQUE=a\`,
		`b\`,
		``,
		`CALLHOME_PORT=830`,
	}, "\n")
	want := map[string]entry{
		"CALLHOME_HOST":      {"nms", 5},
		"CALLHOME_SUBSYSTEM": {"a\n# no comment\nb", 6},
		"CALLHOME_OPAQUE":    {"ab", 9},
		"CALLHOME_PORT":      {"830", 12},
	}
	got, err := parseDefaults(text)
	if err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestParseDefaultsAcceptsALargeFile(t *testing.T) {
	line := "CALLHOME_PORT=1"
	got, err := parseDefaults(strings.Repeat("\n", maxDefaults-len(line)) + line)
	if err != nil || got["CALLHOME_PORT"] != (entry{"1", maxDefaults - len(line) + 1}) {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestParseDefaultsRefuses(t *testing.T) {
	for _, tt := range []struct {
		name, text, says string
	}{
		{"a line without an equals sign", "\nCALLHOME_PORT 1\n", `2: expected KEY=VALUE, found "CALLHOME_PORT 1"`},
		{"an equals sign that stands on the next line", "CALLHOME_PORT\n=1", `1: expected KEY=VALUE, found "CALLHOME_PORT"`},
		{"no key", "=1", `1: unknown key ""; a key is an option of callhome-trigger --help, as CALLHOME_LOCAL_ADDRESS is --local-address`},
		{"another program's key", "# 1\n# 2\nPATH=/bin", `3: unknown key "PATH"; a key is an option of callhome-trigger --help, as CALLHOME_LOCAL_ADDRESS is --local-address`},
		{"an option's name instead of its key", "local-port=1", `1: unknown key "local-port"; a key is an option of callhome-trigger --help, as CALLHOME_LOCAL_ADDRESS is --local-address`},
		{"a key in lower case", "callhome_port=1", `1: unknown key "callhome_port"; a key is an option of callhome-trigger --help, as CALLHOME_LOCAL_ADDRESS is --local-address`},
		{"a shell's export", "export CALLHOME_PORT=1", `1: unknown key "export CALLHOME_PORT"; a key is an option of callhome-trigger --help, as CALLHOME_LOCAL_ADDRESS is --local-address`},
		{"a key with the name of the file itself", DefaultsEnv + "=/x", `1: unknown key "CALLHOME_DEFAULTS"; a key is an option of callhome-trigger --help, as CALLHOME_LOCAL_ADDRESS is --local-address`},
		{"a key twice", "CALLHOME_PORT='1\n'\n\nCALLHOME_PORT=2", `4: duplicate CALLHOME_PORT, first in line 1`},
		{"a single quote that is not closed", "\nCALLHOME_PORT='1\n", `2: CALLHOME_PORT: the quote ' is not closed`},
		{"a double quote that is not closed", "CALLHOME_PORT=\"1\\\"", `1: CALLHOME_PORT: the quote " is not closed`},
		{"a NUL", "CALLHOME_OPAQUE=a\x00b", `1: CALLHOME_OPAQUE: the value contains a NUL byte`},
		{"a NUL behind a backslash", "CALLHOME_OPAQUE=a\\\x00b", `1: CALLHOME_OPAQUE: the value contains a NUL byte`},
		{"a file that is far too large", strings.Repeat("\n", maxDefaults+1), `1: the file has 65537 bytes; at most 65536 are read`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseDefaults(tt.text)
			if err == nil {
				t.Fatalf("accepted as %v", got)
			}
			if err.Error() != tt.says {
				t.Errorf("says\n%s, want\n%s", err, tt.says)
			}
		})
	}
}

func TestLoadDefaultsReadsTheNamedFile(t *testing.T) {
	dir := t.TempDir()
	good := filepath.Join(dir, "good.conf")
	bad := filepath.Join(dir, "bad.conf")
	for name, text := range map[string]string{good: "CALLHOME_PORT=830\n", bad: "\nNONSENSE=1\n"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	named := func(path string) func(string) (string, bool) {
		return func(key string) (string, bool) { return path, key == DefaultsEnv }
	}
	t.Run("a named file is read", func(t *testing.T) {
		d, err := loadDefaults(named(good))
		if err != nil || d.path != good || d.entries["CALLHOME_PORT"] != (entry{"830", 1}) {
			t.Errorf("got %+v, %v", d, err)
		}
	})
	for _, tt := range []struct {
		name, path string
		code       int
		says       string
	}{
		{"a named file must be there", filepath.Join(dir, "none"), sysexits.NoInput, "no such file"},
		{"a directory is no file", dir, sysexits.NoInput, "is a directory"},
		{"a fault has file and line", bad, sysexits.Config, bad + ":2: unknown key"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := loadDefaults(named(tt.path))
			if sysexits.Code(err) != tt.code || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("exit status %d with %v, want %d with %q", sysexits.Code(err), err, tt.code, tt.says)
			}
		})
	}
	for name, getenv := range map[string]func(string) (string, bool){
		"the usual file need not be there": func(string) (string, bool) { return "", false },
		"an empty name is no setting":      named(""),
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := os.Stat(DefaultsFile); !errors.Is(err, fs.ErrNotExist) {
				t.Skipf("this machine has a %s", DefaultsFile)
			}
			d, err := loadDefaults(getenv)
			if err != nil || d.path != DefaultsFile || len(d.entries) != 0 {
				t.Errorf("got %+v, %v", d, err)
			}
		})
	}
}

func FuzzParseDefaults(f *testing.F) {
	for _, text := range []string{
		"CALLHOME_PORT=830\n", "# a\n;b\n\n\t CALLHOME_HOST = 'x\ny' \r\n", "CALLHOME_OPAQUE=\"a\\\\\\\"\\$\\`\\x\\\nb\"",
		"CALLHOME_OPAQUE=a\\\n b\\", "CALLHOME_HOST_KEY=/a;/b\nCALLHOME_HOST_KEY=/c", "CALLHOME_OPAQUE=it's \"so\"", "=\n", "x", "\\\n", "CALLHOME_PORT='", "CALLHOME_OPAQUE=\x00",
	} {
		f.Add(text)
	}
	numbered := regexp.MustCompile(`^([0-9]+): `)
	f.Fuzz(func(t *testing.T, text string) {
		lines := strings.Split(text, "\n")
		entries, err := parseDefaults(text)
		if err != nil {
			m := numbered.FindStringSubmatch(err.Error())
			if m == nil || strings.Contains(err.Error(), "\n") {
				t.Fatalf("%q: the message %q is not one line with its number", text, err)
			}
			if n, err := strconv.Atoi(m[1]); err != nil || n < 1 || n > len(lines) {
				t.Fatalf("%q has no line %s", text, m[1])
			}
			return
		}
		for key, e := range entries {
			if !knownKey(key) || strings.Contains(e.value, "\x00") {
				t.Errorf("%q gives %s=%q", text, key, e.value)
			}
			if e.line < 1 || e.line > len(lines) || !strings.HasPrefix(strings.TrimLeft(lines[e.line-1], " \t\r"), key) {
				t.Errorf("%q: %s does not stand in line %d", text, key, e.line)
			}
			for _, spelled := range quotings(e.value) {
				again, err := parseDefaults(key + "=" + spelled + "\n")
				if err != nil || again[key].value != e.value {
					t.Errorf("%q spelled %q is read as %q, %v", e.value, spelled, again[key].value, err)
				}
			}
		}
	})
}

// quotings returns the ways to write a value in systemd.exec(5)'s syntax.
func quotings(value string) []string {
	out := []string{`"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "$", `\$`, "`", "\\`").Replace(value) + `"`}
	if !strings.Contains(value, "'") {
		out = append(out, "'"+value+"'")
	}
	if !strings.Contains(value, "\n") { // only quotes keep a newline
		var b strings.Builder
		for i := range len(value) {
			if value[i] < 0x80 {
				b.WriteByte('\\')
			}
			b.WriteByte(value[i])
		}
		out = append(out, b.String())
	}
	return out
}
