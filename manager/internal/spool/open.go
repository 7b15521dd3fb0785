package spool

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
	"go.uber.org/zap"

	"honeysens.org/dockersensor/shared/event"
)

// damagedSuffix names the file that was put aside; only the last one is kept.
const damagedSuffix = ".damaged"

// openChecked opens the file and reads all of it, and begins a new one when that
// does not work. A file that is mostly empty is written anew.
func openChecked(cfg Config, log *zap.Logger) (*bbolt.DB, state, error) {
	db, st, err := openFile(cfg)
	if err == nil && wasteful(cfg.Path, st) {
		return shrink(db, st, cfg, log)
	}
	if err == nil || !isDamage(err) {
		return db, st, err
	}
	aside := cfg.Path + damagedSuffix
	log.Error("spool is damaged and put aside", zap.String("path", aside), zap.Error(err))
	if err := os.Rename(cfg.Path, aside); err != nil {
		return nil, state{}, fmt.Errorf("put damaged spool aside: %w", err)
	}
	if db, st, err = openFile(cfg); err != nil {
		return nil, state{}, err
	}
	taken, err := takeOver(db, &st, cfg, aside)
	if err != nil {
		_ = db.Close()
		return nil, state{}, err
	}
	log.Warn("events taken over from the damaged spool", zap.Int("count", taken))
	return db, st, nil
}

// isDamage tells a broken file from one that cannot be had at the moment: for
// that there are errors of the kernel, and the lock of another process.
func isDamage(err error) bool {
	var path *fs.PathError
	var errno syscall.Errno
	return !errors.As(err, &path) && !errors.As(err, &errno) && !errors.Is(err, errLocked)
}

var errLocked = errors.New("another process has it: only one manager may run on a state directory")

// openFile opens a file, syncs its directory entry, and counts what is there.
func openFile(cfg Config) (*bbolt.DB, state, error) {
	db, err := openDB(cfg.Path, bbolt.Options{
		Timeout:      cfg.LockTimeout,
		FreelistType: bbolt.FreelistMapType,
		NoStatistics: true,
		// Mapped at once, the file can grow without waiting for readers.
		InitialMmapSize: int(2 * cfg.MaxBytes),
	})
	if err != nil {
		return nil, state{}, err
	}
	st, err := check(db, cfg)
	if err == nil {
		err = syncDir(filepath.Dir(cfg.Path))
	}
	if err != nil {
		_ = guard(db.Close)
		return nil, state{}, err
	}
	return db, st, nil
}

// check reads all of a file. It writes only to a new one, so that a full disk
// does not keep the events from going out.
func check(db *bbolt.DB, cfg Config) (st state, err error) {
	isNew := false
	err = guard(func() error {
		return db.View(func(tx *bbolt.Tx) error {
			if err := complete(tx, cfg.Path); err != nil {
				return err
			}
			if isNew = tx.Bucket(metaBucket) == nil; isNew {
				return nil
			}
			st, err = count(tx)
			return err
		})
	})
	if err != nil || !isNew {
		return st, err
	}
	return st, guard(func() error {
		return db.Update(func(tx *bbolt.Tx) error {
			_, err := begin(tx, &cfg, state{})
			return err
		})
	})
}

// openDB closes the file also when bbolt gives up in a panic, since the lock is
// on it.
func openDB(path string, options bbolt.Options) (*bbolt.DB, error) {
	var file *os.File
	options.OpenFile = func(name string, flag int, mode os.FileMode) (*os.File, error) {
		var err error
		file, err = os.OpenFile(name, flag, mode)
		return file, err
	}
	var db *bbolt.DB
	err := guard(func() (err error) {
		db, err = bbolt.Open(path, 0o600, &options)
		return err
	})
	if err == nil && !current(file, path) {
		// It was replaced while this process waited for the lock on the old one.
		_ = db.Close()
		return nil, errLocked
	}
	if err == nil {
		return db, nil
	}
	if file != nil {
		_ = file.Close()
	}
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, errLocked
	}
	return nil, err
}

// current tells whether a path still leads to a file.
func current(file *os.File, path string) bool {
	opened, err := file.Stat()
	if err != nil {
		return false
	}
	there, err := os.Stat(path)
	return err == nil && os.SameFile(opened, there)
}

