package images

import (
	"context"
	"errors"
	"time"
)

// stallTimeout ends a fetch that makes no progress. A slow line may take hours
// for an image, a dead one may not.
const stallTimeout = 2 * time.Minute

var errStalled = errors.New("nothing has arrived for " + stallTimeout.String())

// stallWatch cancels its context when nothing has moved for a while.
type stallWatch struct {
	ctx   context.Context
	timer *time.Timer
}

func newStallWatch(ctx context.Context) (*stallWatch, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &stallWatch{ctx: ctx, timer: time.AfterFunc(stallTimeout, func() { cancel(errStalled) })}
	return w, func() {
		w.timer.Stop()
		cancel(context.Canceled)
	}
}

// moved tells that something has arrived. When that is all, what takes time is
// the engine's work, and nobody watches that.
func (w *stallWatch) moved(done, total int64) {
	if done >= total {
		w.timer.Stop()
		return
	}
	w.timer.Reset(stallTimeout)
}

// explain adds why the context was cancelled, when that is what happened.
func (w *stallWatch) explain(err error) error {
	if errors.Is(context.Cause(w.ctx), errStalled) {
		return errStalled
	}
	return err
}
