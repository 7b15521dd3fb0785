package collector

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"honeysens.org/dockersensor/shared/event"
)

// Config bounds what peers may do. Zero values get the defaults.
type Config struct {
	// AnyPeer takes events from addresses that nobody knows as well.
	AnyPeer bool
	// MaxConns bounds the connections in all, default 128.
	MaxConns int
	// MaxConnsPerSource bounds those of one address, default 16. Beyond that
	// the one that was idle for longest makes room.
	MaxConnsPerSource int
	// Rate is how many events a second one service may report in the long run; 0
	// for any number.
	Rate int
	// MaxMessage is in bytes, default 1 MiB.
	MaxMessage int
	// Handshake is the time for a handshake, default 5 s.
	Handshake time.Duration
	// Message is the time from the first byte of a message to its last, default
	// 10 s.
	Message time.Duration
	// Idle is how long a connection may be silent, default 1 h. A plug-in that
	// keeps its socket loses a request that crosses with the end of its
	// connection, so it is long.
	Idle time.Duration
	// Keep is the time for the sink to keep an event, default 10 s.
	Keep time.Duration
}

func (cfg Config) withDefaults() Config {
	setDefault(&cfg.MaxConns, 128)
	setDefault(&cfg.MaxConnsPerSource, 16)
	setDefault(&cfg.MaxMessage, 1<<20)
	setDefault(&cfg.Handshake, 5*time.Second)
	setDefault(&cfg.Message, 10*time.Second)
	setDefault(&cfg.Idle, time.Hour)
	setDefault(&cfg.Keep, 10*time.Second)
	return cfg
}

func setDefault[T int | time.Duration](value *T, to T) {
	if *value <= 0 {
		*value = to
	}
}

// Sink keeps events. When Append returns nil the event is safe.
type Sink interface {
	Append(ctx context.Context, r event.Record) (uint64, error)
}

// Identify returns the id of the service that has an address.
type Identify func(netip.Addr) (service string, ok bool)

// Collector can serve several listeners, one after the other or at once.
type Collector struct {
	cfg      Config
	sink     Sink
	identify Identify
	log      *zap.Logger

	counts counts
	marks  marks
	paces  paces

	mu      sync.Mutex
	sources map[netip.Addr]*source
	conns   int
}

type counts struct {
	accepted, rejected, failed, refused, broken, commands, tests atomic.Uint64
}

// Stats counts since the start.
type Stats struct {
	// Connections is of this moment.
	Connections int
	// Accepted are events that the sink has.
	Accepted uint64
	// Rejected are messages beyond repair.
	Rejected uint64
	// Failed are events that the sink could not keep.
	Failed uint64
	// Refused are connections of strangers, and those over a limit.
	Refused uint64
	// Broken are connections that ended by a violation of the protocol.
	Broken uint64
	// Commands are heartbeats, as a rule.
	Commands uint64
	// Tests are events of the sensor's own tests.
	Tests uint64
}

// The first log entries of a kind in a minute are written; a flood is counted in
// Stats only.
const logsPerMinute = 5

// New returns a collector that gives events to sink.
func New(cfg Config, sink Sink, identify Identify, log *zap.Logger) *Collector {
	sampled := zap.WrapCore(func(core zapcore.Core) zapcore.Core {
		return zapcore.NewSamplerWithOptions(core, time.Minute, logsPerMinute, 0)
	})
	return &Collector{
		cfg: cfg.withDefaults(), sink: sink, identify: identify, log: log.WithOptions(sampled),
		sources: map[netip.Addr]*source{},
	}
}

// Serve takes connections until ctx ends, and returns nil once all of them are
// closed; events that are being kept then still get their reply. It closes the
// listener, and returns an error when that is closed by somebody else.
func (c *Collector) Serve(ctx context.Context, listener net.Listener) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = listener.Close() })()
	for {
		raw, err := listener.Accept()
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept honeypots: %w", err)
		default:
			// Out of descriptors, as a rule: some will be closed.
			c.log.Warn("connection cannot be accepted", zap.Error(err))
			pause(ctx, 100*time.Millisecond)
			continue
		}
		if p := c.admit(raw); p != nil {
			wg.Go(func() {
				defer c.leave(p)
				c.serve(ctx, p)
			})
		}
	}
}

// Stats returns the numbers of this moment.
func (c *Collector) Stats() Stats {
	c.mu.Lock()
	conns := c.conns
	c.mu.Unlock()
	return Stats{
		Connections: conns,
		Accepted:    c.counts.accepted.Load(),
		Rejected:    c.counts.rejected.Load(),
		Failed:      c.counts.failed.Load(),
		Refused:     c.counts.refused.Load(),
		Broken:      c.counts.broken.Load(),
		Commands:    c.counts.commands.Load(),
		Tests:       c.counts.tests.Load(),
	}
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
