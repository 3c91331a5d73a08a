package config

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"callhome/internal/device/settings"

	"golang.org/x/crypto/ssh"
)

// InitOptions are the contents of a first document.
type InitOptions struct {
	// Stations are the endpoints, HOST or HOST:PORT, the preferred one first.
	Stations []string
	// Each makes each endpoint a separate client, so that all are called.
	Each bool
	// HostKeys are the names of this machine's key files in the key directory.
	HostKeys []string
	// Users are the only users who may log in; empty: those that sshd_config allows.
	Users []User
	// Preset is the NETCONF server (settings.Preset); "": the daemon's.
	Preset string
}

// AuthorizedKeys returns the keys of an authorized_keys(5) file, one line each and
// without options, up to the first line that is not a key.
func AuthorizedKeys(file []byte) []string {
	var out []string
	for len(file) > 0 {
		key, _, _, rest, err := ssh.ParseAuthorizedKey(file)
		if err != nil {
			break
		}
		out, file = append(out, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))), rest
	}
	return out
}

// Init returns a minimal document with one persistent connection, or with Each one
// to each of Stations. Parse accepts it.
func Init(o InitOptions) ([]byte, error) {
	switch {
	case len(o.Stations) == 0:
		return nil, errors.New("creating a configuration: no NETCONF client is given")
	case len(o.HostKeys) == 0:
		return nil, errors.New("creating a configuration: this machine has no host key; create them with ssh-keygen -A")
	}
	var keys, endpoints []any
	for _, name := range o.HostKeys {
		keys = append(keys, object{{"name", name}, {"public-key", object{{"inline-definition", object{{"hidden-private-key", []any{nil}}}}}}})
	}
	server := object{{"server-identity", object{{"host-key", keys}}}}
	if len(o.Users) > 0 {
		users, err := initUsers(o.Users)
		if err != nil {
			return nil, fmt.Errorf("creating a configuration: %w", err)
		}
		server = append(server, field{"client-authentication", object{{"users", object{{"user", users}}}}})
	}
	for _, station := range o.Stations {
		t, err := settings.ParseTarget([]string{station})
		if err != nil {
			return nil, fmt.Errorf("creating a configuration: %w", err)
		}
		tcp := object{{"remote-address", t.Host}}
		if t.Port != 0 {
			tcp = append(tcp, field{"remote-port", t.Port})
		}
		stack := object{{"tcp-client-parameters", tcp}, {"ssh-server-parameters", server}}
		if o.Preset != "" {
			stack = append(stack, field{"netconf-server-parameters", object{{"callhome:netconf-server", o.Preset}}})
		}
		endpoints = append(endpoints, object{{"name", station}, {"ssh", stack}})
	}
	clients := []any{initClient("nms", endpoints)}
	if o.Each {
		clients = nil
		for i, station := range o.Stations {
			clients = append(clients, initClient(station, endpoints[i:i+1]))
		}
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(object{{"ietf-netconf-server:netconf-server", object{{"call-home", object{{"netconf-client", clients}}}}}}); err != nil {
		return nil, fmt.Errorf("creating a configuration: %w", err)
	}
	if _, faults := Parse(out.Bytes(), Features{}, Defaults{}); len(faults) > 0 {
		return nil, fmt.Errorf("creating a configuration: %s: %s", faults[0].Path, faults[0].Message)
	}
	return out.Bytes(), nil
}

func initClient(name string, endpoints []any) object {
	return object{
		{"name", name},
		{"endpoints", object{{"endpoint", endpoints}}},
		{"connection-type", object{{"persistent", object{}}}},
	}
}

func initUsers(users []User) ([]any, error) {
	var out []any
	for _, u := range users {
		keys := []any{} // [] in JSON, not null
		for i, line := range u.Keys {
			k, comment, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
			if err != nil {
				return nil, fmt.Errorf("key %d of user %q is not a line of an authorized keys file", i+1, u.Name)
			}
			keys = append(keys, object{
				{"name", strings.TrimSpace(fmt.Sprintf("%d %.100s", i+1, comment))},
				{"public-key-format", cryptoTypes + "ssh-public-key-format"},
				{"public-key", base64.StdEncoding.EncodeToString(k.Marshal())},
			})
		}
		out = append(out, object{{"name", u.Name}, {"public-keys", object{{"inline-definition", object{{"public-key", keys}}}}}})
	}
	return out, nil
}

// object is a JSON object whose members keep their order, so that a list entry
// begins with its name.
type object []field

type field struct {
	name  string
	value any
}

func (o object) MarshalJSON() ([]byte, error) {
	out := []byte{'{'}
	for i, f := range o {
		if i > 0 {
			out = append(out, ',')
		}
		name, err := json.Marshal(f.name)
		if err != nil {
			return nil, err
		}
		value, err := json.Marshal(f.value)
		if err != nil {
			return nil, err
		}
		out = append(append(append(out, name...), ':'), value...)
	}
	return append(out, '}'), nil
}
