package buckets

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Watcher gets what a watch shows. Its methods are called by one goroutine.
type Watcher interface {
	// Begin is called when a watch begins, first or anew: all values follow. created is
	// when the bucket was created: another time is that of another bucket.
	Begin(created time.Time)
	// Value is called with each value, and with each deletion.
	Value(key string, v Value)
	// Complete is called when all values that there were at the beginning are known. A
	// key without a value since Begin has none.
	Complete()
}

const (
	// rewatch is how often a watch begins anew without a reason.
	rewatch = 10 * time.Minute
	// identifyEvery is how often it is looked whether the bucket is another one of that
	// name. Its revisions begin at 1, below those that were shown.
	identifyEvery = 10 * time.Second
	// askEvery is how often the leader of a bucket's stream is asked for what a watch has
	// not shown. A server that is lost takes the consumers along that it had, also those
	// of clients of other servers; and while the servers elect a leader of JetStream,
	// which takes them 4 to 10 s, there are no new ones.
	askEvery = 250 * time.Millisecond
	// stallTime is how long a consumer may be behind the leader before another is made.
	stallTime = 2 * time.Second
	// beginTime is for the creation of a consumer, and for each value that it shows. There
	// is no answer where the servers place it on one that is lost, so the next attempt
	// comes soon.
	beginTime = 2 * time.Second
)

// errStalled is the error of a watch whose consumer shows less than its bucket has.
var errStalled = errors.New("the watch has stalled, as after the loss of a server; it begins anew")

// Watch watches keys until ctx ends. A watch begins anew after each reconnection:
// messages may be missing, and a bucket may be another one.
func (b *Bucket) Watch(ctx context.Context, keys string, w Watcher) {
	f := &watch{bucket: b, keys: keys, to: w, begun: make(chan consumer), identified: make(chan time.Time)}
	defer func() { f.of.end() }()
	renewed := b.conn.renewal()
	f.anew(ctx)
	again, ask, identify := time.NewTicker(rewatch), time.NewTicker(askEvery), time.NewTicker(identifyEvery)
	defer again.Stop()
	defer ask.Stop()
	defer identify.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-renewed:
			renewed = b.conn.renewal()
			f.anew(ctx)
		case <-again.C:
			f.anew(ctx)
		case next := <-f.begun:
			renewed = next.renewed // perhaps it is by now
			f.begin(ctx, next)
		case e, ok := <-f.of.updates:
			f.update(ctx, e, ok)
		case v := <-f.answers:
			f.answer(ctx, v)
		case <-ask.C:
			f.ask(ctx)
		case <-identify.C:
			go f.identify(ctx)
		case created := <-f.identified:
			if !created.Equal(f.of.created) {
				f.anew(ctx)
			}
		}
	}
}

// watch is one of a Watcher. What its consumer is late with, it reads from the leader of the
// stream.
type watch struct {
	bucket *Bucket
	keys   string
	to     Watcher

	begun     chan consumer // passes one that has begun
	beginning bool          // one is being made
	of        consumer      // which is followed; none at first
	answers   chan shown    // of the leader, since this consumer has begun
	seen      uint64        // the last revision that was shown
	overtaken uint64        // the first revision that the leader had and the consumer has not shown; 0 if none
	moved     time.Time     // when the consumer showed something, or was overtaken
	// identified passes when the bucket was created that has the name now.
	identified chan time.Time
}

// shown is a value with its key.
type shown struct {
	key string
	Value
}

// anew has another consumer made, unless one is being made. Until it has begun, the
// watch goes on.
func (f *watch) anew(ctx context.Context) {
	if f.beginning {
		return
	}
	f.beginning = true
	go func() {
		for {
			renewed := f.bucket.conn.renewal()
			next, err := f.bucket.consume(ctx, f.keys)
			next.renewed = renewed
			if err == nil {
				select {
				case f.begun <- next:
				case <-ctx.Done():
					next.end()
				}
				return
			}
			if ctx.Err() != nil {
				return
			}
			f.failed(err)
			pause := rand.N(beginTime / 2)
			if f.bucket.conn.Up() != nil {
				pause = time.Minute // it is renewed before
			}
			select {
			case <-ctx.Done():
			case <-renewed:
			case <-time.After(pause):
			}
		}
	}()
}

func (f *watch) failed(err error) {
	f.bucket.conn.failed(f.bucket.conn.nc, "", f.bucket.fail("watching", f.keys, err))
}

// consumer is what the servers made of a watch.
type consumer struct {
	created time.Time // of the bucket
	values  []shown   // that there were at the beginning
	updates <-chan jetstream.KeyValueEntry
	stop    context.CancelFunc
	renewed <-chan struct{} // closed with the first reconnection after its making began
}

