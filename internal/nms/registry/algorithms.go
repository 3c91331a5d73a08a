package registry

import "callhome/internal/nms/hostkey"

// Algorithms returns the host key algorithms to ask a caller for, before it is
// known who calls. A device with several keys shows the one that comes first
// here. So the order is the same whatever the entries have: else a new device's
// entry could make another device show another key than before, and be unknown.
func (r *Registry) Algorithms() []string { return hostkey.All() }
