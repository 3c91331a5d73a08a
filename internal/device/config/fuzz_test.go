package config

import (
	"path/filepath"
	"strings"
	"testing"
	"unicode"

	"callhome/internal/device/settings"
	"callhome/internal/sshdexec"
)

// For any input, a fault has a line of the document and a short message on one line;
// and an accepted document makes only valid options and files in its directory.
func FuzzParse(f *testing.F) {
	f.Add([]byte(minimal))
	for _, e := range examples(f) {
		f.Add([]byte(e.text))
	}
	for _, e := range [][]edit{
		{{inPair, `{"private-key-format": "ietf-crypto-types:one-asymmetric-key-format", "cleartext-private-key": ` + b64(pkcs8(edKey)) + `}`}},
		{{inTCP + "proxy-server", `{"socks4a-parameters": {"remote-address": "p.example"}}`}},
		{{inEnd + "ssh", ``}, {inEnd + "tls", `{}`}},
		{{inClient + "a\nb", `[[[1e99, null], {"": ""}]]`}},
	} {
		f.Add(with(f, e...))
	}
	f.Add([]byte(`{"a":1,"a":[{}]}`))
	f.Fuzz(func(t *testing.T, doc []byte) {
		c, errs := Parse(doc, all, Defaults{})
		if (c == nil) != (len(errs) > 0) {
			t.Fatalf("%v with %v", c, errs)
		}
		lines := 1 + strings.Count(string(doc), "\n")
		for _, e := range errs {
			if e.Line < 1 || e.Line > lines || !strings.HasPrefix(e.Path, "/") || e.Message == "" {
				t.Errorf("of %d lines: %+v", lines, e)
			}
			if text := e.Error(); len(text) > 8000 || strings.ContainsFunc(text, unicode.IsControl) {
				t.Errorf("%.1000q", text)
			}
		}
		if c == nil {
			return
		}
		again, _ := Parse(doc, all, Defaults{})
		for i, client := range c.Clients {
			if len(client.Endpoints) == 0 || client.Name == "" || !client.Equal(again.Clients[i]) {
				t.Errorf("client %+v", client)
			}
			for _, e := range client.Endpoints {
				checkEndpoint(t, &e)
			}
		}
	})
}

func checkEndpoint(t *testing.T, e *Endpoint) {
	t.Helper()
	s := e.Call(settings.Call{Sshd: sshdexec.Command{Sshd: "/s", Config: "/c"}}, dir)
	if err := s.Sshd.Check(); err != nil {
		t.Error(err)
	}
	if s.Host == "" || s.Port == 0 || s.ConnectTimeout <= 0 || s.Dial.UserTimeout < 0 || len(s.Sshd.HostKeys) == 0 {
		t.Errorf("%+v", s)
	}
	written := make(map[string]bool)
	for _, file := range e.Files(dir) {
		if rel, err := filepath.Rel(e.Dir(dir), file.Path); err != nil || !filepath.IsLocal(rel) || filepath.Clean(file.Path) != file.Path || written[file.Path] {
			t.Errorf("file %q", file.Path)
		}
		written[file.Path] = true
	}
	for _, k := range s.Sshd.HostKeys {
		if !written[k] && filepath.Dir(k) != DefaultKeyDir {
			t.Errorf("host key %q", k)
		}
	}
	for _, u := range e.Users {
		for _, line := range u.Keys {
			if strings.ContainsFunc(line, unicode.IsControl) {
				t.Errorf("key line %q", line)
			}
		}
	}
}
