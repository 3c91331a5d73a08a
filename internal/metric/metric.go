// Package metric owns metrics and Prometheus' text format (version 0.0.4): counters and
// histograms with labels, the figures that are read at each scrape, and those of this
// process. Both packages metrics count with it, and package scrape serves its text. It
// never knows what is counted.
//
// The client library of Prometheus describes metrics with protocol buffers: 2 MB of
// callhome-mgr, and 0.7 ms at the start of each command. That of VictoriaMetrics, which is
// light, writes no help (ExposeMetadata in v1.45), and names its series by strings that
// have labels and values in them.
package metric

import (
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Kind is what a metric's value does.
type Kind string

// The kinds.
const (
	Counter   Kind = "counter"
	Gauge     Kind = "gauge"
	Histogram Kind = "histogram"
	Summary   Kind = "summary"
)

// Collector writes the metrics that it has.
type Collector interface{ Collect(*Text) }

// Func is a function that is a Collector.
type Func func(*Text)

// Collect implements Collector.
func (f Func) Collect(to *Text) { f(to) }

// Registry is what a scrape returns.
type Registry struct {
	mu   sync.Mutex // guards the list, and has one scrape at a time
	list []Collector
}

// Add adds collectors. A metric may be in one of them only.
func (r *Registry) Add(c ...Collector) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, c...)
}

// Text returns all metrics.
func (r *Registry) Text() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	var t Text
	for _, c := range r.list {
		c.Collect(&t)
	}
	return t.out
}

// Text is metrics in Prometheus' text format.
type Text struct {
	out  []byte
	name string
}

var (
	escapeHelp  = strings.NewReplacer(`\`, `\\`, "\n", `\n`)
	escapeValue = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)
)

// Metric begins a metric, whose samples follow.
func (t *Text) Metric(name, help string, kind Kind) {
	t.name = name
	t.out = append(t.out, "# HELP "+name+" "+escapeHelp.Replace(help)+"\n# TYPE "+name+" "+string(kind)+"\n"...)
}

// Sample writes one value of the metric; labels are names, each with its value.
func (t *Text) Sample(value float64, labels ...string) { t.sample("", value, labels) }

// Single writes a metric with one value.
func (t *Text) Single(name, help string, kind Kind, value float64, labels ...string) {
	t.Metric(name, help, kind)
	t.Sample(value, labels...)
}

func (t *Text) sample(suffix string, value float64, labels []string) {
	t.out = append(append(t.out, t.name...), suffix...)
	for i := 0; i+1 < len(labels); i += 2 {
		before := byte(',')
		if i == 0 {
			before = '{'
		}
		t.out = append(append(append(t.out, before), labels[i]...), `="`+escapeValue.Replace(labels[i+1])+`"`...)
	}
	if len(labels) > 0 {
		t.out = append(t.out, '}')
	}
	t.out = append(append(append(t.out, ' '), number(value)...), '\n')
}

// number is a value as Go's, and so Prometheus', parser takes it: +Inf, NaN, 1e+06.
func number(value float64) string { return strconv.FormatFloat(value, 'g', -1, 64) }

// vector is the series of a metric, by the values of its labels.
type vector[S any] struct {
	name, help string
	labels     []string

	mu     sync.Mutex
	series map[string]*series[S] // by the values, joined
}

type series[S any] struct {
	labels []string // with their values
	state  S
}

func newVector[S any](name, help string, labels []string) vector[S] {
	return vector[S]{name: name, help: help, labels: labels, series: make(map[string]*series[S])}
}

// change changes the series with these values of the labels, which it makes if need be.
func (v *vector[S]) change(values []string, f func(*S)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	key := strings.Join(values, "\xff") // no UTF-8 has this byte
	s := v.series[key]
	if s == nil {
		s = new(series[S])
		for i, name := range v.labels {
			s.labels = append(s.labels, name, values[i])
		}
		v.series[key] = s
	}
	f(&s.state)
}

// each calls f for each series, in a fixed order.
func (v *vector[S]) each(f func(s *S, labels []string)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	all := make([]*series[S], 0, len(v.series))
	for _, s := range v.series {
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b *series[S]) int { return slices.Compare(a.labels, b.labels) })
	for _, s := range all {
		f(&s.state, s.labels)
	}
}

// Counters is a counter for each combination of its labels' values.
type Counters struct{ vector[uint64] }

// NewCounters returns counters without a series; one without labels has its own.
func NewCounters(name, help string, labels ...string) *Counters {
	c := &Counters{newVector[uint64](name, help, labels)}
	if len(labels) == 0 {
		c.Show()
	}
	return c
}

// Show has the series be there, from 0.
func (c *Counters) Show(values ...string) { c.change(values, func(*uint64) {}) }

// Inc adds 1.
func (c *Counters) Inc(values ...string) { c.change(values, func(n *uint64) { *n++ }) }

// Collect implements Collector.
func (c *Counters) Collect(to *Text) {
	to.Metric(c.name, c.help, Counter)
	c.each(func(n *uint64, labels []string) { to.Sample(float64(*n), labels...) })
}

// Histograms is a histogram for each combination of its labels' values.
type Histograms struct {
	vector[histogram]
	bounds []float64
}

type histogram struct {
	counts []uint64 // by the first bound that is not exceeded
	all    uint64
	sum    float64
}

// NewHistograms returns histograms with these upper bounds, in rising order. One without
// labels has its series from the start.
func NewHistograms(name, help string, bounds []float64, labels ...string) *Histograms {
	h := &Histograms{newVector[histogram](name, help, labels), bounds}
	if len(labels) == 0 {
		h.Show()
	}
	return h
}

// Show has the series be there, empty.
func (h *Histograms) Show(values ...string) { h.change(values, h.prepare) }

func (h *Histograms) prepare(s *histogram) {
	if s.counts == nil {
		s.counts = make([]uint64, len(h.bounds))
	}
}

// Observe counts a value.
func (h *Histograms) Observe(value float64, values ...string) {
	h.change(values, func(s *histogram) {
		h.prepare(s)
		if i := slices.IndexFunc(h.bounds, func(bound float64) bool { return value <= bound }); i >= 0 {
			s.counts[i]++
		}
		s.all++
		s.sum += value
	})
}

// Collect implements Collector.
func (h *Histograms) Collect(to *Text) {
	to.Metric(h.name, h.help, Histogram)
	h.each(func(s *histogram, labels []string) {
		sum := uint64(0)
		for i, bound := range h.bounds {
			sum += s.counts[i]
			to.sample("_bucket", float64(sum), append(slices.Clone(labels), "le", number(bound)))
		}
		to.sample("_bucket", float64(s.all), append(slices.Clone(labels), "le", "+Inf"))
		to.sample("_sum", s.sum, labels)
		to.sample("_count", float64(s.all), labels)
	})
}
