package services

import (
	"context"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"
)

const (
	// fetchTogether bounds how many images arrive at the same time.
	fetchTogether = 2
	// fetchRetry and fetchRetryMax are the pauses after an image that could not
	// be fetched; they double.
	fetchRetry    = 10 * time.Second
	fetchRetryMax = 10 * time.Minute
	// fetchTold is how often the progress is told while an image arrives.
	fetchTold = 5 * time.Second
	// fetchAgain is how long an image counts as the newest of its name.
	fetchAgain = time.Hour
)

// fetcher brings images in the background, so that a slow one holds up nothing.
type fetcher struct {
	images Images
	// wake is called when there is something new.
	wake func()
	log  *zap.Logger

	slots chan struct{}
	wg    sync.WaitGroup

	mu      sync.Mutex
	fetches map[string]*fetch
}

// fetch is one image.
type fetch struct {
	id, digest string
	err        error
	failures   int
	// next is when the registry is asked again.
	next        time.Time
	busy        bool
	done, total int64
	cancel      context.CancelFunc
}

func newFetcher(images Images, wake func(), log *zap.Logger) *fetcher {
	return &fetcher{images: images, wake: wake, log: log, slots: make(chan struct{}, fetchTogether), fetches: map[string]*fetch{}}
}

// want starts what is due for these images and gives up all others. It returns
// when something is due next.
func (f *fetcher) want(ctx context.Context, uris map[string]bool) time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	for uri, known := range f.fetches {
		if !uris[uri] {
			known.cancel()
			delete(f.fetches, uri)
		}
	}
	now := time.Now()
	var next time.Time
	for uri := range uris {
		known := f.fetches[uri]
		if known == nil {
			known = &fetch{cancel: func() {}}
			f.fetches[uri] = known
		}
		if !known.busy && !now.Before(known.next) {
			f.start(ctx, uri, known)
		}
		if known.busy {
			next = earlier(next, now.Add(fetchTold))
			continue
		}
		next = earlier(next, known.next)
	}
	return next
}

// start fetches in a goroutine; f.mu is held.
func (f *fetcher) start(ctx context.Context, uri string, known *fetch) {
	ctx, cancel := context.WithCancel(ctx)
	known.busy, known.cancel = true, cancel
	known.done, known.total = 0, 0
	f.wg.Go(func() {
		defer cancel()
		f.run(ctx, uri, known)
		f.wake()
	})
}

func (f *fetcher) run(ctx context.Context, uri string, known *fetch) {
	if id, digest, err := f.images.Present(ctx, uri); err == nil {
		// Good enough to start with, server or not.
		f.locked(func() { known.id, known.digest = id, digest })
		f.wake()
	}
	var id, digest string
	var err error
	select {
	case f.slots <- struct{}{}:
		id, digest, err = f.images.Ensure(ctx, uri, func(done, total int64) {
			f.locked(func() { known.done, known.total = done, total })
		})
		<-f.slots
	case <-ctx.Done():
		err = ctx.Err()
	}
	f.locked(func() { known.finish(id, digest, err) })
	if err != nil && ctx.Err() == nil {
		f.log.Warn("image is not there", zap.String("image", uri), zap.Error(err))
	}
}

// locked changes a fetch where the passes do not see it half done.
func (f *fetcher) locked(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (known *fetch) finish(id, digest string, err error) {
	known.busy, known.err = false, err
	if err != nil {
		known.next = time.Now().Add(backoff(fetchRetry, fetchRetryMax, known.failures))
		known.failures++
		return
	}
	known.id, known.digest, known.failures = id, digest, 0
	known.next = time.Now().Add(fetchAgain)
}

// get returns what is known of an image.
func (f *fetcher) get(uri string) (id, digest, waiting string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	known := f.fetches[uri]
	switch {
	case known == nil:
		return "", "", "waits for its image", nil
	case known.id != "":
		return known.id, known.digest, "", nil
	case known.busy && known.total > 0:
		return "", "", fmt.Sprintf("its image is fetched: %d of %d MB", known.done>>20, known.total>>20), nil
	case known.busy && known.err == nil:
		return "", "", "waits for its image", nil
	}
	return "", "", "", known.err
}

// settled tells whether every wanted image is there and none is on its way.
func (f *fetcher) settled() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, known := range f.fetches {
		if known.busy || known.id == "" {
			return false
		}
	}
	return true
}

// hurry makes images due that could not be fetched: the server is there again.
func (f *fetcher) hurry() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, known := range f.fetches {
		if known.err != nil {
			known.next = time.Time{}
		}
	}
}

// forget drops what is known of an image that turned out not to be there.
func (f *fetcher) forget(uri string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if known := f.fetches[uri]; known != nil && !known.busy {
		known.id, known.digest, known.next = "", "", time.Time{}
	}
}

// backoff returns the pause after that many failures.
func backoff(first, most time.Duration, failures int) time.Duration {
	pause := first
	for range min(failures, 20) {
		if pause *= 2; pause >= most {
			return most
		}
	}
	return min(pause, most)
}

// earlier returns the earlier of two times; unset ones are never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || (!b.IsZero() && b.Before(a)) {
		return b
	}
	return a
}
