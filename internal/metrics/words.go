package metrics

import (
	"slices"

	"callhome/internal/proto"
)

// The words that can be labels. Any other becomes Other, so that whatever a
// state file or a later version brings, the number of series is fixed.
var (
	vias = []string{"manager", "executable", "adopted"}

	events = []string{
		proto.EventCalling, proto.EventConnected, proto.EventKeyExchange, proto.EventRefused, proto.EventAuthenticated,
		proto.EventSubsystem, proto.EventNoSubsystem, proto.EventFailed, proto.EventClosed, proto.EventLog, proto.EventRestored,
	}

	// failing are the stages that a call home can fail in, closing those that
	// it can be in when it ends after the login.
	failing = []proto.Stage{proto.StageName, proto.StageTCP, proto.StageHandover, proto.StageSSH, proto.StageAuth}
	closing = []proto.Stage{proto.StageSubsystem, proto.StageSession}
	stages  = slices.Concat(failing, closing)

	// states are those of sessions that have not ended.
	states = []proto.State{proto.StateCalling, proto.StateStarting, proto.StateKeyExchange, proto.StateAuthenticated, proto.StateServing}
)

// other stands for every word that is not known.
const other = "other"

func oneOf[W ~string](known []W, word W) W {
	if slices.Contains(known, word) {
		return word
	}
	return other
}
