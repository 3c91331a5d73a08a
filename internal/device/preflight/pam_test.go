package preflight

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"callhome/internal/sshdexec"
	"callhome/internal/sysexits"
)

func TestModulesOfAPAMService(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"sshd":        "# a comment\n@include common-auth\naccount required pam_nologin.so # [1]\nsession [success=ok default=bad] /lib/security/pam_selinux.so close\nsession include common\n-session optional pam_motd.so\n",
		"common-auth": "auth [success=1 default=ignore] pam_unix.so nullok\nauth requisite pam_deny.so\n",
		"common":      "session substack common-auth\nsession optional pam_motd.so noupdate\n",
		"callhome":    "auth include sshd\naccount include sshd\nsession optional pam_mail.so\n",
		"circle":      "auth include circle\n",
		"broken":      "auth include none\nauth include none-either\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		service string
		modules []string
		missing string
	}{
		{"sshd", []string{"pam_unix", "pam_deny", "pam_nologin", "pam_selinux", "pam_motd"}, ""},
		{"callhome", []string{"pam_unix", "pam_deny", "pam_nologin", "pam_mail"}, ""},
		{"circle", nil, "circle"},
		{"broken", nil, "none"},
		{"none", nil, "none"},
	} {
		modules, missing := pamModules(dir, tt.service, "", 0)
		if tt.missing != "" {
			tt.missing = filepath.Join(dir, tt.missing)
		}
		if !slices.Equal(modules, tt.modules) || missing != tt.missing {
			t.Errorf("%s: %q with %q missing, want %q with %q", tt.service, modules, missing, tt.modules, tt.missing)
		}
	}
}

// What a service's file leaves out is what the service "other" has.
func TestWhatAServiceLeavesOut(t *testing.T) {
	for _, tt := range []struct {
		name, service, other string
		want                 otherPAM
	}{
		{"whole", "account required pam_unix.so\nsession required pam_env.so\n", "", otherPAM{}},
		{"no line, a strict other", "# none\ngarbage\n", "account required pam_warn.so\naccount required pam_deny.so\nsession required pam_deny.so\n",
			otherPAM{[]string{"account", "session"}, []string{"pam_warn", "pam_deny", "pam_deny"}, true}},
		{"no line, Debian's other", "", "account requisite pam_deny.so\naccount required pam_permit.so\nsession required pam_unix.so\n",
			otherPAM{[]string{"account", "session"}, []string{"pam_deny", "pam_permit", "pam_unix"}, false}},
		{"no session, no other", "account required pam_unix.so\n", "", otherPAM{[]string{"session"}, nil, true}},
	} {
		dir := t.TempDir()
		for name, text := range map[string]string{"callhome": tt.service, "other": tt.other} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got := pamOther(dir, "callhome"); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: got %+v, want %+v", tt.name, got, tt.want)
		}
	}
}

// The service of the packages runs no module that speaks to a person, and leaves who
// may log in to sshd's own.
func TestThePackagedPAMServices(t *testing.T) {
	for _, name := range []string{"callhome.deb", "callhome.rpm"} {
		text, err := os.ReadFile("../../../packaging/pam.d/" + name)
		if err != nil {
			t.Fatal(err)
		}
		for _, module := range []string{"pam_motd", "pam_mail", "pam_lastlog", "pam_exec"} {
			if strings.Contains(string(text), module) {
				t.Errorf("%s runs %s", name, module)
			}
		}
		for _, kind := range []string{"auth", "account", "password"} {
			if !slices.ContainsFunc(strings.Split(string(text), "\n"), func(line string) bool {
				return slices.Equal(strings.Fields(line), []string{kind, "include", "sshd"})
			}) {
				t.Errorf("%s has no %s of sshd's", name, kind)
			}
		}
	}
}

func TestPAMFindings(t *testing.T) {
	motd := []string{"/etc/update-motd.d/10-uname", "/etc/update-motd.d/50-slow"}
	for _, tt := range []struct {
		name string
		p    *pamSetup
		pam  string
		want []Finding
	}{
		{"no sshd", nil, "yes", nil},
		{"no PAM", &pamSetup{}, "no", nil},
		{"callhome's service", &pamSetup{how: sshdexec.PAMByName, service: "callhome", modules: []string{"pam_unix", "pam_env"}, motd: motd}, "yes",
			[]Finding{{Good, "service callhome, which runs pam_unix, pam_env", "", 0}}},
		{"sshd's, with scripts", &pamSetup{why: "/etc/pam.d/callhome is not installed", service: "sshd", modules: []string{"pam_unix", "pam_motd"}, motd: motd}, "yes",
			[]Finding{{Warning, "service sshd, because /etc/pam.d/callhome is not installed; pam_motd runs the 2 scripts of /etc/update-motd.d as root at each login, and the client waits", "install /etc/pam.d/callhome as packaging/pam.d has it", 0}}},
		{"sshd's, without scripts", &pamSetup{why: "W", service: "sshd", modules: []string{"pam_unix", "pam_motd"}}, "yes",
			[]Finding{{Good, "service sshd, because W, which runs pam_unix, pam_motd", "", 0}}},
		{"a service that is not whole", &pamSetup{how: sshdexec.PAMByOption, service: "callhome", missing: "/etc/pam.d/common-session"}, "yes",
			[]Finding{{Missing, "service callhome; its file /etc/pam.d/common-session does not exist, so no user can log in", "create that file, or remove /etc/pam.d/callhome if it is callhome's", sysexits.Config}}},
		{"a service without a line", &pamSetup{how: sshdexec.PAMByName, service: "callhome", other: otherPAM{kinds: []string{"account", "session"}, refuses: true}}, "yes",
			[]Finding{{Missing, "service callhome; its file has no line for account and for session, and the service other refuses each user", "write these lines into /etc/pam.d/callhome, as packaging/pam.d has them", sysexits.Config}}},
		{"a service without a session", &pamSetup{how: sshdexec.PAMByName, service: "callhome", modules: []string{"pam_unix"}, other: otherPAM{kinds: []string{"session"}, modules: []string{"pam_env"}}}, "yes",
			[]Finding{{Warning, "service callhome; its file has no line for session, and the service other takes its place, which runs pam_env", "write these lines into /etc/pam.d/callhome, as packaging/pam.d has them", 0}}},
	} {
		m := machine{pamSetup: tt.p, config: map[string][]string{"usepam": {tt.pam}}}
		if got := checkPAM(&m); !slices.Equal(got, tt.want) {
			t.Errorf("%s: got\n%+v, want\n%+v", tt.name, got, tt.want)
		}
	}
}
