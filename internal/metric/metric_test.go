package metric

import (
	"math"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// parse reads a text as Prometheus' own library does.
func parse(t *testing.T, text []byte) map[string]*dto.MetricFamily {
	t.Helper()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	all, err := parser.TextToMetricFamilies(strings.NewReader(string(text)))
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return all
}

func TestText(t *testing.T) {
	var r Registry
	c := NewCounters("c_total", "A\\ counter\nwith lines.", "kind", "way")
	h := NewHistograms("h_seconds", "A histogram.", []float64{.1, 1, 10}, "stage")
	r.Add(c, h, NewCounters("zero_total", "At zero."), NewHistograms("empty_seconds", "Empty.", []float64{1}), Func(func(to *Text) {
		to.Single("g", "A gauge.", Gauge, math.Inf(1))
		to.Single("big", "A number.", Gauge, 1<<40, "version", `1.2"\`+"\n")
	}))
	c.Show("b", "x")
	c.Inc("a", `"\`+"\n")
	c.Inc("a", `"\`+"\n")
	for _, v := range []float64{.1, .2, 5, 11} {
		h.Observe(v, "tcp")
	}
	text := string(r.Text())
	for _, want := range []string{
		"# HELP c_total A\\\\ counter\\nwith lines.\n# TYPE c_total counter\nc_total{kind=\"a\",way=\"\\\"\\\\\\n\"} 2\nc_total{kind=\"b\",way=\"x\"} 0\n",
		"# TYPE h_seconds histogram\nh_seconds_bucket{stage=\"tcp\",le=\"0.1\"} 1\nh_seconds_bucket{stage=\"tcp\",le=\"1\"} 2\nh_seconds_bucket{stage=\"tcp\",le=\"10\"} 3\nh_seconds_bucket{stage=\"tcp\",le=\"+Inf\"} 4\nh_seconds_sum{stage=\"tcp\"} 16.3\nh_seconds_count{stage=\"tcp\"} 4\n",
		"zero_total 0\n", "empty_seconds_bucket{le=\"1\"} 0\nempty_seconds_bucket{le=\"+Inf\"} 0\nempty_seconds_sum 0\nempty_seconds_count 0\n", "g +Inf\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	all := parse(t, []byte(text))
	if got := all["c_total"].GetMetric()[0].GetLabel()[1].GetValue(); got != `"\`+"\n" {
		t.Errorf("a label is read back as %q", got)
	}
	if got := all["big"].GetMetric()[0].GetGauge().GetValue(); got != 1<<40 {
		t.Errorf("a value is read back as %v", got)
	}
}

func TestCountsOfManyGoroutines(t *testing.T) {
	c, h := NewCounters("c_total", "C.", "n"), NewHistograms("h", "H.", []float64{1})
	var r Registry
	r.Add(c, h)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 100 {
				c.Inc(strconv.Itoa(i % 2))
				h.Observe(1)
				r.Text()
			}
		})
	}
	wg.Wait()
	if text := string(r.Text()); !strings.Contains(text, `c_total{n="1"} 400`) || !strings.Contains(text, "h_count 800") {
		t.Error(text)
	}
}

func TestProcess(t *testing.T) {
	var r Registry
	r.Add(Process)
	text := r.Text()
	all := parse(t, text)
	value := func(name string) float64 {
		f := all[name]
		if f == nil {
			t.Fatalf("there is no %s", name)
		}
		return f.GetMetric()[0].GetGauge().GetValue() + f.GetMetric()[0].GetCounter().GetValue()
	}
	for name, within := range map[string][2]float64{
		"go_goroutines": {1, 1000}, "go_threads": {1, 1000}, "go_memstats_sys_bytes": {1 << 20, 1 << 32}, "process_open_fds": {3, 1000}, "process_max_fds": {3, 1 << 32},
		"process_resident_memory_bytes": {1 << 20, 1 << 32}, "process_virtual_memory_bytes": {1 << 20, 1 << 44}, "process_cpu_seconds_total": {0, 1000},
		"process_start_time_seconds": {float64(time.Now().Add(-time.Hour).Unix()), float64(time.Now().Add(2 * time.Second).Unix())},
	} {
		if v := value(name); v < within[0] || v > within[1] {
			t.Errorf("%s is %v", name, v)
		}
	}
	if len(all["go_gc_duration_seconds"].GetMetric()[0].GetSummary().GetQuantile()) != 5 {
		t.Error("the pauses have no quantiles")
	}
	problems, err := promlint.New(strings.NewReader(string(text))).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		// The library's own names have these faults.
		if !strings.HasPrefix(p.Metric, "go_memstats_") && p.Metric != "go_sched_gomaxprocs_threads" {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}

// What cannot be read is absent.
func TestProcessWithoutProc(t *testing.T) {
	for _, stat := range []string{"", "7 (a) b", ")"} {
		dir := t.TempDir() + "/"
		if err := os.MkdirAll(dir+"self", 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dir+"self/stat", []byte(stat), 0o600); err != nil {
			t.Fatal(err)
		}
		var text Text
		if process(&text, dir); len(text.out) != 0 {
			t.Errorf("%q: got %s", stat, text.out)
		}
	}
}
