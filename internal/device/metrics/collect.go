package metrics

import (
	"time"

	"callhome/internal/metric"
	"callhome/internal/proto"
)

// Collect implements metric.Collector.
func (m *Metrics) Collect(to *metric.Text) {
	m.mu.Lock()
	list := m.source.Sessions()
	m.ledger.measured(list)
	total := m.ledger.total
	m.mu.Unlock()
	to.Single("callhome_sent_bytes_total", "Bytes that clients have acknowledged, over all sessions.", metric.Counter, float64(total.sent))
	to.Single("callhome_received_bytes_total", "Bytes received from clients, over all sessions.", metric.Counter, float64(total.received))
	to.Single("callhome_retransmits_total", "TCP segments retransmitted, over all sessions.", metric.Counter, float64(total.retransmits))
	byState := make(map[proto.State]int)
	for _, s := range list {
		byState[s.State]++
	}
	to.Metric("callhome_sessions", "Sessions that have not ended, by state.", metric.Gauge)
	for _, s := range proto.States {
		to.Sample(float64(byState[s]), "state", string(s))
	}
	clients := make(map[proto.ClientState]int)
	for _, c := range m.source.Clients() {
		clients[c.State]++
	}
	to.Metric("callhome_clients", "Configured NETCONF clients, by state.", metric.Gauge)
	for _, s := range proto.ClientStates {
		to.Sample(float64(clients[s]), "state", string(s))
	}
	if mean, longest := roundTrips(list); longest > 0 {
		to.Single("callhome_rtt_mean_seconds", "Mean of the open connections' smoothed round-trip times; absent without a connection.", metric.Gauge, mean.Seconds())
		to.Single("callhome_rtt_max_seconds", "Longest of the open connections' smoothed round-trip times; absent without a connection.", metric.Gauge, longest.Seconds())
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
