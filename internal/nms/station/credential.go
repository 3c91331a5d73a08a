package station

import (
	"cmp"
	"fmt"

	"callhome/internal/nms/handshake"
	"callhome/internal/nms/login"
	"callhome/internal/nms/registry"
)

// Credential is the station's own login, for devices whose entry names none.
type Credential struct {
	User, KeyFile, PasswordFile string
}

// userFor returns the user for an entry.
func (c Credential) userFor(e *registry.Entry) string { return cmp.Or(e.User, c.User) }

// loginFor reads the credential for an entry. It reads the files at each login, so that
// a new credential needs no restart, and no secret stays in memory.
func (c Credential) loginFor(e *registry.Entry) (*handshake.Login, error) {
	user, keyFile, passwordFile := c.userFor(e), e.KeyFile, e.PasswordFile
	if keyFile == "" && passwordFile == "" {
		keyFile, passwordFile = c.KeyFile, c.PasswordFile
	}
	from := login.Credentials{PasswordFile: passwordFile}
	switch {
	case user == "":
		return nil, fmt.Errorf("no user: the entry of %s names none and the station has no default", e.ID)
	case keyFile != "":
		from = login.Credentials{KeyFiles: []string{keyFile}}
	case passwordFile == "":
		return nil, fmt.Errorf("no credential: the entry of %s names none and the station has no default", e.ID)
	}
	// The closer is for ssh-agent, which is not used here.
	auth, _, err := from.Methods(user)
	return &handshake.Login{User: user, Auth: auth}, err
}
