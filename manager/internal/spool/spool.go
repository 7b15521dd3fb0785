package spool

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	"go.uber.org/zap"

	"honeysens.org/dockersensor/shared/event"
)

// Config says where the spool is and how much it may hold.
type Config struct {
	// Path is the file; its directory must exist.
	Path string
	// MaxBytes bounds the events that wait; 256 MiB when zero. The file is some
	// tenths larger.
	MaxBytes int64
	// MaxQuarantine bounds the events that the server refused; 16 MiB when
	// zero.
	MaxQuarantine int64
	// LockTimeout is how long Open waits for another process to let go; two
	// seconds when zero.
	LockTimeout time.Duration
}

func (cfg Config) withDefaults() Config {
	if cfg.MaxBytes <= 0 {
		cfg.MaxBytes = 256 << 20
	}
	if cfg.MaxQuarantine <= 0 {
		cfg.MaxQuarantine = 16 << 20
	}
	if cfg.LockTimeout <= 0 {
		cfg.LockTimeout = 2 * time.Second
	}
	return cfg
}

// ErrClosed says that the spool was closed before the call.
var ErrClosed = errors.New("spool is closed")

// Spool is safe for concurrent use. The invariants are those of the package.
type Spool struct {
	cfg Config
	log *zap.Logger
	db  *bbolt.DB

	ops     chan *op
	quit    chan struct{}
	stopped chan struct{}
	wake    chan struct{}
	close   sync.Once

	mu sync.Mutex
	// state is what the last transaction left behind.
	state state
	// problem is why the last transaction did not work, or empty.
	problem string
}

// Open opens or makes a spool and checks every event in it. It returns an error
// when another process has it, or when the disk cannot be written; a damaged
// file is put aside.
func Open(cfg Config, log *zap.Logger) (*Spool, error) {
	cfg = cfg.withDefaults()
	db, st, err := openChecked(cfg, log)
	if err != nil {
		return nil, fmt.Errorf("open spool %s: %w", cfg.Path, err)
	}
	s := &Spool{
		cfg: cfg, log: log, db: db, state: st,
		ops: make(chan *op), quit: make(chan struct{}), stopped: make(chan struct{}),
		wake: make(chan struct{}, 1),
	}
	if st.waiting.count > 0 {
		s.wake <- struct{}{}
	}
	go s.run()
	return s, nil
}

// Close ends the spool after the transactions that have begun.
func (s *Spool) Close() error {
	s.close.Do(func() { close(s.quit) })
	<-s.stopped
	if err := s.db.Close(); err != nil {
		return fmt.Errorf("close spool: %w", err)
	}
	return nil
}

// Wake receives after events were added; several additions may be one signal.
func (s *Spool) Wake() <-chan struct{} { return s.wake }

// Append keeps an event and returns its id once it is synced to disk. When the
// spool is full the oldest events make room. When ctx ends first it is not known
// whether the event was kept.
func (s *Spool) Append(ctx context.Context, r event.Record) (uint64, error) {
	encoded, err := encodeRecord(r)
	if err != nil {
		return 0, fmt.Errorf("append event: %w", err)
	}
	var id uint64
	err = s.do(ctx, len(encoded), func(t *txn) (err error) {
		id, err = t.append(encoded)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("append event: %w", err)
	}
	return id, nil
}

// Peek returns the oldest events, except those to skip: at most n, and at most
// maxBytes of them unless the first alone is larger. They stay in the spool.
func (s *Spool) Peek(ctx context.Context, n, maxBytes int, skip func(id uint64) bool) ([]event.Record, error) {
	var records []event.Record
	var damaged []uint64
	err := guard(func() error {
		return s.db.View(func(tx *bbolt.Tx) error {
			size := 0
			cursor := tx.Bucket(eventsBucket).Cursor()
			for k, v := cursor.First(); k != nil && len(records) < n; k, v = cursor.Next() {
				id := idOf(k)
				if skip != nil && skip(id) {
					continue
				}
				r, err := decodeRecord(id, v)
				if err != nil {
					damaged = append(damaged, id)
					continue
				}
				if size += len(r.Event); size > maxBytes && len(records) > 0 {
					break
				}
				records = append(records, r)
			}
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("peek at events: %w", err)
	}
	if len(damaged) > 0 {
		s.log.Error("events in the spool are damaged", zap.Int("count", len(damaged)))
		if err := s.do(ctx, 0, func(t *txn) error { return t.dropDamaged(damaged) }); err != nil {
			return nil, fmt.Errorf("drop damaged events: %w", err)
		}
	}
	return records, nil
}

// Ack removes events that the server has. Ids that are gone already do not
// matter.
func (s *Spool) Ack(ctx context.Context, ids ...uint64) error {
	err := s.do(ctx, 0, func(t *txn) error {
		for _, id := range ids {
			if _, err := t.take(t.events, &t.waiting, id); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("acknowledge %d events: %w", len(ids), err)
	}
	return nil
}

// ReportLosses gives the losses that nobody has been told of to render, and puts
// the event that it returns in their place, in one transaction. It returns
// false when there are none.
func (s *Spool) ReportLosses(ctx context.Context, render func([]event.Loss) (event.Record, error)) (bool, error) {
	if len(s.snapshot().Losses) == 0 {
		return false, nil
	}
	reported := false
	err := s.do(ctx, 0, func(t *txn) error {
		reported = len(t.Losses) > 0
		if !reported {
			return nil
		}
		r, err := render(t.Losses)
		if err != nil {
			return err
		}
		encoded, err := encodeRecord(r)
		if err != nil {
			return err
		}
		t.Losses = nil
		_, err = t.put(encoded)
		return err
	})
	if err != nil {
		return false, fmt.Errorf("report losses: %w", err)
	}
	return reported, nil
}

// Stats is what there is to know about the spool. Sizes are in bytes.
type Stats struct {
	Waiting         int
	WaitingBytes    int64
	MaxBytes        int64
	Quarantined     int
	QuarantineBytes int64
	// Lost counts events over the whole life of the spool.
	Lost uint64
	// Unreported are losses that the server has not been told of.
	Unreported []event.Loss
	// Oldest is when the oldest waiting event was received, or zero.
	Oldest time.Time
	// Problem is why events cannot be kept at the moment, or empty.
	Problem string
}

// Stats returns the numbers of this moment.
func (s *Spool) Stats() Stats {
	st := s.snapshot()
	s.mu.Lock()
	problem := s.problem
	s.mu.Unlock()
	stats := Stats{
		Waiting: st.waiting.count, WaitingBytes: st.waiting.bytes, MaxBytes: s.cfg.MaxBytes,
		Quarantined: st.quarantined.count, QuarantineBytes: st.quarantined.bytes,
		Lost: st.Lost, Unreported: st.Losses, Problem: problem,
	}
	err := guard(func() error {
		return s.db.View(func(tx *bbolt.Tx) error {
			if _, v := tx.Bucket(eventsBucket).Cursor().First(); v != nil {
				stats.Oldest = receivedTime(v)
			}
			return nil
		})
	})
	if err != nil && stats.Problem == "" {
		stats.Problem = err.Error()
	}
	return stats
}

func (s *Spool) snapshot() state {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state.clone()
}
