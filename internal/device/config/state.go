package config

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"callhome/internal/proto"
)

// State returns the clients as an RFC 7951 document of the state tree that the YANG
// module callhome adds to ietf-netconf-server's netconf-client. A NETCONF server
// serves it as operational data (RFC 8342).
func State(clients []proto.ClientStatus) ([]byte, error) {
	list := make([]any, len(clients))
	for i, c := range clients {
		list[i] = object{{"name", c.Client}, {"callhome:state", stateOf(c)}}
	}
	doc, err := json.MarshalIndent(object{{"ietf-netconf-server:netconf-server", object{{"call-home", object{{"netconf-client", list}}}}}}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encoding the state: %w", err)
	}
	return append(doc, '\n'), nil
}

func stateOf(c proto.ClientStatus) object {
	o := object{{"state", c.State}, {"since", dateAndTime(c.Since)}}
	add := func(name, value string) {
		if value != "" {
			o = append(o, field{name, value})
		}
	}
	add("endpoint", c.Endpoint)
	add("address", c.Address)
	o = append(o, field{"attempts", c.Attempts}, field{"attempts-left", c.AttemptsLeft}, field{"failures", c.Failures})
	if e := c.LastError; e != nil {
		o = append(o, field{"last-error", object{{"stage", e.Stage}, {"message", e.Message}, {"time", dateAndTime(e.Time)}}})
	}
	if c.NextAttempt != nil {
		o = append(o, field{"next-attempt", dateAndTime(*c.NextAttempt)})
	}
	o = append(o, field{"connections", strconv.FormatUint(c.Connections, 10)})
	if c.Session != 0 {
		o = append(o, field{"session-id", c.Session})
	}
	add("user", c.User)
	return o
}

func dateAndTime(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }
