package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestKeysOfTheConsole(t *testing.T) {
	const left = "\x1b[D"
	for keys, want := range map[string]string{
		"lo\tcan\t\r":                  "lock candidate ",
		"get-\t\tconfig\r":             "get-config",
		"get-\tc\tru\t--db\t\r":        "get-config running --db ",
		"get-config r" + left + "\t\r": "get-config r",
		"unlock\x03lock\r":             "lock",
		"a\x03\x03\r":                  "",
		"xyz\t\r":                      "xyz",
		"qit" + left + left + "u\r":    "quit",
		"h\t\x1c\r":                    "",
	} {
		var screen bytes.Buffer
		e := &editedLines{newTerminal(strings.NewReader(keys), &screen), 0}
		e.terminal.AutoCompleteCallback = e.key
		if got, err := e.terminal.ReadLine(); err != nil || got != want {
			t.Errorf("%q: %q, %v, want %q", keys, got, err, want)
		}
	}
	var screen bytes.Buffer
	e := &editedLines{newTerminal(strings.NewReader("get-\t\r\rlock\r\x1b[A\x1b[A\r"), &screen), 0}
	e.terminal.AutoCompleteCallback = e.key
	var got []string
	for range 4 {
		line, err := e.terminal.ReadLine()
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, line)
	}
	if strings.Join(got, ",") != "get-,,lock,get-" || !strings.Contains(screen.String(), "get-config  get-schema") {
		t.Errorf("%q, the screen has %q", got, screen.String())
	}
}
