package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"

	"callhome/internal/atomicfile"
	"callhome/internal/nms/control"
	"callhome/internal/nms/nmsproto"
	"callhome/internal/sysexits"

	"github.com/urfave/cli/v2"
)

// accounts prints a user for each device: sshd refuses a user name without an
// account, and ForceCommand reads the device's id from the name.
func accounts(c *cli.Context) error {
	prefix := c.String("prefix")
	if strings.ContainsAny(prefix, ":\n") {
		return program.Usage(fmt.Errorf("--prefix %q: expected the beginning of a user name", prefix))
	}
	u, err := accountOf(c.String("account"))
	if err != nil {
		return err
	}
	return ask(c, func(m *control.Client) error {
		var l nmsproto.DeviceList
		var s nmsproto.Status
		if err := errors.Join(m.Call(c.Context, nmsproto.MethodDevices, nil, &l), m.Call(c.Context, nmsproto.MethodStatus, nil, &s)); err != nil {
			return err
		}
		// Without an account, sshd runs without root's rights and keeps its own groups.
		uid, gid := strconv.Itoa(os.Getuid()), strconv.Itoa(os.Getgid())
		if u != nil {
			var doubt string
			uid = u.Uid
			if gid, doubt = groupOf(u, s.Group); doubt != "" {
				fmt.Fprintf(os.Stderr, "callhome-nms: warning: %s: logins of these users will end with %d\n", doubt, sysexits.NoPerm)
			}
		}
		var lines bytes.Buffer
		for _, d := range l.Devices {
			// "NP" matches no password, and unlike "!" does not lock the account.
			fmt.Fprintf(&lines, "%s%s:NP:%s:%s:NETCONF of %s:/:/bin/sh\n", prefix, d.ID, uid, gid, d.ID)
		}
		if file := c.String("output"); file != "" {
			return atomicfile.Write(file, lines.Bytes(), atomicfile.Options{Mode: 0o644})
		}
		_, err := os.Stdout.Write(lines.Bytes())
		return err
	})
}

// accountOf looks up an account; nil is this process's. Root's is that of every user
// only where the command line says so.
func accountOf(account string) (*user.User, error) {
	switch {
	case account == "" && os.Getuid() == 0:
		return nil, program.Usage(errors.New("run as root without --account: every device would be root; name an account"))
	case account == "":
		return nil, nil
	}
	u, err := user.Lookup(account)
	if err != nil {
		return nil, sysexits.New(sysexits.NoInput, "create the account, or name another with --account", fmt.Errorf("looking up the account %q: %w", account, err))
	}
	return u, nil
}

// groupOf returns the group to give users with the uid of u, so that they may use
// devices, and why they may not. No line of group(5) names these users, so sshd gives
// them the group of passwd(5) alone: where u is only a supplementary member of the
// daemon's group, that is the group to give.
func groupOf(u *user.User, name string) (gid, doubt string) {
	if u.Uid == "0" {
		return u.Gid, ""
	}
	if name == "" {
		return u.Gid, "the daemon has no group that may use devices"
	}
	group, err := user.LookupGroup(name)
	if err != nil {
		return u.Gid, fmt.Sprintf("looking up the daemon's group %q: %v", name, err)
	}
	all, err := u.GroupIds()
	switch {
	case u.Gid == group.Gid || slices.Contains(all, group.Gid):
		return group.Gid, ""
	case err != nil:
		return u.Gid, fmt.Sprintf("looking up the groups of the account %q: %v", u.Username, err)
	}
	return u.Gid, fmt.Sprintf("the account %q is not in the group %q", u.Username, name)
}
