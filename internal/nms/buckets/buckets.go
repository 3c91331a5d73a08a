// Package buckets owns a station's connection to NATS: the JetStream key-value buckets of
// a cluster, writes by compare-and-set whose outcome is known, watches that begin anew
// after each reconnection, and the stream of events. Packages mirror and cluster use it,
// and the command that creates the buckets. It knows no device and decides nothing.
package buckets

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"callhome/internal/printable"

	"github.com/hashicorp/go-hclog"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// The buckets, and the stream of events.
const (
	Registry = "callhome-registry" // entries, and the list of revoked keys
	Keys     = "callhome-keys"     // which device has a host key
	Claims   = "callhome-claims"   // which station holds which device
	Stations = "callhome-stations" // heartbeats
	Callers  = "callhome-callers"  // unknown devices, by station
	Events   = "callhome-events"   // a stream, no bucket
)

// ErrConflict is the error for a write whose key has another revision than expected.
var ErrConflict = errors.New("another station has changed it meanwhile")

// errFull is the error for a write that a bucket has no space for.
var errFull = errors.New("the bucket is full: `callhome-nms cluster buckets` with more --devices gives it more space")

const (
	// callTime bounds what a caller without a limit of its own waits. Servers that have
	// lost the leader of a bucket elect another within 10 s.
	callTime = 12 * time.Second
	tryTime  = time.Second // bounds one request to NATS
)

// Options say how NATS is reached.
type Options struct {
	URLs        []string
	Credentials string // file with a user's JWT and seed; "" without
	CA          string // file; "" for the system's CAs
	Certificate string // file for TLS, with Key; "" without
	Key         string
	Name        string // of the station, for the servers' log and for the inbox
}

// Conn is a connection to NATS, which is restored for ever. Its methods may be called by
// several goroutines.
type Conn struct {
	nc      *nats.Conn
	js      jetstream.JetStream
	log     hclog.Logger
	servers string // host and port of each

	mu        sync.Mutex // guards the fields that follow
	renewed   chan struct{}
	lastError error
}

// Connect returns a connection, perhaps one that is not made yet. An error is one of the
// options.
func Connect(o Options, log hclog.Logger) (*Conn, error) {
	c := &Conn{log: log, servers: hosts(o.URLs), renewed: make(chan struct{})}
	options := []nats.Option{
		nats.Name("callhome-nms " + o.Name), nats.CustomInboxPrefix("_INBOX." + o.Name),
		nats.MaxReconnects(-1), nats.RetryOnFailedConnect(true), nats.ReconnectWait(time.Second), nats.ReconnectJitter(time.Second, time.Second),
		// A write must not be sent later than its caller waits for it.
		nats.ReconnectBufSize(-1),
		nats.Timeout(3 * time.Second), nats.PingInterval(2 * time.Second), nats.MaxPingsOutstanding(2),
		nats.ConnectHandler(c.connected), nats.ReconnectHandler(c.connected),
		nats.DisconnectErrHandler(func(nc *nats.Conn, err error) { c.failed(nc, "disconnected", err) }),
		nats.ReconnectErrHandler(func(nc *nats.Conn, err error) { c.failed(nc, "cannot connect", err) }),
		nats.ErrorHandler(func(nc *nats.Conn, _ *nats.Subscription, err error) { c.failed(nc, "", err) }),
	}
	if o.Credentials != "" {
		options = append(options, nats.UserCredentials(o.Credentials))
	}
	if o.CA != "" {
		options = append(options, nats.RootCAs(o.CA))
	}
	if o.Certificate != "" {
		options = append(options, nats.ClientCert(o.Certificate, o.Key))
	}
	var err error
	if c.nc, err = nats.Connect(strings.Join(o.URLs, ","), options...); err != nil {
		return nil, fmt.Errorf("connecting to NATS: %w", err) // an address may have a password
	}
	if c.js, err = jetstream.New(c.nc, jetstream.WithDefaultTimeout(callTime)); err != nil {
		c.nc.Close()
		return nil, fmt.Errorf("connecting to NATS: %w", err)
	}
	return c, nil
}

// hosts are the servers of URLs, without a user and password.
func hosts(urls []string) string {
	names := make([]string, 0, len(urls))
	for _, one := range urls {
		_, name, found := strings.Cut(one, "://")
		if !found {
			name = one
		}
		names = append(names, printable.Line(name[strings.LastIndex(name, "@")+1:]))
	}
	return strings.Join(names, ", ")
}

