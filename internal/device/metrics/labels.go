package metrics

import (
	"slices"

	"callhome/internal/proto"
)

// The words that can be labels. Any other becomes Other, so that whatever a
// state file or a later version brings, the number of series is fixed.
var (
	vias = []proto.Via{proto.ViaManager, proto.ViaExecutable, proto.ViaHandover}

	// failing are the stages that a call home can fail in, closing those that
	// it can be in when it ends after the login.
	login   = slices.Index(proto.Stages, proto.StageSubsystem)
	failing = proto.Stages[:login]
	closing = proto.Stages[login:]
)

// other stands for every word that is not known.
const other = "other"

func oneOf[W ~string](known []W, word W) W {
	if slices.Contains(known, word) {
		return word
	}
	return other
}
