package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"callhome/internal/device/config"
	"callhome/internal/device/settings"
	"callhome/internal/proto"
	"callhome/internal/sshdexec"
	"callhome/internal/sysexits"
)

// script makes an executable script.
func script(t *testing.T, name, script string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// with returns settings with that sshd.
func with(sshd string) *settings.Settings {
	return &settings.Settings{Call: settings.Call{Sshd: sshdexec.Command{Sshd: sshd}}}
}

// document is one with a client that has these extras, JSON members of the
// netconf-client.
func document(extras string) string {
	return `{"ietf-netconf-server:netconf-server": {"call-home": {"netconf-client": [{
		"name": "nms", ` + extras + `
		"endpoints": {"endpoint": [{"name": "a", "ssh": {
			"tcp-client-parameters": {"remote-address": "192.0.2.1"},
			"ssh-server-parameters": {
				"server-identity": {"host-key": [{"name": "ssh_host_ed25519_key", "public-key": {"inline-definition": {"hidden-private-key": [null]}}}]},
				"client-authentication": {"users": {"user": [{"name": "netop", "public-keys": {"inline-definition": {"public-key": [
					{"name": "1", "public-key-format": "ietf-crypto-types:ssh-public-key-format", "public-key": "AAAAC3NzaC1lZDI1NTE5AAAAIGJnW1VXG0Vw0Vxmzn7PfNOPcF2zmM4sQBMHzhs8tkQW"}]}}}]}}
			}}}]},
		"connection-type": {"persistent": {}}
	}]}}}`
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestCheckDocument(t *testing.T) {
	file := filepath.Join(t.TempDir(), "callhome.json")
	sshd := script(t, "sshd", "echo OpenSSH_9.8p1 >&2")
	write(t, file, document(""))
	var out bytes.Buffer
	if err := checkDocument(&out, file, true, with(sshd)); err != nil {
		t.Fatal(err)
	}
	want := "client nms: persistent, 192.0.2.1 port 4334\n" +
		"  user netop, with ssh-ed25519 SHA256:HT31aT2nNzSJgf2eU0D05p2iVG4zUMGe4RyWrRTxzk8 (1)\n" +
		"  warning: user netop cannot log in: it is no user of this machine\n" + file + ": 1 client\n"
	if !strings.HasSuffix(out.String(), want) {
		t.Errorf("got %q, want %q", out.String(), want)
	}
	// In its place the document is for this machine.
	if err := checkDocument(&out, file, false, with(sshd)); sysexits.Code(err) != sysexits.NoPerm || err.Error() != "no user can log in to the connections of nms" {
		t.Errorf("in its place: %v", err)
	}
	if !hasUsers(file, sshd) || hasUsers("/nonexistent/callhome.json", sshd) {
		t.Error("the document's users are not seen")
	}
	for name, tt := range map[string]struct {
		authentication, says string
		code                 int // in its place
	}{
		"no users": {`{}`, "  users: those that sshd_config allows; callhome-mgr check lists them\n", sysexits.OK},
		"a CA, no users": {`{"callhome:user-ca-keys": {"inline-definition": {"public-key": [{"name": "ca", "public-key-format": "ietf-crypto-types:ssh-public-key-format", "public-key": "AAAAC3NzaC1lZDI1NTE5AAAAIGJnW1VXG0Vw0Vxmzn7PfNOPcF2zmM4sQBMHzhs8tkQW"}]}}}`,
			"check lists them; also with certificates of the CA ssh-ed25519 SHA256:HT31aT2nNzSJgf2eU0D05p2iVG4zUMGe4RyWrRTxzk8 (ca)\n", sysexits.OK},
		"an empty container":     {`{"users": {}}`, "  warning: no user can log in: the list of users is empty\n", sysexits.NoPerm},
		"an empty list":          {`{"users": {"user": []}}`, "  warning: no user can log in: the list of users is empty\n", sysexits.NoPerm},
		"an annotation of users": {`{"@users": {}}`, "warning: line 7: /ietf-netconf-server:netconf-server/call-home/netconf-client[name='nms']/endpoints/endpoint[name='a']/ssh/ssh-server-parameters/client-authentication/@users: metadata (RFC 7952) is skipped", sysexits.OK},
	} {
		doc := regexp.MustCompile(`(?s)"client-authentication": .*\n\t\t\t\}\}\}\]\},`).ReplaceAllLiteralString(document(""), `"client-authentication": `+tt.authentication+"\n\t\t\t}}}]},")
		write(t, file, doc)
		out.Reset()
		if err := checkDocument(&out, file, true, with(sshd)); err != nil || !strings.Contains(out.String(), tt.says) {
			t.Errorf("%s: %v, got %q, want %q", name, err, out.String(), tt.says)
		}
		if err := checkDocument(&out, file, false, with(sshd)); sysexits.Code(err) != tt.code && (err != nil || tt.code != sysexits.OK) {
			t.Errorf("%s, in its place: %v", name, err)
		}
	}
	write(t, file, strings.Replace(document(`"colour": "red",`), `"persistent": {}`, `"periodic": {"period": 0}`, 1))
	err := checkDocument(&out, file, true, with(sshd))
	if sysexits.Code(err) != sysexits.Config || !strings.Contains(err.Error(), "colour") || !strings.Contains(err.Error(), "period") {
		t.Errorf("it says %v", err)
	}
}

func TestUserOf(t *testing.T) {
	keys := filepath.Join(t.TempDir(), "keys")
	text := "# comment\nssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJnW1VXG0Vw0Vxmzn7PfNOPcF2zmM4sQBMHzhs8tkQW me\n"
	if err := os.WriteFile(keys, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	none := filepath.Join(t.TempDir(), "none")
	if err := os.WriteFile(none, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for word, code := range map[string]int{
		"netop=" + keys: sysexits.OK, "netop": sysexits.Usage, "=" + keys: sysexits.Usage, "netop=": sysexits.Usage,
		"netop=/nonexistent": sysexits.NoInput, "netop=" + none: sysexits.NoInput,
	} {
		u, err := userOf(word)
		if got := sysexits.Code(err); err == nil && code != sysexits.OK || err != nil && got != code {
			t.Errorf("%s: %+v, %v", word, u, err)
		}
		if code == sysexits.OK && (u.Name != "netop" || len(u.Keys) != 1 || !strings.HasPrefix(u.Keys[0], "ssh-ed25519 ")) {
			t.Errorf("%s is %+v", word, u)
		}
	}
}

func TestClientTable(t *testing.T) { synctest.Test(t, clientTableIsPrinted) }

func clientTableIsPrinted(t *testing.T) {
	soon := time.Now().Add(90 * time.Second)
	var out bytes.Buffer
	clientTable(&out, []proto.ClientStatus{
		{Client: "n\x1b[2Jms", State: proto.ClientServing, Since: time.Now(), Endpoint: "a", Address: "192.0.2.1:4334", User: "netop", Session: 7, Connections: 3},
		{Client: "b", State: proto.ClientWaiting, Since: time.Now(), Endpoint: "x", Failures: 4, NextAttempt: &soon,
			LastError: &proto.LastError{Time: time.Now(), Stage: proto.StageTCP, Message: "connection\nrefused"}},
	}, 0)
	lines := strings.Split(out.String(), "\n")
	if len(lines) != 7 || strings.Contains(out.String(), "\x1b") {
		t.Fatalf("got %q", out.String())
	}
	for i, want := range []string{"CLIENT STATE FOR ENDPOINT ADDRESS USER SESSION FAILED NEXT",
		`n\x1b[2Jms serving 0s a 192.0.2.1:4334 netop 7 0`, `b waiting 0s x 4 in 1m30s`, "", "last errors:", `b, 0s ago, tcp: connection\nrefused`} {
		if got := strings.Join(strings.Fields(lines[i]), " "); got != want {
			t.Errorf("line %d is %q, want %q", i, got, want)
		}
	}
}

func TestConfigurationText(t *testing.T) {
	now := time.Now()
	for want, s := range map[string]proto.ConfigStatus{
		"no configuration: no standing connections":                                                     {},
		"f does not exist: no standing connections":                                                     {File: "f", Applied: &now, Missing: true},
		"configuration f with 2 clients, applied 0s ago":                                                {File: "f", Applied: &now, Clients: 2},
		"configuration f with 2 clients, applied 0s ago\nthe last one read was refused:\n  a\n  b\\x1b": {File: "f", Applied: &now, Clients: 2, Error: "a\nb\x1b"},
		"configuration f with 1 client, applied 0s ago\nleft aside:\n  a\n  b":                          {File: "f", Applied: &now, Clients: 1, Warnings: []string{"a", "b"}},
		"no configuration: no standing connections\nthe last one read was refused:\n  line 1: no":       {Error: "line 1: no"},
	} {
		if got := configurationText(s); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// What init makes is what check takes, in the order that was given.
func TestInitMakesWhatCheckTakes(t *testing.T) {
	file := filepath.Join(t.TempDir(), "callhome.json")
	sshd := script(t, "sshd", "echo OpenSSH_9.8p1 >&2")
	doc, err := config.Init(config.InitOptions{Stations: []string{"nms.example.net", "[2001:db8::1]:830"}, HostKeys: []string{"ssh_host_ed25519_key"}})
	if err != nil {
		t.Fatal(err)
	}
	write(t, file, string(doc))
	var out bytes.Buffer
	if err := checkDocument(&out, file, true, with(sshd)); err != nil {
		t.Fatal(err)
	}
	if want := "client nms: persistent, nms.example.net port 4334, 2001:db8::1 port 830\n"; !strings.HasPrefix(out.String(), want) {
		t.Errorf("got %q", out.String())
	}
}

func TestAnEventIsALineWithWholeSeconds(t *testing.T) {
	at := time.Date(2026, 11, 22, 8, 45, 38, 236855182, time.UTC)
	for want, e := range map[string]proto.Event{
		"2026-11-22T08:45:38Z configuration: configuration-refused (configuration \"f\" refused: line 1: no; line 2: \\x1b[2J)\n": {
			Time: at, Event: proto.EventConfigRefused, Text: "configuration \"f\" refused:\nline 1: no\nline 2: \x1b[2J\n"},
		"2026-11-22T08:45:38Z session 7 192.0.2.1:4334: closed (client\\r left)\n": {
			Time: at, Event: proto.EventClosed, Session: proto.SessionInfo{Session: 7, Remote: "192.0.2.1:4334", Cause: "client\r left"}},
	} {
		var out bytes.Buffer
		if printEvent(&out, e); out.String() != want {
			t.Errorf("got %q, want %q", out.String(), want)
		}
	}
}
