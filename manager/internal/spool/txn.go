package spool

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"honeysens.org/dockersensor/shared/event"
)

// Why events are lost, for people.
const (
	whyFull       = "the spool was full"
	whyQuarantine = "the quarantine was full"
	whyDamaged    = "the spool was damaged"
)

// state belongs to a transaction: it is taken over when that is committed.
type state struct {
	waiting, quarantined shelf
	saved
}

// saved is the part of the state that cannot be counted again.
type saved struct {
	Lost   uint64       `json:"lost"`
	Losses []event.Loss `json:"losses"`
}

func (st state) clone() state {
	st.Losses = slices.Clone(st.Losses)
	st.waiting, st.quarantined = st.waiting.clone(), st.quarantined.clone()
	return st
}

// addLoss counts events that are gone; zero is an unknown number.
func (st *state) addLoss(why string, count uint64, received time.Time) {
	st.Lost += count
	at := slices.IndexFunc(st.Losses, func(l event.Loss) bool { return l.Why == why })
	if at < 0 {
		st.Losses = append(st.Losses, event.Loss{Why: why, Count: count, From: received, To: received})
		return
	}
	loss := &st.Losses[at]
	loss.Count += count
	if received.Before(loss.From) {
		loss.From = received
	}
	if received.After(loss.To) {
		loss.To = received
	}
}

// Buckets. Keys are ids, except in the last one.
var (
	eventsBucket     = []byte("events")
	quarantineBucket = []byte("quarantine")
	reasonsBucket    = []byte("reasons")
	metaBucket       = []byte("meta")
	savedKey         = []byte("saved")
)

// txn is one transaction: what it changes holds altogether or not at all.
type txn struct {
	cfg                               *Config
	events, quarantine, reasons, meta *bbolt.Bucket
	added                             bool
	state
}

// begin makes what is missing in a new file.
func begin(tx *bbolt.Tx, cfg *Config, st state) (*txn, error) {
	t := &txn{cfg: cfg, state: st}
	for name, bucket := range map[string]**bbolt.Bucket{
		string(eventsBucket): &t.events, string(quarantineBucket): &t.quarantine,
		string(reasonsBucket): &t.reasons, string(metaBucket): &t.meta,
	} {
		var err error
		if *bucket, err = tx.CreateBucketIfNotExists([]byte(name)); err != nil {
			return nil, fmt.Errorf("bucket %s: %w", name, err)
		}
	}
	// Ids only grow, so pages can be filled.
	t.events.FillPercent = 0.95
	return t, nil
}

// end writes what is not in the buckets.
func (t *txn) end(before state) error {
	if t.Lost == before.Lost && slices.Equal(t.Losses, before.Losses) {
		return nil
	}
	encoded, err := json.Marshal(t.saved)
	if err != nil {
		return fmt.Errorf("encode losses: %w", err)
	}
	return t.meta.Put(savedKey, encoded)
}

// append makes room and puts a record.
func (t *txn) append(encoded []byte) (uint64, error) {
	if err := t.makeRoom(t.events, &t.waiting, int64(len(encoded)), t.cfg.MaxBytes, whyFull); err != nil {
		return 0, err
	}
	return t.put(encoded)
}

// put adds a record over any limit.
func (t *txn) put(encoded []byte) (uint64, error) {
	id, err := t.events.NextSequence()
	if err != nil {
		return 0, fmt.Errorf("next id: %w", err)
	}
	if err := t.events.Put(key(id), encoded); err != nil {
		return 0, fmt.Errorf("put record: %w", err)
	}
	t.waiting.add(id, encoded)
	t.added = true
	return id, nil
}

// take removes a record and returns a copy, or nil when it is not there.
func (t *txn) take(from *bbolt.Bucket, count *shelf, id uint64) ([]byte, error) {
	value := from.Get(key(id))
	if value == nil {
		return nil, nil
	}
	value = slices.Clone(value)
	if err := from.Delete(key(id)); err != nil {
		return nil, fmt.Errorf("delete record: %w", err)
	}
	count.remove(value)
	return value, nil
}

// makeRoom drops records until another one fits, and counts them: each time the
// oldest of the origin that has most, so that who floods loses its own.
func (t *txn) makeRoom(bucket *bbolt.Bucket, count *shelf, need, limit int64, why string) error {
	for count.bytes+need > limit && count.count > 0 {
		id, ok := count.oldest(bucket, count.largest())
		if !ok {
			return fmt.Errorf("%w: records are missing", errDamaged)
		}
		record, err := t.take(bucket, count, id)
		if err != nil {
			return err
		}
		if err := t.reasons.Delete(key(id)); err != nil {
			return fmt.Errorf("drop reason of oldest record: %w", err)
		}
		t.addLoss(why, 1, receivedTime(record))
	}
	return nil
}

func (t *txn) dropDamaged(ids []uint64) error {
	for _, id := range ids {
		value, err := t.take(t.events, &t.waiting, id)
		if err != nil {
			return err
		}
		if value != nil {
			t.addLoss(whyDamaged, 1, time.Now())
		}
	}
	return nil
}
