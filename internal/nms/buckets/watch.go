package buckets

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Watcher gets what a watch shows. Its methods are called by one goroutine.
type Watcher interface {
	// Begin is called when a watch begins, first or anew: all values follow.
	Begin()
	// Value is called with each value, and with each deletion.
	Value(key string, v Value)
	// Complete is called when all values that there were at the beginning are known. A
	// key without a value since Begin has none.
	Complete()
}

// Watch watches keys until ctx ends. A watch begins anew after each reconnection:
// messages may be missing, and a bucket may be another one.
func (b *Bucket) Watch(ctx context.Context, keys string, w Watcher) {
	for ctx.Err() == nil {
		renewed := b.conn.renewal()
		err := b.watch(ctx, keys, w, renewed)
		if err == nil {
			continue
		}
		b.conn.failed(b.conn.nc, "", b.fail("watching", keys, err))
		pause := rand.N(beginTime / 2)
		if b.conn.Up() != nil {
			pause = time.Minute // it is renewed before
		}
		select {
		case <-ctx.Done():
		case <-renewed:
		case <-time.After(pause):
		}
	}
}

func (b *Bucket) watch(ctx context.Context, keys string, w Watcher, renewed <-chan struct{}) error {
	if err := b.conn.Up(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	base, err := b.last(ctx)
	if err != nil {
		return err
	}
	limit := time.AfterFunc(beginTime, cancel)
	watch, err := b.kv.Watch(ctx, keys)
	if err != nil {
		return err
	}
	defer func() { _ = watch.Stop() }()
	if !limit.Stop() {
		return context.DeadlineExceeded
	}
	w.Begin()
	again, probe := time.NewTimer(rewatch), time.NewTicker(probeTime)
	defer again.Stop()
	defer probe.Stop()
	probed := make(chan uint64, 1)
	var seen, due uint64 // last revision shown, and what the bucket had at the last probe
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-renewed:
			return nil
		case <-again.C:
			return nil
		case <-probe.C:
			go func() {
				if last, err := b.last(ctx); err == nil {
					select {
					case probed <- last:
					default:
					}
				}
			}()
		case last := <-probed:
			if due > seen {
				return errStalled // what was due a probe ago was not shown
			}
			due = last
		case e, ok := <-watch.Updates():
			switch {
			case !ok:
				return errors.New("the watch has ended")
			case e == nil:
				seen = max(seen, base)
				w.Complete()
			default:
				seen = e.Revision()
				w.Value(e.Key(), Value{
					Data: e.Value(), Revision: e.Revision(), Deleted: e.Operation() != jetstream.KeyValuePut, Created: e.Created(), Pending: e.Delta(),
				})
			}
		}
	}
}

// last returns the revision of the last write to the bucket.
func (b *Bucket) last(ctx context.Context) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, beginTime)
	defer cancel()
	status, err := b.kv.Status(ctx)
	if err != nil {
		return 0, err
	}
	s, ok := status.(*jetstream.KeyValueBucketStatus)
	if !ok {
		return 0, fmt.Errorf("its status has the type %T", status)
	}
	return s.StreamInfo().State.LastSeq, nil
}