// Close closes the connection.
func (c *Conn) Close() { c.nc.Close() }

func (c *Conn) connected(nc *nats.Conn) {
	c.mu.Lock()
	close(c.renewed)
	c.renewed, c.lastError = make(chan struct{}), nil
	c.mu.Unlock()
	c.log.Info("connected to NATS", "server", nc.ConnectedUrlRedacted())
}

// failed records an error. The log gets the first of a row.
func (c *Conn) failed(nc *nats.Conn, what string, err error) {
	if err == nil || nc.IsClosed() {
		return
	}
	c.mu.Lock()
	first := c.lastError == nil || c.lastError.Error() != err.Error()
	c.lastError = err
	c.mu.Unlock()
	if first {
		c.log.Warn("NATS: "+printable.Line(strings.TrimPrefix(what+": "+err.Error(), ": ")), "connected", nc.IsConnected())
	}
}

// Up returns why NATS cannot be used now, nil if it can.
func (c *Conn) Up() error {
	if c.nc.IsConnected() {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lastError != nil {
		return fmt.Errorf("NATS cannot be reached at %s: %w", c.servers, c.lastError)
	}
	return fmt.Errorf("NATS cannot be reached at %s", c.servers)
}

// renewal returns a channel that is closed with the next reconnection.
func (c *Conn) renewal() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.renewed
}

// Bucket is a key-value bucket.
type Bucket struct {
	conn *Conn
	name string
	kv   jetstream.KeyValue
	// stream is the bucket's.
	stream jetstream.Stream
	// TTL is how long the bucket keeps a value; 0 for ever.
	TTL time.Duration
	// Created is different for another bucket of the same name.
	Created time.Time
}

// Open opens a bucket that exists.
func (c *Conn) Open(ctx context.Context, name string) (*Bucket, error) {
	fail := func(err error) (*Bucket, error) { return nil, fmt.Errorf("opening the bucket %s: %w", name, err) }
	if err := c.Up(); err != nil {
		return fail(err)
	}
	kv, err := c.js.KeyValue(ctx, name)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		return fail(fmt.Errorf("%w: `callhome-nms cluster buckets` creates the buckets of a cluster", err))
	}
	if err != nil {
		return fail(err)
	}
	stream, err := c.js.Stream(ctx, "KV_"+name)
	if err != nil {
		return fail(err)
	}
	info := stream.CachedInfo()
	if info.Config.AllowDirect {
		// A read would be answered by any server, with a value that may be old.
		return fail(errors.New("it allows direct reads: set allow_direct of its stream to false"))
	}
	if info.Config.MaxBytes <= 0 {
		c.log.Warn("a bucket has no bound, a station may fill the servers' disks: `callhome-nms cluster buckets` gives it one", "bucket", name)
	}
	return &Bucket{conn: c, name: name, kv: kv, stream: stream, TTL: info.Config.MaxAge, Created: info.Created}, nil
}

// createdNow returns when the bucket was created that has the name now: perhaps since this
// one was opened.
func (b *Bucket) createdNow(ctx context.Context) (created time.Time, err error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	err = b.often(ctx, func(ctx context.Context) (bool, error) {
		info, err := b.stream.Info(ctx)
		if err == nil {
			created = info.Created
		}
		return false, err
	})
	if err != nil {
		return created, fmt.Errorf("asking when the bucket %s was created: %w", b.name, err)
	}
	return created, nil
}

// Up returns why NATS cannot be used now, nil if it can.
func (b *Bucket) Up() error { return b.conn.Up() }

// KeyOf returns the key of a device: its id, with slashes for dots, which separate the
// parts of a key.
func KeyOf(id string) string { return strings.ReplaceAll(id, ".", "/") }

// IDOf returns the id of the device whose key that is.
func IDOf(key string) string { return strings.ReplaceAll(key, "/", ".") }

// Value is what a bucket has for a key.
type Value struct {
	Data     []byte
	Revision uint64 // 0: the key has no value
	Deleted  bool
	Created  time.Time
	// Pending is how many further values a watch has for its Watcher: 0 where this one
	// is the last of the bucket.
	Pending uint64
}

// bounded returns ctx with an end.
func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, callTime)
}

