package metrics

import (
	"bytes"
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"

	"callhome/internal/hook"
	"callhome/internal/nms/cluster"
	"callhome/internal/nms/station"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// shipped returns the dashboard and the alerts, as text.
func shipped(t *testing.T) (dashboard, alerts string) {
	t.Helper()
	var text [2]string
	for i, file := range []string{"grafana/callhome-nms.json", "prometheus/callhome-nms.rules.yml"} {
		data, err := os.ReadFile("../../../packaging/" + file)
		if err != nil {
			t.Fatal(err)
		}
		text[i] = string(data)
	}
	return text[0], text[1]
}

// The dashboard and the alerts name metrics and labels that exist, and the dashboard
// shows each metric.
func TestDashboardAndAlertsNameWhatExists(t *testing.T) {
	m := New(func() station.Stats { return station.Stats{} }, "v1")
	m.AddHook(func() hook.Counts { return hook.Counts{} })
	m.AddCluster(func() cluster.Figures { return cluster.Figures{} })
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(m.Text()))
	if err != nil {
		t.Fatal(err)
	}
	values := make(map[string]map[string]bool) // metric to label=value
	for _, f := range families {
		values[f.GetName()] = make(map[string]bool)
		for _, s := range f.GetMetric() {
			for _, l := range s.GetLabel() {
				values[f.GetName()][l.GetName()+"="+l.GetValue()] = true
			}
		}
	}
	name := regexp.MustCompile(`\b(?:callhome_nms|go|process)_[a-z_]+`)
	ending := regexp.MustCompile(`_(bucket|sum|count)$`)
	metric := func(text string) string {
		if values[text] == nil {
			return ending.ReplaceAllString(text, "")
		}
		return text
	}
	dashboard, alerts := shipped(t)
	expressions := strings.ReplaceAll(dashboard, `\"`, `"`) + alerts
	for _, n := range name.FindAllString(expressions, -1) {
		if values[metric(n)] == nil {
			t.Errorf("there is no %s", n)
		}
	}
	for _, s := range regexp.MustCompile(`\b(callhome_nms_[a-z_]+)\{([^}]*)\}`).FindAllStringSubmatch(expressions, -1) {
		for _, m := range regexp.MustCompile(`([a-z]+)(=~|!=|=|!~)"([^"]*)"`).FindAllStringSubmatch(s[2], -1) {
			for _, value := range strings.Split(m[3], "|") {
				if m[1] != "instance" && m[1] != "job" && !values[metric(s[1])][m[1]+"="+value] {
					t.Errorf("no %s has %s=%q", s[1], m[1], value)
				}
			}
		}
	}
	for n := range values {
		if strings.HasPrefix(n, "callhome_nms_") && !strings.Contains(dashboard, n) {
			t.Errorf("%s is on no panel", n)
		}
	}
}

func TestDashboardCanBeImported(t *testing.T) {
	text, _ := shipped(t)
	var d struct {
		Title, UID    string
		SchemaVersion int
		Panels        []struct {
			ID          int
			Type, Title string
			GridPos     struct{ H, W, X, Y int }
			Targets     []struct{ Expr string }
		}
	}
	if err := json.Unmarshal([]byte(text), &d); err != nil {
		t.Fatal(err)
	}
	if d.Title == "" || d.UID != "callhome-nms" || d.SchemaVersion == 0 || len(d.Panels) < 10 {
		t.Errorf("title %q, uid %q, schema version %d, %d panels", d.Title, d.UID, d.SchemaVersion, len(d.Panels))
	}
	taken := make(map[[2]int]string)
	for i, p := range d.Panels {
		if p.ID != i+1 || (p.Type == "row") != (len(p.Targets) == 0) || p.GridPos.X+p.GridPos.W > 24 || p.GridPos.W < 1 || p.GridPos.H < 1 {
			t.Errorf("panel %+v", p)
		}
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if was := taken[[2]int{x, y}]; was != "" {
					t.Fatalf("%q overlaps %q", p.Title, was)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
	}
}
