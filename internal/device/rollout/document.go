package rollout

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"callhome/internal/device/config"
	"callhome/internal/sshdexec"
	"callhome/internal/sysexits"
)

// Read reads and checks a document, for the options that this machine's sshd has. A
// missing file is a document without clients, unless it is needed. Errors carry
// their exit status.
func Read(file string, needed bool, sshd string) (*config.Config, error) {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) && !needed {
		return &config.Config{Missing: true}, nil
	}
	var doc []byte
	if err == nil {
		defer f.Close()
		doc, err = io.ReadAll(io.LimitReader(f, config.MaxDocument+1))
	}
	if err != nil {
		return nil, sysexits.New(sysexits.NoInput, "", fmt.Errorf("reading the configuration: %w", err))
	}
	features, err := sshdexec.Probe(sshd)
	if err != nil {
		return nil, sysexits.New(sysexits.Config, "", err)
	}
	c, faults := config.Parse(doc, features, config.Defaults{})
	err = faults.Err()
	if err == nil {
		err = missing(c)
	}
	if err != nil {
		return nil, sysexits.New(sysexits.Config, "", fmt.Errorf("configuration %q refused:\n%w", file, err))
	}
	return c, nil
}

// missing returns the files that a configuration names and this machine lacks.
// Without a host key sshd does not start, or the NETCONF client sees an unknown
// device.
func missing(c *config.Config) error {
	var errs []error
	for _, client := range c.Clients {
		at := "/ietf-netconf-server:netconf-server/call-home/netconf-client[name='" + client.Name + "']"
		if client.Hook != "" {
			h := hookConfig(client.Hook)
			if err := h.Check(); err != nil {
				errs = append(errs, fmt.Errorf("%s/callhome:hook: %w", at, err))
			}
		}
		for _, e := range client.Endpoints {
			for _, k := range e.HostKeys {
				if k.Path == "" {
					continue
				}
				if _, err := os.Stat(k.Path); err != nil {
					errs = append(errs, fmt.Errorf("%s/endpoints/endpoint[name='%s']: host key %q: %w", at, e.Name, k.Name, err))
				}
			}
		}
	}
	return errors.Join(errs...)
}
