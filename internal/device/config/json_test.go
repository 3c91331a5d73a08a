package config

import (
	"fmt"
	"strings"
	"testing"
)

func TestDocumentsThatAreNotJSONAreRefused(t *testing.T) {
	for _, tt := range []struct {
		name, doc string
		line      int
		says      string
	}{
		{"nothing", "", 1, "the document ends too early"},
		{"blank lines", "\n\n", 3, "the document ends too early"},
		{"half", "{\n\"a\":\n[1,", 3, "the document ends too early"},
		{"a comma too many", "{\n \"a\": 1,\n}", 3, "this is not JSON: invalid character '}'"},
		{"a bracket for a brace", "{\n \"a\": [1\n}", 3, "this is not JSON: invalid character '}'"},
		{"a secret without quotes", "{\n \"cleartext-password\": hunter2}", 2, "this is not JSON: invalid character looking for beginning of value"},
		{"a comment", "{\n // x\n}", 2, "this is not JSON: invalid character '/'"},
		{"data after it", "{}\n\n{}", 3, "unexpected data after the end"},
		{"no JSON after it", "{}\nx", 2, "unexpected data after the end"},
		{"not UTF-8", "{\n\n\"a\": \"\xff\"}", 3, "this is not UTF-8"},
		{"a line in a string", "{\"a\": \"x\ny\"}", 1, "this is not JSON: invalid character '\\n' in string literal"},
		{"too deep", strings.Repeat("[\n", 100), 33, "it nests deeper than 32"},
		{"too long", strings.Repeat(" ", MaxDocument+1), 1, "more than the limit of 4194304 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, errs := Parse([]byte(tt.doc), all, Defaults{})
			if c != nil || len(errs) != 1 || errs[0].Line != tt.line || errs[0].Path != "/" || !strings.Contains(errs[0].Message, tt.says) {
				t.Errorf("%v; want line %d: %s", errs, tt.line, tt.says)
			}
		})
	}
}

func TestTheTopMustBeAnObject(t *testing.T) {
	for _, doc := range []string{"[]", "1", `"x"`, "null", "true"} {
		if _, errs := Parse([]byte(doc), all, Defaults{}); len(errs) != 1 || errs[0].Path != "/" || !strings.Contains(errs[0].Message, "expected an object") {
			t.Errorf("%s: %v", doc, errs)
		}
	}
	for _, doc := range []string{"{}", `{"ietf-netconf-server:netconf-server": {}}`} {
		if c := parse(t, all, []byte(doc)); len(c.Clients) != 0 {
			t.Errorf("%s: %v", doc, c.Clients)
		}
	}
}

// All faults are reported together, in the order of the lines.
func TestEveryFaultIsReported(t *testing.T) {
	const doc = `{
  "ietf-netconf-server:netconf-server": {
    "listen": {},
    "call-home": {
      "netconf-client": [
        {
          "name": "a'b",
          "name": "again",
          "endpoints": {
            "endpoint": [
              {
                "name": "e1",
                "ssh": {
                  "tcp-client-parameters": {
                    "remote-port": "830",
                    "remote-address": "not a name"
                  },
                  "ssh-server-parameters": {
                    "server-identity": {
                      "host-key": [
                        { "name": "k", "certificate": {} },
                        {
                          "name": "l",
                          "public-key": { "central-keystore-reference": "gone" }
                        }
                      ]
                    },
                    "keepalive": { "max-wait": 1 }
                  }
                }
              },
              { "name": "e2", "tls": {
                } }
            ]
          }
        }
      ]
    }
  }
}`
	const client = `/ietf-netconf-server:netconf-server/call-home/netconf-client[name="a'b"]`
	const e1 = client + "/endpoints/endpoint[name='e1']/ssh"
	want := []string{
		"6 " + client + "/connection-type",
		"8 " + client + "/name",
		"15 " + e1 + "/tcp-client-parameters/remote-port",
		"16 " + e1 + "/tcp-client-parameters/remote-address",
		"21 " + e1 + "/ssh-server-parameters/server-identity/host-key[name='k']/certificate",
		"24 " + e1 + "/ssh-server-parameters/server-identity/host-key[name='l']/public-key/central-keystore-reference",
		"28 " + e1 + "/ssh-server-parameters/keepalive",
	}
	_, errs := Parse([]byte(doc), all, Defaults{})
	var got []string
	for _, e := range errs {
		got = append(got, fmt.Sprintf("%d %s", e.Line, e.Path))
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if text := errs.Error(); strings.Count(text, "\n") != len(want)-1 || !strings.HasPrefix(text, "line 6: "+want[0][2:]+": ") {
		t.Errorf("as an error:\n%s", text)
	}
	if errs.Err() == nil || Errors(nil).Err() != nil {
		t.Error("Err and an empty list disagree")
	}
}

// A document full of faults does not fill the daemon's memory.
func TestFaultsAreBounded(t *testing.T) {
	doc := `{"ietf-netconf-server:netconf-server": {"x": 1` + strings.Repeat("\n, \"x\": 1", 5000) + `}}`
	_, errs := Parse([]byte(doc), all, Defaults{})
	if len(errs) != maxFaults+1 || errs[maxFaults].Message != "further faults: 4001" {
		t.Errorf("%d faults, the last is %v", len(errs), errs[len(errs)-1])
	}
}

// The fault of a key that two endpoints share is reported once.
func TestASharedFaultIsReportedOnce(t *testing.T) {
	doc := with(t,
		edit{inKey + "public-key", `{"central-keystore-reference": "k"}`},
		edit{"ietf-keystore:keystore/asymmetric-keys/asymmetric-key", `[{"name": "k", "private-key-format": "ietf-crypto-types:rsa-private-key-format", "cleartext-private-key": "AAAA"}]`},
	)
	twice := strings.Replace(string(doc), `"name": "hk"`, `"name": "hk2", "public-key": {"central-keystore-reference": "k"}}, {"name": "hk"`, 1)
	_, errs := Parse([]byte(twice), all, Defaults{})
	if len(errs) != 1 || errs[0].Path != "/ietf-keystore:keystore/asymmetric-keys/asymmetric-key[name='k']/cleartext-private-key" {
		t.Error(errs)
	}
}

// No string of a document breaks a message into lines, or makes it long.
func TestMessagesAreOneShortLine(t *testing.T) {
	long := strings.Repeat("x", 100_000)
	for _, doc := range [][]byte{
		with(t, edit{inClient + "a\nb\x1b[31m", `1`}),
		with(t, edit{inClient + long, `1`}),
		with(t, edit{inClient + "connection-type", `"` + long + `"`}),
		with(t, edit{inTCP + "remote-address", `"` + long + `"`}),
		with(t, edit{inTCP + "remote-address", `"a\u0007\n"`}),
		with(t, edit{inTCP + "remote-port", `1` + strings.Repeat("0", 100_000)}),
		with(t, edit{inKey + "public-key", `{"central-keystore-reference": "` + strings.Repeat("x", 128) + `"}`}),
		with(t, edit{inEnd + "name", `"` + long + `\n\u001b"`}),
	} {
		_, errs := Parse(doc, all, Defaults{})
		if len(errs) == 0 {
			t.Errorf("accepted: %.300s", doc)
		}
		for _, e := range errs {
			if text := e.Error(); len(text) > 1000 || strings.ContainsAny(text, "\n\x1b\a") {
				t.Errorf("%d bytes: %.600q", len(text), text)
			}
		}
	}
}
