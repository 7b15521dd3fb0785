package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

// quiet is how long the sources rest before they are built: editors write a file
// in several steps, and a checkout many files.
const quiet = 150 * time.Millisecond

// follow runs the sensor, shows its log and brings changes into it, until ctx
// ends.
func follow(ctx context.Context, s *sensor, p *programs, archive string) error {
	changes, err := watch(p.root)
	if err != nil {
		return err
	}
	defer changes.Close()
	if err := s.start(ctx, archive); err != nil {
		return err
	}
	fmt.Fprintln(s.screen, "the development sensor runs; it follows the sources until Ctrl-C")
	ctx, cancel := context.WithCancelCause(ctx)
	var log sync.WaitGroup
	log.Go(func() { cancel(s.log(ctx)) })
	defer log.Wait()
	defer cancel(nil)
	for {
		first, err := next(ctx, changes)
		if err != nil {
			return errors.Join(err, context.Cause(ctx))
		}
		if err := update(ctx, s, p, first); err != nil {
			return err
		}
	}
}

// update builds and brings in what changed. Only what ends the program is an
// error: a mistake in the sources is not.
func update(ctx context.Context, s *sensor, p *programs, since time.Time) error {
	changed, err := p.build(ctx)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		fmt.Fprintln(s.screen, "dev: the sensor stays as it is:", err)
		return nil
	}
	if len(changed) == 0 {
		fmt.Fprintln(s.screen, "dev: no program of the sensor changed")
		return nil
	}
	done, err := s.bring(ctx, changed)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		fmt.Fprintln(s.screen, "dev:", err)
		return nil
	}
	fmt.Fprintf(s.screen, "dev: %s, %.1f s after the change\n", done, time.Since(since).Seconds())
	return nil
}

// watch watches all directories with sources.
func watch(root string) (*fsnotify.Watcher, error) {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("watch the sources: %w", err)
	}
	for _, dir := range []string{"manager", "nethelper", "cni", "shared", "packaging/image/init"} {
		if err := watchTree(watcher, filepath.Join(root, dir)); err != nil {
			return nil, errors.Join(fmt.Errorf("watch the sources: %w", err), watcher.Close())
		}
	}
	// go.mod and go.sum.
	if err := watcher.Add(root); err != nil {
		return nil, errors.Join(fmt.Errorf("watch the sources: %w", err), watcher.Close())
	}
	return watcher, nil
}

func watchTree(watcher *fsnotify.Watcher, dir string) error {
	return filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // gone again
		}
		if err != nil || !entry.IsDir() {
			return err
		}
		return watcher.Add(path)
	})
}

// next waits for a change of the sources, and then until they rest. It returns
// the time of the change.
func next(ctx context.Context, watcher *fsnotify.Watcher) (time.Time, error) {
	var first time.Time
	rest := time.NewTimer(0)
	rest.Stop()
	defer rest.Stop()
	for {
		select {
		case <-ctx.Done():
			return first, ctx.Err()
		case <-rest.C:
			return first, nil
		case err := <-watcher.Errors:
			// An overflow: something changed.
			if err != nil && !errors.Is(err, fsnotify.ErrEventOverflow) {
				return first, fmt.Errorf("watch the sources: %w", err)
			}
		case event := <-watcher.Events:
			if info, err := os.Stat(event.Name); err == nil && info.IsDir() && event.Has(fsnotify.Create) {
				if err := watchTree(watcher, event.Name); err != nil {
					return first, fmt.Errorf("watch the sources: %w", err)
				}
			} else if !matters(event) {
				continue
			}
		}
		if first.IsZero() {
			first = time.Now()
		}
		rest.Reset(quiet)
	}
}

// matters tells whether an event concerns a program: tests do not.
func matters(event fsnotify.Event) bool {
	if event.Op == fsnotify.Chmod {
		return false
	}
	name := filepath.Base(event.Name)
	switch {
	case name == "go.mod", name == "go.sum":
		return true
	case strings.HasPrefix(name, "."), strings.HasSuffix(name, "_test.go"):
		return false
	}
	// The network configuration of the honeypots is compiled in.
	return strings.HasSuffix(name, ".go") || strings.HasSuffix(name, ".conflist")
}
