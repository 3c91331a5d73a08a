package rpc

import (
	"errors"
	"fmt"
	"os/user"
	"strconv"

	"github.com/hashicorp/go-hclog"
)

// AccessOf looks up the groups that may call every method and those that change
// nothing; "" is none. A group that is not there is one without members.
func AccessOf(full, read string, log hclog.Logger) (Access, error) {
	a := Access{Group: full}
	for _, g := range []struct {
		name string
		to   *[]uint32
	}{{full, &a.Full}, {read, &a.Read}} {
		if g.name == "" {
			continue
		}
		found, err := user.LookupGroup(g.name)
		var unknown user.UnknownGroupError
		if errors.As(err, &unknown) {
			log.Warn("no such group, so only root may call", "group", g.name)
			continue
		}
		if err != nil {
			return a, fmt.Errorf("looking up the group %s: %w", g.name, err)
		}
		gid, err := strconv.ParseUint(found.Gid, 10, 32)
		if err != nil {
			return a, fmt.Errorf("looking up the group %s: %w", g.name, err)
		}
		*g.to = append(*g.to, uint32(gid))
	}
	return a, nil
}
