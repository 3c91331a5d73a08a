package web

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"callhome/internal/nms/nmsproto"
)

// marks tell the states apart without their colours.
var marks = map[nmsproto.State]string{nmsproto.Connected: "●", nmsproto.Lost: "▲", nmsproto.NeverSeen: "○"}

func stateName(s nmsproto.State) string { return strings.ReplaceAll(string(s), "-", " ") }

var eventNames = map[string]string{
	nmsproto.EventUp: "connected", nmsproto.EventDown: "lost", nmsproto.EventReplaced: "connected again", nmsproto.EventDuplicate: "duplicate refused",
	nmsproto.EventRefused: "call refused", nmsproto.EventUnknown: "unknown device called", nmsproto.EventAdopted: "registered",
	nmsproto.EventRegistry: "file not in force", nmsproto.EventRemoved: "removed", nmsproto.EventRevoked: "key revoked",
	nmsproto.EventUnrevoked: "key's revocation undone",
}

// date returns a time as the pages show it, clock its time of the day.
func date(t time.Time) string  { return t.UTC().Format("2006-01-02 15:04:05") }
func clock(t time.Time) string { return t.UTC().Format("15:04:05") }

func ago(t time.Time) string { return since(t) + " ago" }

func since(t time.Time) string { return age(time.Since(t)) }

// age returns a time with its two greatest units.
func age(d time.Duration) string {
	seconds := int(max(0, d).Round(time.Second) / time.Second)
	parts := []struct {
		unit string
		size int
	}{{"d", 86400}, {"h", 3600}, {"min", 60}, {"s", 1}}
	var out []string
	for _, p := range parts {
		if n := seconds / p.size; n > 0 || p.size == 1 && len(out) == 0 {
			out = append(out, strconv.Itoa(n)+"\u00a0"+p.unit)
		} else if len(out) > 0 {
			break
		}
		if seconds %= p.size; len(out) == 2 {
			break
		}
	}
	return strings.Join(out, " ")
}

// number returns a number with a thin space after each three digits.
func number[N int | uint64](n N) string {
	text := strconv.FormatUint(uint64(n), 10)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "\u202f" + text[i:]
	}
	return text
}

func byteCount(n uint64) string {
	switch {
	case n >= 1<<20:
		return strconv.FormatFloat(float64(n)/(1<<20), 'f', 1, 64) + "\u00a0MiB"
	case n >= 1<<10:
		return strconv.FormatFloat(float64(n)/(1<<10), 'f', 1, 64) + "\u00a0KiB"
	}
	return strconv.FormatUint(n, 10) + "\u00a0B"
}

// trip returns a short time.
func trip(d time.Duration) string { return d.Round(10 * time.Microsecond).String() }

// How much of a fingerprint is shown where it is only to be told from others.
const (
	shortKey = len(fingerprintPrefix) + 12
	tailKey  = 6
)

func short(fingerprint string) string { return fingerprint[:min(len(fingerprint), shortKey)] }
func tail(fingerprint string) string  { return "…" + fingerprint[max(0, len(fingerprint)-tailKey):] }

// sentence returns an error's text as a sentence.
func sentence(err error) string {
	text := err.Error()
	if text == "" {
		return ""
	}
	return strings.ToUpper(text[:1]) + text[1:] + "."
}

func labels(l map[string]string) []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(l)) {
		out = append(out, name+"="+l[name])
	}
	return out
}

// count returns a number with what is counted.
func count(n int, one, many string) string {
	if n == 1 {
		many = one
	}
	return number(n) + " " + many
}

func eventName(event string) string { return cmp.Or(eventNames[event], event) }
