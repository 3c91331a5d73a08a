//go:build integration

package integration

import "testing"

// Every stock client holds a whole NETCONF session with netconfd over a call
// home, and afterwards nothing of it is left on the device.
func TestStockClientsHoldASession(t *testing.T) {
	t.Parallel()
	variants := []struct {
		name    string
		host    string
		options []string
	}{
		{"ipv4", "127.0.0.1", nil},
		{"ipv6", "::1", nil},
		{"announced", "127.0.0.1", []string{"--announce", "--device-id", "rtr-7"}},
		{"device id in the version string", "127.0.0.1", []string{"--device-id", "rtr-7"}},
	}
	for i, c := range clients {
		for _, v := range variants {
			if v.host == "::1" && !c.ipv6 {
				continue
			}
			t.Run(c.name+"/"+v.name, func(t *testing.T) {
				t.Parallel()
				holdSession(t, i, v.host, func(d *device, _ *netconfd, addr string) *process {
					return d.Call(addr, append(v.options, "--ssh-connection-port", yumaPort)...)
				})
			})
		}
	}
}