// often calls try until it succeeds, its error is final, or ctx ends. While the servers
// elect a leader a request is lost.
func (b *Bucket) often(ctx context.Context, try func(context.Context) (final bool, err error)) error {
	for {
		limited, cancel := context.WithTimeout(ctx, tryTime)
		final, err := try(limited)
		cancel()
		if why := refused(err); why != nil {
			return why
		}
		if err == nil || final || ctx.Err() != nil || b.conn.Up() != nil {
			return err
		}
		select { // where an error comes at once
		case <-ctx.Done():
		case <-time.After(tryTime / 10):
		}
	}
}

// Get reads a key from the leader of the bucket's stream.
func (b *Bucket) Get(ctx context.Context, key string) (v Value, err error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	err = b.often(ctx, func(ctx context.Context) (bool, error) {
		v, err = b.get(ctx, key)
		return false, err
	})
	if err != nil {
		return Value{}, b.fail("reading", key, err)
	}
	return v, nil
}

func (b *Bucket) get(ctx context.Context, key string) (Value, error) {
	e, err := b.kv.Get(ctx, key)
	switch {
	case errors.Is(err, jetstream.ErrKeyNotFound):
		return Value{}, nil
	case err != nil:
		return Value{}, err
	}
	return Value{Data: e.Value(), Revision: e.Revision(), Created: e.Created()}, nil
}

func (b *Bucket) fail(what, key string, err error) error {
	if up := b.conn.Up(); up != nil {
		err = up
	}
	return fmt.Errorf("%s %q in the bucket %s: %w", what, key, b.name, err)
}

// refused returns why NATS will never take a write, nil where it may.
func refused(err error) error {
	const storeFailed = 10077 // and why, as text
	var api *jetstream.APIError
	switch {
	case errors.Is(err, jetstream.ErrStreamMessageExceedsMaximum):
		return errors.New("the value is too large for the bucket")
	case errors.As(err, &api) && api.ErrorCode == storeFailed && strings.Contains(api.Description, "maximum bytes"):
		return errFull
	}
	return nil
}

// Put writes a key whose revision is expected to be that; 0 for a key that does not
// exist. It returns the new revision. With ErrConflict another write was first. After
// another error it is unknown whether the write was or will be done; it was not if the
// key is read later with another value.
func (b *Bucket) Put(ctx context.Context, key string, data []byte, expected uint64) (revision uint64, err error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	err = b.often(ctx, func(limited context.Context) (bool, error) {
		var err error
		revision, err = b.kv.Update(limited, key, data, expected)
		if err == nil || !errors.Is(err, jetstream.ErrKeyRevisionMismatch) {
			return false, err
		}
		// An acknowledgement may be lost, and a conflict be one with this very write. To
		// write once more is safe: of two writes that expect one revision, one is done.
		limited, cancel := context.WithTimeout(ctx, tryTime)
		defer cancel()
		v, err := b.get(limited, key)
		switch {
		case err != nil:
			return false, err
		case v.Revision > expected && bytes.Equal(v.Data, data):
			revision = v.Revision
			return true, nil
		case v.Revision == 0 && expected == 0: // it was deleted, which has a revision
			revision, err = b.kv.Create(limited, key, data)
			return false, err
		}
		return true, ErrConflict
	})
	if err != nil {
		return 0, b.fail("writing", key, err)
	}
	return revision, nil
}

// Delete deletes a key that has that revision. A key without a value is no error.
func (b *Bucket) Delete(ctx context.Context, key string, expected uint64) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	err := b.often(ctx, func(limited context.Context) (bool, error) {
		err := b.kv.Delete(limited, key, jetstream.LastRevision(expected))
		if err == nil || !errors.Is(err, jetstream.ErrKeyRevisionMismatch) {
			return false, err
		}
		limited, cancel := context.WithTimeout(ctx, tryTime)
		defer cancel()
		v, err := b.get(limited, key)
		if err == nil && v.Revision != 0 {
			return true, ErrConflict
		}
		return false, err
	})
	if err != nil {
		return b.fail("deleting", key, err)
	}
	return nil
}

// Publish adds a message to the stream of events. An id makes it one, should it be sent
// twice; it may be "".
func (c *Conn) Publish(ctx context.Context, subject, id string, data []byte) error {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	var options []jetstream.PublishOpt
	if id != "" {
		options = append(options, jetstream.WithMsgID(id))
	}
	if _, err := c.js.Publish(ctx, subject, data, options...); err != nil {
		return fmt.Errorf("publishing to %s: %w", subject, err)
	}
	return nil
}
