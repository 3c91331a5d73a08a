package station

import (
	"callhome/internal/nms/nmsproto"
	"callhome/internal/nms/registry"
	"callhome/internal/proto"
	"errors"
	"strings"
	"testing"
)

// A peer that is not root must not get the station's password sent to a device of
// its own. An allowed adopt ends with "no unknown device" here.
func TestWhoMayAdoptWithWhichCredential(t *testing.T) {
	for _, tt := range []struct {
		name     string
		password string // the station's own
		p        nmsproto.AdoptParams
		root     bool
		code     proto.Code
		message  string
	}{
		{"the station's password", "/p", nmsproto.AdoptParams{ID: "edge7"}, true, proto.CodeAccessDenied, "would learn the station's own password"},
		{"another password, by root", "/p", nmsproto.AdoptParams{ID: "edge7", PasswordFile: "/q"}, true, proto.CodeNoExists, "no unknown device"},
		{"another password, by the group", "/p", nmsproto.AdoptParams{ID: "edge7", PasswordFile: "/q"}, false, proto.CodeAccessDenied, "needs root"},
		{"a key, by root", "/p", nmsproto.AdoptParams{ID: "edge7", KeyFile: "/k"}, true, proto.CodeNoExists, "no unknown device"},
		{"a key, by the group", "", nmsproto.AdoptParams{ID: "edge7", KeyFile: "/k"}, false, proto.CodeAccessDenied, "needs root"},
		{"the station's key, by the group", "", nmsproto.AdoptParams{ID: "edge7"}, false, proto.CodeNoExists, "no unknown device"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			config := Defaults()
			config.Credential.PasswordFile = tt.password
			var err error
			if config.Registry, _, err = registry.Open(t.TempDir()); err != nil {
				t.Fatal(err)
			}
			s, err := New(config)
			if err != nil {
				t.Fatal(err)
			}
			_, err = s.Adopt(tt.p, tt.root)
			var e *proto.Error
			if !errors.As(err, &e) || e.Code != tt.code || !strings.Contains(e.Error(), tt.message) {
				t.Errorf("got %v, want %q", err, tt.message)
			}
		})
	}
}
