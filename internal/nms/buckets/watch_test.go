package buckets

import (
	"context"
	"fmt"
	"testing"
	"time"

	"callhome/internal/nms/natstest"

	"github.com/nats-io/nats.go/jetstream"
)

// maxConsumers are how many the stream of a test's bucket has room for: nats.go can have
// a watch's former consumer made again while another is made.
const maxConsumers = 2

// loseConsumers removes the consumers of a bucket, and lets none be made until the
// function that it returns is called: as where the server that had them is lost, and
// with it the leader of JetStream.
func loseConsumers(t *testing.T, b *Bucket) (restore func()) {
	t.Helper()
	var mine []string
	for i := range maxConsumers {
		mine = append(mine, fmt.Sprint("in-the-way-", i))
	}
	restore = func() {
		for _, name := range mine {
			_ = b.stream.DeleteConsumer(context.WithoutCancel(t.Context()), name)
		}
	}
	fill := func() error {
		for _, name := range mine {
			if _, err := b.stream.CreateConsumer(t.Context(), jetstream.ConsumerConfig{Durable: name, AckPolicy: jetstream.AckNonePolicy}); err != nil {
				return err
			}
		}
		return nil
	}
	for t.Context().Err() == nil {
		for info := range b.stream.ListConsumers(t.Context()).Info() {
			_ = b.stream.DeleteConsumer(t.Context(), info.Name)
		}
		if fill() == nil {
			return restore
		}
	}
	t.Fatal("the consumers' places cannot be taken")
	return nil
}

// openWithFewConsumers opens a bucket whose stream has room for maxConsumers.
func openWithFewConsumers(t *testing.T, c *Conn, name string) *Bucket {
	t.Helper()
	for _, s := range (Layout{Replicas: 1, Lease: time.Minute}).streams() {
		if s.Name != "KV_"+name {
			continue
		}
		s.MaxConsumers = maxConsumers
		if err := c.js.DeleteStream(t.Context(), s.Name); err != nil {
			t.Fatal(err)
		}
		if _, err := c.js.CreateStream(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	return open(t, c, name)
}

// TestAWatchGoesOnWithoutItsConsumer: the leader of the stream is asked for what the
// consumer does not show, each value and deletion once and in order.
func TestAWatchGoesOnWithoutItsConsumer(t *testing.T) {
	c := connect(t, natstest.Start(t, 1), time.Minute, 1)
	b := openWithFewConsumers(t, c, Claims)
	revision, err := b.Put(t.Context(), "a", []byte("first"), 0)
	if err != nil {
		t.Fatal(err)
	}
	r := newRecorder()
	go b.Watch(t.Context(), "*", r)
	if n := <-r.complete; n != 1 {
		t.Fatalf("%d values, want 1", n)
	}
	restore := loseConsumers(t, b)
	for i := range 50 {
		if _, err := b.Put(t.Context(), fmt.Sprint("key-", i), []byte("x"), 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Delete(t.Context(), "a", revision); err != nil {
		t.Fatal(err)
	}
	for !r.get("a").Deleted {
		<-r.changed
	}
	for i := range 50 { // what was written before was shown before
		if key := fmt.Sprint("key-", i); string(r.get(key).Data) != "x" {
			t.Errorf("%s was not shown", key)
		}
	}
	select {
	case <-r.complete:
		t.Fatal("the watch began anew without a consumer")
	default:
	}
	restore()
	if n := <-r.complete; n != 51 {
		t.Errorf("the watch that began anew showed %d values, want 51", n)
	}
}

// TestAWatchFindsAnotherBucket: one that was created anew under its name, without a
// reconnection. Its revisions are below those that were shown.
func TestAWatchFindsAnotherBucket(t *testing.T) {
	c := connect(t, natstest.Start(t, 1), time.Minute, 1)
	b := open(t, c, Claims)
	for i := range 5 {
		if _, err := b.Put(t.Context(), fmt.Sprint("key-", i), []byte("x"), 0); err != nil {
			t.Fatal(err)
		}
	}
	r := newRecorder()
	go b.Watch(t.Context(), "*", r)
	if n := <-r.complete; n != 5 {
		t.Fatalf("%d values, want 5", n)
	}
	if err := c.js.DeleteStream(t.Context(), "KV_"+Claims); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Create(t.Context(), Layout{Replicas: 1, Lease: time.Minute}); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, c, Claims).Put(t.Context(), "key", []byte("y"), 0); err != nil {
		t.Fatal(err)
	}
	for n := -1; n != 1; {
		n = <-r.complete
	}
	if v := r.get("key"); string(v.Data) != "y" {
		t.Errorf("the watch shows %+v", v)
	}
}
