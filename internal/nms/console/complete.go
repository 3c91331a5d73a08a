package console

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Complete returns what may stand in place of the last word of line, which begins at
// the index begin: names of operations and modifiers, their values, and files.
func Complete(line string) (begin int, words []string) {
	begin = strings.LastIndexAny(line, " \t") + 1
	before, word := strings.Fields(line[:begin]), line[begin:]
	return begin, slices.DeleteFunc(candidates(before, word), func(s string) bool { return !strings.HasPrefix(s, word) })
}

func candidates(before []string, word string) (out []string) {
	if len(before) == 0 {
		for _, o := range Operations {
			out = append(out, o.Name)
		}
		return append(out, "help", "quit")
	}
	i := slices.IndexFunc(Operations, func(o *Operation) bool { return o.Name == before[0] })
	if i < 0 {
		return nil
	}
	last := before[len(before)-1]
	for _, m := range Modifiers {
		if last == "--"+m.Name || m.Short != "" && last == "-"+m.Short {
			return values(m.Value, m.choices, word)
		}
	}
	if strings.HasPrefix(word, "-") {
		for _, name := range Operations[i].Takes {
			out = append(out, "--"+name)
		}
		return out
	}
	if len(before) == 1 {
		return values(Operations[i].Value, nil, word)
	}
	return nil
}

// values are those that a placeholder stands for.
func values(placeholder string, choices []string, word string) []string {
	switch placeholder {
	case "DB":
		return slices.Clone(Datastores)
	case "FILE":
		return files(word)
	}
	return slices.Clone(choices)
}

// files are the names in the directory of word, as word has it. A name that would steer
// the terminal is left out: the line editor prints what it inserts.
func files(word string) (out []string) {
	dir, _ := filepath.Split(word)
	entries, _ := os.ReadDir(filepath.Clean(dir)) // a completion has no place for an error
	for _, e := range entries {
		name := dir + e.Name()
		if Printable(name) != name {
			continue
		}
		if e.IsDir() {
			name += "/"
		}
		out = append(out, name)
	}
	return out
}

// Help has the commands of the interactive mode, each with its text.
func Help() (out [][2]string) {
	for _, o := range Operations {
		text := o.Usage
		if len(o.Takes) > 0 {
			text += "; takes --" + strings.Join(o.Takes, ", --")
		}
		out = append(out, [2]string{strings.TrimSpace(o.Name + " " + o.placeholder()), text})
	}
	return append(out, [2]string{"<...>", "send this XML in <rpc>"}, [2]string{"help, quit", "show this help; end the session"})
}
