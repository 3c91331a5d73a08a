package settings

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"callhome/internal/sshdexec"
	"callhome/internal/sysexits"
)

// maxDefaults bounds the defaults file, in bytes. A device's file has a few hundred.
const maxDefaults = 64 << 10

type entry struct {
	value string
	line  int
}

// defaults is the parsed defaults file.
type defaults struct {
	path    string
	entries map[string]entry
}

// loadDefaults reads the file that CALLHOME_DEFAULTS names, else DefaultsFile if it
// exists.
func loadDefaults(getenv func(string) (string, bool)) (*defaults, error) {
	name, named := getenv(DefaultsEnv)
	if named = named && name != ""; !named {
		name = DefaultsFile
	}
	data, err := sshdexec.ReadFile(name)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !named:
		return &defaults{path: name}, nil
	case errors.Is(err, fs.ErrPermission):
		return nil, sysexits.New(sysexits.NoPerm, "make it readable for this user", fmt.Errorf("reading the defaults file: %w", err))
	case err != nil:
		return nil, sysexits.New(sysexits.NoInput, "create it, or unset "+DefaultsEnv, fmt.Errorf("reading the defaults file: %w", err))
	}
	entries, err := parseDefaults(string(data))
	if err != nil {
		return nil, sysexits.New(sysexits.Config, "", fmt.Errorf("%s:%w", name, err))
	}
	return &defaults{name, entries}, nil
}

// parseDefaults parses KEY=VALUE lines as systemd.exec(5) describes them for
// EnvironmentFile: comments after # or ; at the start of a line, quotes of both
// kinds, backslash escapes and continued lines. A key without an option and a
// duplicate key are refused. Errors begin with the line number.
func parseDefaults(text string) (map[string]entry, error) {
	if len(text) > maxDefaults {
		return nil, fmt.Errorf("1: the file has %d bytes; at most %d are read", len(text), maxDefaults)
	}
	entries := make(map[string]entry)
	for line := 1; text != ""; {
		start := line
		trimmed := strings.TrimLeft(text, " \t\r")
		if trimmed == "" || strings.ContainsRune("#;\n", rune(trimmed[0])) {
			_, text, _ = strings.Cut(text, "\n")
			line++
			continue
		}
		head, _, _ := strings.Cut(trimmed, "\n")
		key, _, ok := strings.Cut(head, "=")
		key = strings.TrimRight(key, " \t")
		if !ok {
			return nil, fmt.Errorf("%d: expected KEY=VALUE, found %q", start, head)
		}
		if !knownKey(key) {
			return nil, fmt.Errorf("%d: unknown key %q; a key is an option of callhome-trigger --help, as CALLHOME_LOCAL_ADDRESS is --local-address", start, key)
		}
		if e, twice := entries[key]; twice {
			return nil, fmt.Errorf("%d: duplicate %s, first in line %d", start, key, e.line)
		}
		value, rest, lines, err := parseValue(trimmed[strings.IndexByte(trimmed, '=')+1:])
		if err != nil {
			return nil, fmt.Errorf("%d: %s: %w", start, key, err)
		}
		entries[key] = entry{value, start}
		text, line = rest, line+lines
	}
	return entries, nil
}

func knownKey(key string) bool {
	for i := range options {
		if options[i].Env() == key {
			return true
		}
	}
	return false
}

// parseValue reads one value up to the end of its line and returns it, the
// text after that line, and how many lines it took.
func parseValue(s string) (value, rest string, lines int, err error) {
	var b strings.Builder
	keep := 0 // length of b without trailing white space
	quote := byte(0)
	plain := false // after an unquoted character: quotes are data
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == 0:
			return "", "", 0, errors.New("the value contains a NUL byte")
		case c == '\\' && quote != '\'' && i+1 < len(s) && s[i+1] != 0:
			i++
			plain = plain || quote == 0
			if s[i] == '\n' {
				lines++
				continue
			}
			if quote == '"' && !strings.ContainsRune("\"\\$`", rune(s[i])) {
				b.WriteByte('\\')
			}
			b.WriteByte(s[i])
			keep = b.Len()
		case c == quote && quote != 0:
			quote = 0
		case quote == 0 && !plain && (c == '"' || c == '\''):
			quote = c
		case c == '\n' && quote == 0:
			return b.String()[:keep], s[i+1:], lines + 1, nil
		case quote == 0 && !plain && strings.ContainsRune(" \t\r", rune(c)):
		default:
			plain = plain || quote == 0
			if c == '\n' {
				lines++
			}
			b.WriteByte(c)
			if quote != 0 || !strings.ContainsRune(" \t\r", rune(c)) {
				keep = b.Len()
			}
		}
	}
	if quote != 0 {
		return "", "", 0, fmt.Errorf("the quote %c is not closed", quote)
	}
	return b.String()[:keep], "", lines + 1, nil
}
