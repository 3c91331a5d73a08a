package metrics

import (
	"slices"

	"callhome/internal/proto"
)

// The possible values of labels. Any other value, as from a later version's state
// file, becomes "other", so that the number of series is fixed.
var (
	vias = []proto.Via{proto.ViaManager, proto.ViaExecutable, proto.ViaHandover}

	// failing are the stages before the login, at which a call home fails; closing
	// are the stages after it, at which a session is closed.
	login   = slices.Index(proto.Stages, proto.StageSubsystem)
	failing = proto.Stages[:login]
	closing = proto.Stages[login:]
)

// other replaces every unknown value.
const other = "other"

func oneOf[V ~string](known []V, value V) V {
	if slices.Contains(known, value) {
		return value
	}
	return other
}
