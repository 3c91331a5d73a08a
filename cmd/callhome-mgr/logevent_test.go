package main

import (
	"bytes"
	"callhome/internal/proto"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
)

func TestLogEvent(t *testing.T) {
	later := time.Now().Add(time.Hour + 20*time.Millisecond)
	nms := &proto.ClientStatus{Client: "n\nms", NextAttempt: &later}
	ended := proto.SessionInfo{Session: 7, Host: "nms.example", Port: 4334, Client: "n\nms", Endpoint: "a", Stage: proto.StageTCP, Cause: "refused"}
	for _, tt := range []struct {
		e    proto.Event
		want string // "" where it is not logged at info
	}{
		{proto.Event{Event: proto.EventRefused, Text: "Failed none for a\nb", Session: proto.SessionInfo{
			Session: 7, Host: "nms.example", Port: 4334, User: "x\x1b[2J", Stage: proto.StageAuth,
		}}, `[WARN]  login-refused: session=7 host=nms.example port=4334 user=x\x1b[2J stage=authentication details="Failed none for a\nb"`},
		{proto.Event{Event: proto.EventAttemptFailed, Client: nms, Session: ended},
			`[WARN]  attempt-failed: session=7 host=nms.example port=4334 client=n\nms endpoint=a next-attempt-in=1h0m0s stage=tcp cause=refused`},
		{proto.Event{Event: proto.EventFailed, Session: ended}, ""}, // attempt-failed says it
		{proto.Event{Event: proto.EventFailed, Session: proto.SessionInfo{Session: 7, Host: "h", Port: 1}}, `[WARN]  failed: session=7 host=h port=1`},
		{proto.Event{Event: proto.EventRecovered, Client: &proto.ClientStatus{Client: "b"}, Outage: 1234567 * time.Microsecond},
			`[INFO]  recovered: outage=1.235s client=b`},
		{proto.Event{Event: proto.EventLost, Client: &proto.ClientStatus{Client: "b"}}, `[WARN]  lost: client=b`},
		{proto.Event{Event: proto.EventGivenUp, Client: &proto.ClientStatus{Client: "b"}}, `[ERROR] given-up: client=b`},
		{proto.Event{Event: proto.EventAllExhausted, Client: &proto.ClientStatus{Client: "b"}}, `[WARN]  all-endpoints-exhausted: client=b`},
		{proto.Event{Event: proto.EventConfigApplied, Text: "2 clients"}, `[INFO]  configuration-applied: details="2 clients"`},
		{proto.Event{Event: proto.EventConfigRefused, Text: "line 1: x\nline 2: y"}, `[ERROR] configuration-refused: details="line 1: x\nline 2: y"`},
		{proto.Event{Event: proto.EventLog, Session: proto.SessionInfo{Session: 7}, Text: "x"}, ""},
	} {
		var log bytes.Buffer
		logEvent(hclog.New(&hclog.LoggerOptions{Output: &log, DisableTime: true}), tt.e)
		if got := strings.TrimSuffix(log.String(), "\n"); got != tt.want {
			t.Errorf("%s: got\n%s\nwant\n%s", tt.e.Event, got, tt.want)
		}
	}
}
