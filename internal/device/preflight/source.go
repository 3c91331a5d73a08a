package preflight

import (
	"cmp"
	"strconv"
	"strings"

	"callhome/internal/device/connect"
	"callhome/internal/sysexits"
)

// checkSource checks the configured source of a call home, if there is one.
func checkSource(m *machine) []Finding {
	o := m.s.Dial
	var from []string
	if o.LocalAddress.IsValid() {
		from = append(from, o.LocalAddress.String())
	}
	if o.LocalPort != 0 {
		from = append(from, "port "+strconv.Itoa(int(o.LocalPort)))
	}
	if o.Interface != "" {
		from = append(from, "interface "+o.Interface)
	}
	if o.Netns != "" {
		from = append(from, "namespace "+o.Netns)
	}
	if from == nil {
		return nil
	}
	if err := connect.TrySource(o); err != nil {
		return []Finding{lacking(sysexits.Code(err), cmp.Or(sysexits.Hint(err), "check --local-address and --local-port"), "%v", err)}
	}
	return good("%s", strings.Join(from, ", "))
}
