package config

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// Every example in the documentation is valid for the models and for Parse.
func TestExamplesAreValid(t *testing.T) {
	for _, e := range examples(t) {
		t.Run(fmt.Sprintf("line %d", e.line), func(t *testing.T) {
			if e.kind == "" {
				parse(t, Features{}, []byte(e.text))
			}
			needYanglint(t)
			options := []string{}
			if e.kind == "state" {
				// A state example lacks the configuration's mandatory nodes.
				options = []string{"-t", "get"}
			}
			if out, err := yanglint(t, []byte(e.text), options...); err != nil {
				t.Error(out)
			}
		})
	}
}

// leaves lists every leaf below n, with its value, as "/path value".
func leaves(n *node, at string) []string {
	var out []string
	switch n.kind {
	case isObject:
		for _, m := range n.members {
			out = append(out, leaves(m.value, at+"/"+m.name)...)
		}
	case isArray:
		for i, item := range n.items {
			out = append(out, leaves(item, fmt.Sprintf("%s[%d]", at, i))...)
		}
	default:
		out = append(out, at+" "+n.text)
	}
	return out
}

// A missing node gets the models' default: yanglint adds the same ones.
func TestDefaultsAreThoseOfTheModels(t *testing.T) {
	needYanglint(t)
	periodic := edit{inClient + "connection-type", `{"periodic": {}}`}
	for name, doc := range map[string][]byte{
		"minimal":    with(t),
		"periodic":   with(t, periodic),
		"keepalives": with(t, edit{inTCP + "keepalives", `{}`}, edit{inSSH + "keepalives", `{}`}),
		"socks4":     with(t, edit{inTCP + "proxy-server", `{"socks4-parameters": {"remote-address": "192.0.2.9"}}`}),
		"socks4a":    with(t, edit{inTCP + "proxy-server", `{"socks4a-parameters": {"remote-address": "p.example"}}`}),
		"socks5":     with(t, edit{inTCP + "proxy-server", `{"socks5-parameters": {"remote-address": "p.example"}}`}),
		"backoff":    with(t, edit{inClient + "callhome:backoff", `{}`}),
	} {
		t.Run(name, func(t *testing.T) {
			out, err := yanglint(t, doc, "-d", "all")
			if err != nil {
				t.Fatal(out)
			}
			byYanglint, fault := read([]byte(out))
			if fault != nil {
				t.Fatal(fault)
			}
			byWalker, _ := read(doc)
			var w walker
			w.node(byWalker, schema(), "")
			if len(w.errs) > 0 {
				t.Fatal(w.errs)
			}
			want, got := leaves(byYanglint, ""), leaves(byWalker, "")
			slices.Sort(want)
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Errorf("the walker has\n%s\nthe models\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		})
	}
}

// Every node of the module callhome is in the schema.
func TestSchemaHasTheModuleCallhome(t *testing.T) {
	text, err := os.ReadFile(yang + "callhome@2026-11-29.yang")
	if err != nil {
		t.Fatal(err)
	}
	known := make(map[string]bool)
	var collect func(rows []row, within bool)
	collect = func(rows []row, within bool) {
		for _, r := range rows {
			bare, qualified := strings.CutPrefix(r.name, "callhome:")
			if qualified || within {
				known[bare] = true
			}
			collect(r.in, qualified || within)
		}
	}
	collect(schema().in, false)
	n := 0
	depth, state := 0, -1
	for _, line := range strings.Split(string(text), "\n") {
		words := strings.Fields(line)
		if len(words) == 3 && slices.Contains([]string{"leaf", "container", "list", "leaf-list"}, words[0]) && state < 0 {
			n++
			if !known[words[1]] {
				t.Errorf("%s is in the module and not in the schema", words[1])
			}
			if words[1] == "state" {
				state = depth
			}
		}
		depth += strings.Count(line, "{") - strings.Count(line, "}")
		if depth <= state {
			state = -1
		}
	}
	if n < 15 {
		t.Errorf("found %d nodes in the module", n)
	}
}
