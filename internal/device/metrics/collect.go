package metrics

import (
	"time"

	"callhome/internal/proto"

	"github.com/prometheus/client_golang/prometheus"
)

// The metrics that are computed at each scrape.
var (
	sessionsDesc    = prometheus.NewDesc("callhome_sessions", "Sessions that have not ended, by state.", []string{"state"}, nil)
	clientsDesc     = prometheus.NewDesc("callhome_clients", "Configured NETCONF clients, by state.", []string{"state"}, nil)
	sentDesc        = prometheus.NewDesc("callhome_sent_bytes_total", "Bytes that clients have acknowledged, over all sessions.", nil, nil)
	receivedDesc    = prometheus.NewDesc("callhome_received_bytes_total", "Bytes received from clients, over all sessions.", nil, nil)
	retransmitsDesc = prometheus.NewDesc("callhome_retransmits_total", "TCP segments retransmitted, over all sessions.", nil, nil)
	rttMeanDesc     = prometheus.NewDesc("callhome_rtt_mean_seconds", "Mean of the open connections' smoothed round-trip times; absent without a connection.", nil, nil)
	rttMaxDesc      = prometheus.NewDesc("callhome_rtt_max_seconds", "Longest of the open connections' smoothed round-trip times; absent without a connection.", nil, nil)
)

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{sessionsDesc, clientsDesc, sentDesc, receivedDesc, retransmitsDesc, rttMeanDesc, rttMaxDesc} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(to chan<- prometheus.Metric) {
	m.mu.Lock()
	list := m.source.Sessions()
	m.ledger.measured(list)
	total := m.ledger.total
	m.mu.Unlock()

	for desc, value := range map[*prometheus.Desc]uint64{sentDesc: total.sent, receivedDesc: total.received, retransmitsDesc: total.retransmits} {
		to <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(value))
	}
	byState := make(map[proto.State]int)
	for _, s := range list {
		byState[s.State]++
	}
	for _, s := range proto.States {
		to <- prometheus.MustNewConstMetric(sessionsDesc, prometheus.GaugeValue, float64(byState[s]), string(s))
	}
	clients := make(map[proto.ClientState]int)
	for _, c := range m.source.Clients() {
		clients[c.State]++
	}
	for _, s := range proto.ClientStates {
		to <- prometheus.MustNewConstMetric(clientsDesc, prometheus.GaugeValue, float64(clients[s]), string(s))
	}
	if mean, longest := roundTrips(list); longest > 0 {
		to <- prometheus.MustNewConstMetric(rttMeanDesc, prometheus.GaugeValue, mean.Seconds())
		to <- prometheus.MustNewConstMetric(rttMaxDesc, prometheus.GaugeValue, longest.Seconds())
	}
}

// roundTrips returns the mean and the longest of the measured round-trip times.
func roundTrips(list []proto.SessionInfo) (mean, longest time.Duration) {
	var sum time.Duration
	n := 0
	for _, s := range list {
		if s.Stats == nil || s.Stats.RTT <= 0 {
			continue
		}
		sum += s.Stats.RTT
		longest = max(longest, s.Stats.RTT)
		n++
	}
	if n == 0 {
		return 0, 0
	}
	return sum / time.Duration(n), longest
}
