package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"callhome/internal/nms/peering"
	"callhome/internal/sysexits"
)

// clusterOutput runs `cluster` and returns what it prints.
func clusterOutput(t *testing.T, args ...string) (int, string) {
	t.Helper()
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	code, stderr := command(t, out, append([]string{"cluster", "init"}, args...)...)
	text, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	return code, string(text) + stderr
}

func TestClusterInitKeepsWhatIsThere(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	var north, ca string
	for _, step := range []struct {
		args []string
		want []string
		same bool // as before
	}{
		{[]string{"north", "south"}, []string{"ca.crt made", "station north: certificate and key in ", "station south: "}, false},
		{[]string{"north", "west,west.example.net,192.0.2.1"}, []string{"ca.crt is there", "station north: the certificate in ", " is kept", "station west: certificate"}, true},
		{[]string{"--renew", "--days", "1", "north"}, []string{"station north: certificate and key in "}, false},
		{[]string{"--renew", "west"}, []string{"station west: certificate and key in "}, true},
	} {
		code, out := clusterOutput(t, append([]string{"--directory", dir}, step.args...)...)
		if code != sysexits.OK {
			t.Fatalf("%v: %d\n%s", step.args, code, out)
		}
		for _, w := range step.want {
			if !strings.Contains(out, w) {
				t.Errorf("%v: no %q in\n%s", step.args, w, out)
			}
		}
		if got := read("north/" + peering.CertificateFile); (got == north) != step.same {
			t.Errorf("%v: the certificate changed: %v", step.args, got != north)
		} else {
			north = got
		}
		if got := read(peering.CAFile); ca != "" && got != ca {
			t.Error("another CA")
		} else {
			ca = got
		}
	}
	if _, err := peering.Load("west", filepath.Join(dir, "west"), nil); err != nil {
		t.Error(err)
	}
	if hosts, _, ok := peering.Issued(filepath.Join(dir, "west")); !ok || strings.Join(hosts, ",") != "west.example.net,192.0.2.1" {
		t.Errorf("a renewed certificate has the hosts %v", hosts)
	}
	for _, wrong := range []string{"", "a.b", "a,b", "--days 0 a"} {
		if code, out := clusterOutput(t, strings.Fields("--directory "+dir+" "+wrong)...); code != sysexits.Usage {
			t.Errorf("%q: %d\n%s", wrong, code, out)
		}
	}
}
