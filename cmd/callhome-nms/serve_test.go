package main

import (
	"errors"
	"strings"
	"testing"

	"callhome/internal/nms/nmsproto"
	"callhome/internal/nms/registry"
	"callhome/internal/nms/station"
	"callhome/internal/proto"
)

// Whoever may adopt without being root must not get the station's password sent
// to a device of his own. That nobody called with the key is the station's word:
// so far has come who may adopt.
func TestASharedPasswordIsForRootToGiveAway(t *testing.T) {
	for _, tt := range []struct {
		name           string
		sharesPassword bool
		p              nmsproto.AdoptParams
		code           proto.Code
		words          string
	}{
		{"a password for all", true, nmsproto.AdoptParams{ID: "edge7"}, proto.CodeAccessDenied, "would learn the station's own password"},
		{"and another one", true, nmsproto.AdoptParams{ID: "edge7", PasswordFile: "/p"}, proto.CodeNoExists, "nobody called"},
		{"and a key", true, nmsproto.AdoptParams{ID: "edge7", KeyFile: "/k"}, proto.CodeNoExists, "nobody called"},
		{"a key for all", false, nmsproto.AdoptParams{ID: "edge7"}, proto.CodeNoExists, "nobody called"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			config := station.Defaults()
			var err error
			if config.Registry, _, err = registry.Open(t.TempDir()); err != nil {
				t.Fatal(err)
			}
			s, err := station.New(config)
			if err != nil {
				t.Fatal(err)
			}
			d := &backend{Station: s, sharesPassword: tt.sharesPassword}
			_, err = d.Adopt(tt.p)
			var e *proto.Error
			if !errors.As(err, &e) || e.Code != tt.code || !strings.Contains(e.Error(), tt.words) {
				t.Errorf("got %v, want %q", err, tt.words)
			}
		})
	}
}
