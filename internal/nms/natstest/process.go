package natstest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Processes are three servers, each a process of its own: a server that is killed cannot
// hand over what it leads, as one in the process of the test does when it stops.
type Processes struct {
	t       testing.TB
	binary  string
	dir     string
	running []*exec.Cmd
	clients []int // ports
	monitor []int
}

// StartProcesses starts three servers of a program, which end with the test.
func StartProcesses(t testing.TB, binary string) *Processes {
	t.Helper()
	const n = 3
	p := &Processes{t: t, binary: binary, dir: t.TempDir(), running: make([]*exec.Cmd, n)}
	var routes []string
	for range n {
		p.clients, p.monitor = append(p.clients, reserve(t)), append(p.monitor, reserve(t))
		routes = append(routes, fmt.Sprintf("nats://127.0.0.1:%d", reserve(t)))
	}
	for i := range n {
		text := fmt.Sprintf("server_name: nats-%d\nlisten: 127.0.0.1:%d\nhttp: 127.0.0.1:%d\njetstream { store_dir: %q }\n"+
			"cluster { name: test, no_advertise: true, listen: %q, routes: [%s] }\n",
			i, p.clients[i], p.monitor[i], filepath.Join(p.dir, fmt.Sprint(i)), strings.TrimPrefix(routes[i], "nats://"), strings.Join(routes, ","))
		if err := os.WriteFile(p.config(i), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		p.Start(i)
	}
	t.Cleanup(func() {
		for i := range n {
			p.Kill(i)
		}
	})
	return p
}

func (p *Processes) config(i int) string { return filepath.Join(p.dir, fmt.Sprint(i, ".conf")) }

// Start starts a server that was killed.
func (p *Processes) Start(i int) {
	p.t.Helper()
	p.running[i] = exec.Command(p.binary, "-c", p.config(i), "-l", filepath.Join(p.dir, fmt.Sprint(i, ".log")))
	if err := p.running[i].Start(); err != nil {
		p.t.Fatal(err)
	}
}

// Kill ends a server as kill -9 does.
func (p *Processes) Kill(i int) {
	if p.running[i] != nil {
		_ = p.running[i].Process.Kill()
		_ = p.running[i].Wait()
		p.running[i] = nil
	}
}

// Leader returns the name of the server that leads JetStream, as server i knows it, and
// how many consumers that server has.
func (p *Processes) Leader(i int) (name string, consumers int) {
	client := http.Client{Timeout: time.Second}
	answer, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/jsz", p.monitor[i]))
	if err != nil {
		return "", 0
	}
	defer answer.Body.Close()
	var is struct {
		Consumers int `json:"consumers"`
		Meta      struct {
			Leader string `json:"leader"`
		} `json:"meta_cluster"`
	}
	_ = json.NewDecoder(answer.Body).Decode(&is)
	return is.Meta.Leader, is.Consumers
}

// URLs are the servers' addresses.
func (p *Processes) URLs() (urls []string) {
	for _, port := range p.clients {
		urls = append(urls, fmt.Sprintf("nats://127.0.0.1:%d", port))
	}
	return urls
}
