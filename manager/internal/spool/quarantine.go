package spool

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"go.etcd.io/bbolt"

	"honeysens.org/dockersensor/shared/event"
)

// maxReason bounds a reason, in bytes; it may quote the server.
const maxReason = 500

// Quarantined is an event that was set aside.
type Quarantined struct {
	event.Record
	// Reason is for people, Since is when it was set aside.
	Reason string
	Since  time.Time
}

type reasonJSON struct {
	Reason string    `json:"reason"`
	Since  time.Time `json:"since"`
}

// Quarantine sets an event aside so that it no longer holds up the others. An
// id that is gone already does not matter.
func (s *Spool) Quarantine(ctx context.Context, id uint64, reason string) error {
	if len(reason) > maxReason {
		reason = reason[:maxReason]
	}
	encoded, err := json.Marshal(reasonJSON{Reason: reason, Since: time.Now().UTC()})
	if err != nil {
		return fmt.Errorf("quarantine event %d: %w", id, err)
	}
	err = s.do(ctx, 0, func(t *txn) error {
		record, err := t.take(t.events, &t.waiting, id)
		if err != nil || record == nil {
			return err
		}
		return t.setAside(id, record, encoded)
	})
	if err != nil {
		return fmt.Errorf("quarantine event %d: %w", id, err)
	}
	return nil
}

func (t *txn) setAside(id uint64, record, reason []byte) error {
	if err := t.makeRoom(t.quarantine, &t.quarantined, int64(len(record)), t.cfg.MaxQuarantine, whyQuarantine); err != nil {
		return err
	}
	if err := t.quarantine.Put(key(id), record); err != nil {
		return fmt.Errorf("put record: %w", err)
	}
	if err := t.reasons.Put(key(id), reason); err != nil {
		return fmt.Errorf("put reason: %w", err)
	}
	t.quarantined.add(id, record)
	return nil
}

// ListQuarantine returns the events that were set aside, oldest first, at most
// n.
func (s *Spool) ListQuarantine(n int) ([]Quarantined, error) {
	var list []Quarantined
	err := guard(func() error {
		return s.db.View(func(tx *bbolt.Tx) error {
			reasons := tx.Bucket(reasonsBucket)
			cursor := tx.Bucket(quarantineBucket).Cursor()
			for k, v := cursor.First(); k != nil && len(list) < n; k, v = cursor.Next() {
				r, err := decodeRecord(idOf(k), v)
				if err != nil {
					return err
				}
				var reason reasonJSON
				if err := json.Unmarshal(reasons.Get(k), &reason); err != nil {
					reason.Reason = "unknown"
				}
				list = append(list, Quarantined{Record: r, Reason: reason.Reason, Since: reason.Since})
			}
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("list quarantine: %w", err)
	}
	return list, nil
}

// RetryQuarantine lets events go to the server again, behind those that wait:
// the ones named, or all. It returns how many these are.
func (s *Spool) RetryQuarantine(ctx context.Context, ids ...uint64) (int, error) {
	moved := 0
	err := s.do(ctx, 0, func(t *txn) error {
		moved = 0
		wanted := ids
		if len(wanted) == 0 {
			wanted = allIDs(t.quarantine)
		}
		for _, id := range wanted {
			found, err := t.release(id)
			if err != nil {
				return err
			}
			if found {
				moved++
			}
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("retry quarantine: %w", err)
	}
	return moved, nil
}

func (t *txn) release(id uint64) (bool, error) {
	record, err := t.take(t.quarantine, &t.quarantined, id)
	if err != nil || record == nil {
		return false, err
	}
	if err := t.reasons.Delete(key(id)); err != nil {
		return false, fmt.Errorf("delete reason: %w", err)
	}
	_, err = t.append(record)
	return true, err
}

func allIDs(bucket *bbolt.Bucket) []uint64 {
	var ids []uint64
	cursor := bucket.Cursor()
	for k, _ := cursor.First(); k != nil; k, _ = cursor.Next() {
		ids = append(ids, idOf(k))
	}
	return ids
}
