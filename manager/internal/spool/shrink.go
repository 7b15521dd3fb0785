package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"go.etcd.io/bbolt"
	"go.uber.org/zap"
)

const (
	// shrinkSuffix names the file that is to replace the spool. One that a kill
	// left behind is of no use.
	shrinkSuffix = ".new"
	// A file below minShrink bytes is not worth the writing, nor one of which
	// the records take more than a quarter.
	minShrink   = 16 << 20
	minUsedPart = 4
	// shrinkBytes bounds one transaction of the copy.
	shrinkBytes = 4 << 20
)

// wasteful tells whether a file is much larger than what it holds: bbolt uses
// pages again that have become free, but never gives them back.
func wasteful(path string, st state) bool {
	info, err := os.Stat(path)
	return err == nil && info.Size() >= minShrink && (st.waiting.bytes+st.quarantined.bytes)*minUsedPart < info.Size()
}

// shrink copies the records to a new file that takes the place of the old one,
// which stays as long as that has not worked: without room on the disk, for
// example. The old file's lock is held until then, and who waits for it finds
// out that it is no longer the spool.
func shrink(old *bbolt.DB, st state, cfg Config, log *zap.Logger) (*bbolt.DB, state, error) {
	if err := replace(old, cfg.Path); err != nil {
		log.Warn("spool keeps its size", zap.Error(err))
		return old, st, nil
	}
	if err := old.Close(); err != nil {
		return nil, state{}, fmt.Errorf("close spool that was replaced: %w", err)
	}
	return openFile(cfg)
}

func replace(old *bbolt.DB, path string) error {
	next := path + shrinkSuffix
	if err := os.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove left-over: %w", err)
	}
	err := copyTo(old, next)
	if err == nil {
		err = os.Rename(next, path)
	}
	if err != nil {
		_ = os.Remove(next)
		return fmt.Errorf("write spool anew: %w", err)
	}
	// Opening the new file syncs the directory. Until that has happened a power
	// cut brings the old one back, which holds the same.
	return nil
}

// copyTo returns when the copy is on disk.
func copyTo(old *bbolt.DB, path string) error {
	db, err := openDB(path, bbolt.Options{FreelistType: bbolt.FreelistMapType, NoStatistics: true})
	if err != nil {
		return err
	}
	err = guard(func() error { return bbolt.Compact(db, old, shrinkBytes) })
	return errors.Join(err, guard(db.Close))
}
