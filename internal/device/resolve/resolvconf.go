package resolve

import (
	"os"
	"strconv"
	"strings"
)

// resolvConf is what Lookup needs of resolv.conf(5). Timeouts and the other options
// are package net's, which reads the file too.
type resolvConf struct {
	servers []string // addresses; "" leaves the choice to package net
	search  []string // domains, with a dot at the end
	ndots   int      // a name with as many dots is tried before the domains
}

// maxServers and maxNdots are resolv.conf(5)'s own limits.
const (
	maxServers = 3
	maxNdots   = 15
)

// readResolvConf parses the file's text. hostname gives the domain where the file
// has none.
func readResolvConf(text, hostname string) resolvConf {
	c := resolvConf{ndots: 1}
	if _, domain, ok := strings.Cut(hostname, "."); ok {
		c.search = rooted(domain)
	}
	for line := range strings.Lines(text) {
		if i := strings.IndexAny(line, "#;"); i >= 0 {
			line = line[:i]
		}
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "nameserver":
			if len(c.servers) < maxServers {
				c.servers = append(c.servers, f[1])
			}
		case "domain":
			c.search = rooted(f[1])
		case "search":
			c.search = rooted(f[1:]...)
		case "options":
			for _, option := range f[1:] {
				if n, ok := strings.CutPrefix(option, "ndots:"); ok {
					value, _ := strconv.Atoi(n)
					c.ndots = min(max(value, 0), maxNdots)
				}
			}
		}
	}
	if len(c.servers) == 0 {
		c.servers = []string{""}
	}
	return c
}

func systemResolvConf() resolvConf {
	text, _ := os.ReadFile("/etc/resolv.conf") // without one, the name server is this machine (resolv.conf(5))
	hostname, _ := os.Hostname()
	return readResolvConf(string(text), hostname)
}

func rooted(domains ...string) []string {
	var out []string
	for _, d := range domains {
		if d = strings.Trim(d, "."); d != "" {
			out = append(out, d+".")
		}
	}
	return out
}

// names returns what name can be in full, in the order in which it is tried
// (resolv.conf(5): search, ndots).
func (c resolvConf) names(name string) []string {
	if strings.HasSuffix(name, ".") {
		return []string{name}
	}
	alone := name + "."
	var out []string
	for _, domain := range c.search {
		out = append(out, alone+domain)
	}
	if strings.Count(name, ".") >= c.ndots {
		return append([]string{alone}, out...)
	}
	return append(out, alone)
}