// complete refuses a file that was cut.
func complete(tx *bbolt.Tx, path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.Size() < tx.Size() {
		return fmt.Errorf("%w: %d bytes of %d are left", errDamaged, info.Size(), tx.Size())
	}
	return nil
}

// count reads every record.
func count(tx *bbolt.Tx) (state, error) {
	var st state
	for _, part := range []struct {
		bucket *bbolt.Bucket
		shelf  *shelf
	}{{tx.Bucket(eventsBucket), &st.waiting}, {tx.Bucket(quarantineBucket), &st.quarantined}} {
		if part.bucket == nil {
			return state{}, fmt.Errorf("%w: a bucket is missing", errDamaged)
		}
		err := part.bucket.ForEach(func(k, v []byte) error {
			if _, err := decodeRecord(idOf(k), v); err != nil {
				return err
			}
			part.shelf.add(idOf(k), v)
			return nil
		})
		if err != nil {
			return state{}, err
		}
	}
	if encoded := tx.Bucket(metaBucket).Get(savedKey); encoded != nil {
		if err := json.Unmarshal(encoded, &st.saved); err != nil {
			return state{}, fmt.Errorf("decode losses: %w", err)
		}
	}
	return st, nil
}

// takeOver copies what can be read of a damaged file into a new one, those in
// quarantine too: they get another try. Reading a bucket ends where bbolt does;
// a record with a wrong checksum is left out.
func takeOver(db *bbolt.DB, st *state, cfg Config, damaged string) (taken int, err error) {
	err = update(db, st, cfg, func(t *txn) error {
		t.addLoss(whyDamaged, 0, time.Now())
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("note damage: %w", err)
	}
	old, openErr := openDB(damaged, bbolt.Options{ReadOnly: true, Timeout: cfg.LockTimeout})
	if openErr != nil {
		// Nothing of it can be read; the loss is noted.
		return 0, nil
	}
	defer func() { _ = guard(old.Close) }()
	for _, bucket := range [][]byte{quarantineBucket, eventsBucket} {
		n, err := takeOverBucket(db, st, cfg, old, bucket)
		if taken += n; err != nil {
			return taken, fmt.Errorf("take over events of damaged spool: %w", err)
		}
	}
	return taken, nil
}

func takeOverBucket(db *bbolt.DB, st *state, cfg Config, old *bbolt.DB, bucket []byte) (taken int, err error) {
	for next := uint64(0); ; {
		var records []event.Record
		records, next = readable(old, bucket, next)
		if err := update(db, st, cfg, func(t *txn) error { return t.appendAll(records) }); err != nil {
			return taken, err
		}
		taken += len(records)
		if next == 0 {
			return taken, nil
		}
	}
}

// update is a transaction before there is a Spool.
func update(db *bbolt.DB, st *state, cfg Config, fn func(*txn) error) error {
	before := st.clone()
	return guard(func() error {
		return db.Update(func(tx *bbolt.Tx) error {
			t, err := begin(tx, &cfg, before.clone())
			if err != nil {
				return err
			}
			if err := fn(t); err != nil {
				return err
			}
			*st = t.state
			return t.end(before)
		})
	})
}

func (t *txn) appendAll(records []event.Record) error {
	for _, r := range records {
		encoded, err := encodeRecord(r)
		if err != nil {
			continue
		}
		if _, err := t.append(encoded); err != nil {
			return err
		}
	}
	return nil
}

// readable returns some records, from an id on, and the id to go on with: zero
// at the end, or where an error or a panic ends the reading.
func readable(db *bbolt.DB, name []byte, from uint64) (records []event.Record, next uint64) {
	var reached uint64
	err := guard(func() error {
		return db.View(func(tx *bbolt.Tx) error {
			bucket := tx.Bucket(name)
			if bucket == nil {
				return nil
			}
			size := 0
			cursor := bucket.Cursor()
			for k, v := cursor.Seek(key(from)); k != nil; k, v = cursor.Next() {
				if size += len(v); size > maxOpsBytes && len(records) > 0 {
					reached = idOf(k)
					return nil
				}
				if r, err := decodeRecord(idOf(k), v); err == nil {
					records = append(records, r)
				}
			}
			return nil
		})
	})
	// A damaged tree may lead backwards.
	if err != nil || reached <= from {
		return records, 0
	}
	return records, reached
}

// syncDir makes the name of a new file last.
func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	if err := dir.Sync(); err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	return nil
}
