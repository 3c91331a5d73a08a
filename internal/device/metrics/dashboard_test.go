package metrics

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"callhome/internal/hook"
	"callhome/internal/proto"

	dto "github.com/prometheus/client_model/go"
)

// everything returns all metrics.
func everything(t *testing.T) map[string]*dto.MetricFamily {
	m := New(&list{{Session: 1, State: proto.StateServing, Stats: &proto.Stats{RTT: time.Millisecond}}}, "v1.2")
	m.AddHook(func() hook.Counts { return hook.Counts{} })
	return families(t, m)
}

type dashboard struct {
	Title         string
	UID           string
	SchemaVersion int
	Panels        []panel
	Templating    struct {
		List []struct{ Name, Definition string }
	}
}

type panel struct {
	ID      int
	Type    string
	Title   string
	GridPos struct{ H, W, X, Y int }
	Targets []struct{ Expr string }
}

func readDashboard(t *testing.T) dashboard {
	t.Helper()
	text, err := os.ReadFile("../../../packaging/grafana/callhome.json")
	if err != nil {
		t.Fatal(err)
	}
	var d dashboard
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

var (
	metricName = regexp.MustCompile(`\b(?:callhome|go|process)_[a-z_]+`)
	selector   = regexp.MustCompile(`\b([a-z]+_[a-z_]+)\{([^}]*)\}`)
	matcher    = regexp.MustCompile(`([a-z]+)(=~|!=|=)"([^"]*)"`)
	histogram  = regexp.MustCompile(`_(bucket|sum|count)$`)
)

// family returns the metric that a name in an expression belongs to, or nil.
func family(all map[string]*dto.MetricFamily, name string) *dto.MetricFamily {
	if f := all[name]; f != nil && f.GetType() != dto.MetricType_HISTOGRAM {
		return f
	}
	base := histogram.ReplaceAllString(name, "")
	if f := all[base]; base != name && f.GetType() == dto.MetricType_HISTOGRAM {
		return f
	}
	return nil
}

// has reports whether a series of the family has the label with that value.
func has(f *dto.MetricFamily, label, value string) bool {
	for _, s := range f.GetMetric() {
		for _, l := range s.GetLabel() {
			if l.GetName() == label && l.GetValue() == value {
				return true
			}
		}
	}
	return false
}

func TestDashboardNamesWhatExists(t *testing.T) {
	all := everything(t)
	d := readDashboard(t)
	var expressions []string
	for _, p := range d.Panels {
		for _, q := range p.Targets {
			expressions = append(expressions, q.Expr)
		}
	}
	for _, v := range d.Templating.List {
		expressions = append(expressions, v.Definition)
	}
	shown := make(map[string]bool)
	expressions = append(expressions, alerts(t)...)
	for _, expr := range expressions {
		for _, name := range metricName.FindAllString(expr, -1) {
			f := family(all, name)
			if f == nil {
				t.Errorf("there is no %s, in %s", name, expr)
			}
			shown[f.GetName()] = true
		}
		for _, s := range selector.FindAllStringSubmatch(expr, -1) {
			for _, m := range matcher.FindAllStringSubmatch(s[2], -1) {
				// Prometheus adds these labels itself.
				if (m[1] == "instance" || m[1] == "job") && m[3] == "$"+m[1] {
					continue
				}
				for _, value := range strings.Split(m[3], "|") {
					if !has(family(all, s[1]), m[1], value) {
						t.Errorf("no %s has %s=%q, in %s", s[1], m[1], value, expr)
					}
				}
			}
		}
	}
	for name := range all {
		if strings.HasPrefix(name, "callhome_") && !shown[name] {
			t.Errorf("%s is on no panel", name)
		}
	}
}

// alerts returns the expressions of the shipped alerts.
func alerts(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile("../../../packaging/prometheus/callhome.rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?s)expr: \|?(.*?)\n +(?:for|labels):`).FindAllStringSubmatch(string(text), -1)
	if len(found) != strings.Count(string(text), "- alert: ") {
		t.Fatalf("found %d expressions of alerts", len(found))
	}
	var out []string
	for _, f := range found {
		out = append(out, f[1])
	}
	return out
}

func TestDashboardCanBeImported(t *testing.T) {
	d := readDashboard(t)
	if d.Title == "" || d.UID == "" || d.SchemaVersion == 0 || len(d.Panels) == 0 {
		t.Errorf("title %q, uid %q, schema version %d, %d panels", d.Title, d.UID, d.SchemaVersion, len(d.Panels))
	}
	type cell struct{ x, y int }
	taken := make(map[cell]string)
	ids := make(map[int]string)
	for _, p := range d.Panels {
		if was, twice := ids[p.ID]; twice {
			t.Errorf("%q and %q have one number, %d", was, p.Title, p.ID)
		}
		ids[p.ID] = p.Title
		if (p.Type == "row") != (len(p.Targets) == 0) {
			t.Errorf("%q, a %s, has %d expressions", p.Title, p.Type, len(p.Targets))
		}
		g := p.GridPos
		if g.W < 1 || g.H < 1 || g.X < 0 || g.X+g.W > 24 {
			t.Errorf("%q does not fit: %+v", p.Title, g)
		}
		for x := g.X; x < g.X+g.W; x++ {
			for y := g.Y; y < g.Y+g.H; y++ {
				if was := taken[cell{x, y}]; was != "" {
					t.Fatalf("%q overlaps %q", p.Title, was)
				}
				taken[cell{x, y}] = p.Title
			}
		}
	}
}

// The table of docs/operations.md has every metric, with its type and labels.
func TestDocumentedMetrics(t *testing.T) {
	text, err := os.ReadFile("../../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]string)
	for _, row := range regexp.MustCompile("(?m)^\\| `(callhome_[a-z_]+)` \\| (.*?) \\| (.*?) \\|").FindAllStringSubmatch(string(text), -1) {
		got[row[1]] = row[2] + " " + strings.ReplaceAll(row[3], "`", "")
	}
	for name, f := range everything(t) {
		if !strings.HasPrefix(name, "callhome_") {
			continue
		}
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		want := strings.ToLower(f.GetType().String()) + " " + strings.Join(labels, ", ")
		if got[name] != want {
			t.Errorf("%s: the table says %q, want %q", name, got[name], want)
		}
		delete(got, name)
	}
	for name := range got {
		t.Errorf("the table has %s, which does not exist", name)
	}
}
