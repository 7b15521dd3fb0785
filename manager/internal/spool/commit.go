package spool

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"

	"go.etcd.io/bbolt"
	"go.uber.org/zap"
)

// Bounds of what shares one sync.
const (
	maxOps      = 512
	maxOpsBytes = 8 << 20
)

// op is a part of a transaction that somebody waits for.
type op struct {
	fn   func(*txn) error
	size int
	done chan error
}

// do has fn run in a transaction and waits until that is on disk. fn may run
// twice.
func (s *Spool) do(ctx context.Context, size int, fn func(*txn) error) error {
	o := &op{fn: fn, size: size, done: make(chan error, 1)}
	select {
	case s.ops <- o:
	case <-s.quit:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-o.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// run is the only writer. What arrives while it waits for the disk shares the
// next transaction, so that producers share a sync without waiting for company.
func (s *Spool) run() {
	defer close(s.stopped)
	for {
		select {
		case first := <-s.ops:
			s.commitAll(s.gather(first))
		case <-s.quit:
			return
		}
	}
}

func (s *Spool) gather(first *op) []*op {
	ops, size := []*op{first}, first.size
	for len(ops) < maxOps && size < maxOpsBytes {
		select {
		case next := <-s.ops:
			ops = append(ops, next)
			size += next.size
		default:
			return ops
		}
	}
	return ops
}

// commitAll tries all in one transaction, and each alone when that fails: an
// acknowledgement must not fail because an event does not fit on the disk.
func (s *Spool) commitAll(ops []*op) {
	err := s.commit(ops)
	if err != nil && len(ops) > 1 {
		for _, o := range ops {
			o.done <- s.commit([]*op{o})
		}
		return
	}
	for _, o := range ops {
		o.done <- err
	}
}

func (s *Spool) commit(ops []*op) error {
	before := s.snapshot()
	var t *txn
	err := guard(func() error {
		return s.db.Update(func(tx *bbolt.Tx) (err error) {
			if t, err = begin(tx, &s.cfg, before.clone()); err != nil {
				return err
			}
			for _, o := range ops {
				if err := o.fn(t); err != nil {
					return err
				}
			}
			return t.end(before)
		})
	})
	s.settle(t, before, err)
	return err
}

// settle takes over what a transaction did.
func (s *Spool) settle(t *txn, before state, err error) {
	s.mu.Lock()
	had := s.problem
	if err != nil {
		s.problem = err.Error()
	} else {
		s.state, s.problem = t.state, ""
	}
	s.mu.Unlock()
	switch {
	case err != nil && had == "":
		s.log.Error("spool cannot be written", zap.Error(err))
	case err == nil && had != "":
		s.log.Info("spool can be written again")
	}
	if err != nil {
		return
	}
	if t.Lost > before.Lost && len(before.Losses) == 0 {
		s.log.Warn("spool loses events", zap.Any("losses", t.Losses))
	}
	if t.added {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

// errDamaged says that the file cannot be what was written.
var errDamaged = errors.New("spool is damaged")

// guard turns into an error what bbolt does with a damaged file: it panics, and
// where the mapped file cannot be read the processor faults.
func guard(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", errDamaged, p)
		}
	}()
	return fn()
}