// end has the servers remove the consumer. It does not wait for them.
func (c consumer) end() {
	if c.stop == nil {
		return // there was none
	}
	c.stop()
	go func() {
		for range c.updates { // nats.go waits until what it has is taken
		}
	}()
}

// consume makes a consumer of all values, and of those that follow. It has shown the
// former: as long as that takes, and where it ends half-way, the consumer before and the
// leader serve the watch.
func (b *Bucket) consume(ctx context.Context, keys string) (consumer, error) {
	if err := b.conn.Up(); err != nil {
		return consumer{}, err
	}
	created, err := b.createdNow(ctx)
	if err != nil {
		return consumer{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	limit := time.AfterFunc(beginTime, cancel)
	values, err := b.kv.Watch(ctx, keys)
	if err != nil {
		cancel()
		return consumer{}, err
	}
	made := consumer{created: created, updates: values.Updates(), stop: cancel}
	for {
		select {
		case e, ok := <-made.updates:
			if ok && e != nil {
				made.values = append(made.values, shownBy(e))
				limit.Reset(beginTime)
				continue
			}
			// The values must not be those of a bucket that was created meanwhile.
			if now, err := b.createdNow(ctx); ok && err == nil && now.Equal(created) && limit.Stop() {
				return made, nil
			}
		case <-ctx.Done():
		}
		made.end()
		return consumer{}, errStalled
	}
}

func shownBy(e jetstream.KeyValueEntry) shown {
	return shown{e.Key(), Value{
		Data: e.Value(), Revision: e.Revision(), Deleted: e.Operation() != jetstream.KeyValuePut, Created: e.Created(), Pending: e.Delta(),
	}}
}

// begin follows another consumer.
func (f *watch) begin(ctx context.Context, next consumer) {
	f.of.end()
	f.to.Begin(next.created)
	f.seen = 0
	for _, v := range next.values {
		f.show(v)
	}
	f.to.Complete()
	next.values = nil
	f.of, f.answers, f.beginning, f.overtaken = next, make(chan shown), false, 0
	f.ask(ctx) // its server may be behind
}

func (f *watch) show(v shown) {
	f.seen = v.Revision
	f.to.Value(v.key, v.Value)
}

// update is called with what the consumer shows; not ok where it has ended.
func (f *watch) update(ctx context.Context, e jetstream.KeyValueEntry, ok bool) {
	switch {
	case !ok:
		f.of.end()
		f.of = consumer{}
		f.failed(errors.New("the watch has ended"))
		f.anew(ctx)
	case e != nil:
		f.moved = time.Now()
		if e.Revision() >= f.overtaken {
			f.overtaken = 0
		}
		if e.Revision() >= f.seen { // else the leader has shown it
			f.show(shownBy(e))
		}
	}
}

// identify passes on when the bucket was created that has the name now.
func (f *watch) identify(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, identifyEvery)
	defer cancel()
	created, err := f.bucket.createdNow(ctx)
	if err != nil {
		return // it is looked again
	}
	select {
	case f.identified <- created:
	case <-ctx.Done():
	}
}

// ask asks the leader for the next value after those that were shown.
func (f *watch) ask(ctx context.Context) {
	if f.overtaken != 0 && time.Since(f.moved) > stallTime && !f.beginning {
		f.failed(errStalled)
		f.anew(ctx)
	}
	if f.answers != nil {
		go f.read(ctx, f.seen+1, f.answers)
	}
}

// answer is called with a value that the leader has.
func (f *watch) answer(ctx context.Context, v shown) {
	if v.Revision <= f.seen {
		return // the consumer has shown it meanwhile
	}
	if f.overtaken == 0 {
		f.overtaken, f.moved = v.Revision, time.Now()
	}
	f.show(v)
	go f.read(ctx, f.seen+1, f.answers)
}

// read passes on the first value of the stream from that revision on, if there is one.
func (f *watch) read(ctx context.Context, from uint64, to chan<- shown) {
	ctx, cancel := context.WithTimeout(ctx, tryTime)
	defer cancel()
	prefix := "$KV." + f.bucket.name + "."
	m, err := f.bucket.stream.GetMsg(ctx, from, jetstream.WithGetMsgSubject(prefix+f.keys))
	if err != nil {
		return // none, or no leader: it is asked again
	}
	select {
	case to <- shown{m.Subject[len(prefix):], Value{
		Data: m.Data, Revision: m.Sequence, Deleted: m.Header.Get("KV-Operation") != "", Created: m.Time,
		Pending: 1, // perhaps
	}}:
	case <-ctx.Done():
	}
}
