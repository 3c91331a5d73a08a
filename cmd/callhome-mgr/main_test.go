package main

import (
	"slices"
	"strings"
	"testing"

	"callhome/internal/cmdline"
)

func TestFlagsMayStandBehindWords(t *testing.T) {
	for line, want := range map[string]string{
		"m call nms 4334 --wait ssh --json": "m call --wait ssh --json nms 4334",
		"m call nms --opaque=x 4334":        "m call --opaque=x nms 4334",
		"m --socket s call nms --opaque -x": "m --socket s call --opaque -x nms",
		"m call --wait ssh -- -nms --json":  "m call --wait ssh -- -nms --json",
		"m --socket call call nms --json":   "m --socket call call --json nms",
		"m call nms --socket s --json":      "m --socket s call --json nms",
		"m call nms --wait=ssh":             "m call --wait=ssh nms",
		"m run --socket=s":                  "m --socket=s run",
		"m call nms --socket":               "m --socket",
		"m --socket=s call nms --json":      "m --socket=s call --json nms",
		"m call x -- y --json":              "m call -- x y --json",
		"m -- call x --json":                "m -- call x --json",
		"m nonesuch call --json":            "m nonesuch call --json",
		"m session 7 --json":                "m session --json 7",
		"m call nms --wait":                 "m call --wait",
		"m --version":                       "m --version",
		"m run --metrics 127.0.0.1:1":       "m run --metrics 127.0.0.1:1",
	} {
		if got := cmdline.Arguments(newApp(), strings.Fields(line)); !slices.Equal(got, strings.Fields(want)) {
			t.Errorf("%s became %s", line, strings.Join(got, " "))
		}
	}
}
