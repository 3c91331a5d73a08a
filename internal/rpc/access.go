package rpc

import (
	"errors"
	"fmt"
	"os/user"
	"slices"
	"strconv"

	"github.com/hashicorp/go-hclog"
)

// Access holds the groups that may call methods. Root may call every method.
type Access struct {
	Full  []uint32 // groups that may call every method
	Read  []uint32 // groups that may call those that change nothing
	Group string   // the name of Full's, for refusals; "" where only root may call
}

// Allows reports whether p may call every method, and whether it may call those
// that change nothing.
func (a Access) Allows(p Peer) (full, read bool) {
	full = p.UID == 0 || anyOf(p.Groups, a.Full)
	return full, full || anyOf(p.Groups, a.Read)
}

// needs returns what a refused peer lacks.
func (a Access) needs() string {
	if a.Group == "" {
		return " needs root"
	}
	return " needs root or the group " + a.Group
}

func anyOf(have, wanted []uint32) bool {
	return slices.ContainsFunc(have, func(g uint32) bool { return slices.Contains(wanted, g) })
}

// AccessOf looks up the group that may call every method, and the group that may
// call those that change nothing, as the options --group and --read-group name them; ""
// names no group. A group that does not exist counts as one without members.
func AccessOf(full, read string, log hclog.Logger) (Access, error) {
	a := Access{Group: full}
	for _, g := range []struct {
		option, name, without string
		to                    *[]uint32
	}{
		{"--group", full, "no such group, so only root may call what changes something", &a.Full},
		{"--read-group", read, "no such group, so no further user may list and read", &a.Read},
	} {
		if g.name == "" {
			continue
		}
		found, err := user.LookupGroup(g.name)
		var unknown user.UnknownGroupError
		if errors.As(err, &unknown) {
			log.Warn(g.without, "group", g.name, "option", g.option)
			continue
		}
		if err != nil {
			return a, fmt.Errorf("looking up the group %q: %w", g.name, err)
		}
		gid, err := strconv.ParseUint(found.Gid, 10, 32)
		if err != nil {
			return a, fmt.Errorf("looking up the group %q: %w", g.name, err)
		}
		*g.to = append(*g.to, uint32(gid))
	}
	return a, nil
}
