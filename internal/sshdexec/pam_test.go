package sshdexec

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestFindPAM(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	service, none := file("callhome", "auth include sshd\n"), filepath.Join(dir, "none")
	old, late := file("old", "\x7fELF ... usepam"), file("late", "\x7fELF ... pamservicename")
	script := file("script", "#!/bin/sh\nexec sshd -o pamservicename=x\n")
	comments, rules := file("hosts.allow", "# sshd: ALL\n\n"), file("hosts.deny", "\nALL: ALL\n")
	config := func(text string) string { return file("sshd_config", text) }
	for _, tt := range []struct {
		name    string
		c       Command
		service string
		tables  []string
		want    PAM
		why     string
	}{
		{"up to 9.7", Command{Sshd: old}, service, []string{comments, none}, PAMByName, ""},
		{"from 9.8 on", Command{Sshd: late}, service, []string{rules}, PAMByOption, ""},
		{"no service installed", Command{Sshd: late}, none, nil, PAMDefault, none + " is not installed"},
		{"a wrapper of sshd", Command{Sshd: script}, service, nil, PAMDefault, script + " is not a program in ELF"},
		{"no sshd", Command{Sshd: none}, service, nil, PAMDefault, none + " is not a program in ELF"},
		{"rules of libwrap", Command{Sshd: old}, service, []string{comments, rules}, PAMDefault, rules + " has rules, and this sshd would look for them by the service's name"},
		{"no PAM by option", Command{Sshd: late, Options: []string{"usepam=no"}}, service, nil, PAMDefault, "UsePAM is no"},
		{"no PAM by file", Command{Sshd: old, Config: config("UsePAM = \"no\"\n")}, service, nil, PAMDefault, "UsePAM is no"},
		{"the option decides", Command{Sshd: late, Options: []string{"UsePAM=yes"}, Config: config("UsePAM no\n")}, service, nil, PAMByOption, ""},
		{"a service of the operator's by option", Command{Sshd: late, Options: []string{"PAMServiceName=mine"}}, service, nil, PAMDefault, "PAMServiceName is mine"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			how, why := tt.c.findPAM(tt.service, tt.tables)
			if how != tt.want || why != tt.why {
				t.Errorf("%q because %q, want %q because %q", how, why, tt.want, tt.why)
			}
		})
	}
	t.Run("a service of the operator's by file", func(t *testing.T) {
		c := Command{Sshd: late, Config: config("UsePAM yes\npamservicename mine\nMatch User x\nUsePAM no\n")}
		if how, why := c.findPAM(service, nil); how != PAMDefault || why != "PAMServiceName is mine" {
			t.Errorf("%q because %q", how, why)
		}
		c.Config = config("Match User x\nUsePAM no\n")
		if how, _ := c.findPAM(service, nil); how != PAMByOption {
			t.Errorf("a Match block decides: %q", how)
		}
	})
}

func TestArgsNameThePAMService(t *testing.T) {
	for _, tt := range []struct {
		pam    PAM
		first  string
		option bool
	}{
		{PAMDefault, "/usr/sbin/sshd", false},
		{PAMByName, "callhome", false},
		{PAMByOption, "/usr/sbin/sshd", true},
	} {
		c := Command{Sshd: "/usr/sbin/sshd", Options: []string{"UsePAM=yes"}, PAM: tt.pam}
		args := c.Args()
		at := slices.Index(args, "PAMServiceName=callhome")
		if args[0] != tt.first || (at > 0) != tt.option {
			t.Errorf("%q: %s", tt.pam, strings.Join(args, " "))
		}
		if tt.option && at < slices.Index(args, "UsePAM=yes") {
			t.Error("the operator's option is not the first")
		}
	}
}
