package cluster

import (
	"context"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"callhome/internal/nms/buckets"
	"callhome/internal/nms/natstest"
	"callhome/internal/nms/nmsproto"

	"github.com/hashicorp/go-hclog"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// createBuckets creates the buckets as the user "operator", and returns that connection.
func createBuckets(t *testing.T, w *world, as func(name, address string) string) *buckets.Conn {
	t.Helper()
	operator, err := buckets.Connect(buckets.Options{URLs: []string{as("operator", w.servers.URLs()[0])}, Name: "operator"}, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(operator.Close)
	if err := operator.AwaitUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := operator.Create(t.Context(), buckets.Layout{Replicas: 1, Lease: w.lease}); err != nil {
		t.Fatal(err)
	}
	return operator
}

// TestTheExamplesRightsAreEnoughAndNoMore runs two stations with the users of
// examples/cluster/nats.conf, and has one of them try what it must not be able to do.
func TestTheExamplesRightsAreEnoughAndNoMore(t *testing.T) {
	w, as := exampleWorld(t)
	createBuckets(t, w, as)
	north, south := w.start("north", 0), w.start("south", 0)
	north.mustCall("edge7.example.net")
	await(t, "south knows the holder", func() bool {
		d, _ := south.Cluster.Device("edge7.example.net")
		return d.Station == "north" && d.State == nmsproto.Connected
	})
	north.hangUp("edge7.example.net")
	south.mustCall("edge7.example.net")
	await(t, "south believes", func() bool { return south.Believes("edge7.example.net") })
	south.mu.Lock()
	south.calls = []nmsproto.Unknown{{HostKey: "SHA256:x", Calls: 1, Last: time.Now()}}
	south.mu.Unlock()
	await(t, "north lists an unknown device of south", func() bool { return north.Cluster.Unknown("SHA256:x") != nil })
	south.events.Publish(nmsproto.Event{Sequence: 1, Event: nmsproto.EventUp, Station: "south"})
	if _, err := north.Editor().Revoke("SHA256:" + strings.Repeat("A", 43)); err != nil {
		t.Errorf("revoking a key: %v", err)
	}

	// What a station must not be able to do.
	refused := make(chan error, 64)
	nc, err := nats.Connect(as("north", w.servers.URLs()[0]), nats.CustomInboxPrefix("_INBOX.north"), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { refused <- err }))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	stream, err := operatorStream(ctx, as("operator", w.servers.URLs()[0]), "callhome-events")
	if err != nil {
		t.Fatal(err)
	}
	await(t, "the event is in the stream", func() bool {
		info, err := stream.Info(ctx)
		return err == nil && info.State.Msgs == 1
	})
	for what, try := range map[string]func(context.Context) error{
		"delete a bucket": func(ctx context.Context) error { return js.DeleteStream(ctx, "KV_"+buckets.Registry) },
		"create a stream": func(ctx context.Context) error {
			_, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "mine"})
			return err
		},
		"write another station's heartbeat": func(ctx context.Context) error {
			_, err := js.Publish(ctx, "$KV."+buckets.Stations+".south", nil)
			return err
		},
		"write another station's unknowns": func(ctx context.Context) error {
			_, err := js.Publish(ctx, "$KV."+buckets.Callers+".south", nil)
			return err
		},
		"publish another station's event": func(ctx context.Context) error {
			_, err := js.Publish(ctx, buckets.EventSubject+".south", nil)
			return err
		},
		"purge a bucket": func(ctx context.Context) error {
			_, err := nc.RequestWithContext(ctx, "$JS.API.STREAM.PURGE.KV_"+buckets.Claims, nil)
			return err
		},
		"read another client's answers": func(context.Context) error {
			s, err := nc.SubscribeSync("_INBOX.south.>")
			if err == nil {
				_, err = s.NextMsg(300 * time.Millisecond)
			}
			return err
		},
		"listen to the writes of all buckets": func(context.Context) error {
			s, err := nc.SubscribeSync("$KV.>")
			if err == nil {
				_, err = s.NextMsg(300 * time.Millisecond)
			}
			return err
		},
		"remove all of a bucket by a rollup": func(ctx context.Context) error {
			_, err := js.PublishMsg(ctx, &nats.Msg{Subject: "$KV." + buckets.Claims + ".x", Header: nats.Header{"Nats-Rollup": {"all"}}})
			return err
		},
	} {
		short, cancel := context.WithTimeout(ctx, time.Second)
		if err := try(short); err == nil {
			t.Errorf("a station may %s", what)
		}
		cancel()
	}
}

func operatorStream(ctx context.Context, address, name string) (jetstream.Stream, error) {
	nc, err := nats.Connect(address)
	if err != nil {
		return nil, err
	}
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, nc.Close)
	return js.Stream(ctx, name)
}

// exampleWorld is a server with the users of examples/cluster/nats.conf, and its address
// for one of them.
func exampleWorld(t *testing.T) (w *world, as func(name, address string) string) {
	t.Helper()
	text, err := os.ReadFile("../../../examples/cluster/nats.conf")
	if err != nil {
		t.Fatal(err)
	}
	_, users, ok := strings.Cut(string(text), "\nauthorization {")
	if !ok {
		t.Fatal("the example has no block authorization")
	}
	file := t.TempDir() + "/nats.conf"
	if err := os.WriteFile(file, []byte("authorization {"+users), 0o600); err != nil {
		t.Fatal(err)
	}
	example, err := server.ProcessConfigFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range example.Users {
		u.Password = "secret" // in place of the certificate
	}
	w = &world{t: t, lease: endless, stations: make(map[string]*standIn), severed: make(map[[2]string]bool)}
	w.servers = natstest.StartWith(t, 1, func(o *server.Options) { o.Users = example.Users })
	as = func(name, address string) string {
		u, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		u.User = url.UserPassword(name, "secret")
		return u.String()
	}
	w.login = as
	return w, as
}

// TestAnotherSystemReadsEvents: the user "events" of the example reads the stream with a
// durable consumer, and no bucket.
func TestAnotherSystemReadsEvents(t *testing.T) {
	w, as := exampleWorld(t)
	address := w.servers.URLs()[0]
	operator := createBuckets(t, w, as)
	if err := operator.Publish(t.Context(), buckets.EventSubject+".north", "north-1", []byte(`{"event":"up"}`)); err != nil {
		t.Fatal(err)
	}
	nc, err := nats.Connect(as("events", address), nats.CustomInboxPrefix("_INBOX.events"))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	consumer, err := js.CreateOrUpdateConsumer(t.Context(), buckets.Events, jetstream.ConsumerConfig{Durable: "siem", AckPolicy: jetstream.AckExplicitPolicy})
	if err != nil {
		t.Fatal(err)
	}
	m, err := consumer.Next()
	if err != nil || m.Subject() != buckets.EventSubject+".north" || m.DoubleAck(t.Context()) != nil {
		t.Fatalf("the event was not read: %v", err)
	}
	for what, try := range map[string]func(context.Context) error{
		"read the registry": func(ctx context.Context) error {
			_, err := js.CreateConsumer(ctx, "KV_"+buckets.Registry, jetstream.ConsumerConfig{})
			return err
		},
		"publish an event": func(ctx context.Context) error {
			_, err := js.Publish(ctx, buckets.EventSubject+".north", nil)
			return err
		},
		"delete the stream": func(ctx context.Context) error { return js.DeleteStream(ctx, buckets.Events) },
	} {
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		if err := try(short); err == nil {
			t.Errorf("another system may %s", what)
		}
		cancel()
	}
}
