package images

import (
	"context"
	"errors"
	"time"
)

// stallBytes must arrive within Limits.Stall. A slow line may take hours for an
// image; one that drips keeps other images from their turn, and loses nothing
// by going to the end of the queue.
const stallBytes = 64 << 10

var errStalled = errors.New("too little has arrived for too long, it goes on later")

// stallWatch cancels its context when too little has moved for a while.
type stallWatch struct {
	ctx    context.Context
	timer  *time.Timer
	period time.Duration
	mark   int64
}

func newStallWatch(ctx context.Context, period time.Duration) (*stallWatch, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &stallWatch{ctx: ctx, period: period, timer: time.AfterFunc(period, func() { cancel(errStalled) })}
	return w, func() {
		w.timer.Stop()
		cancel(context.Canceled)
	}
}

// begin starts to watch layers of which so many bytes are there already.
func (w *stallWatch) begin(done int64) {
	w.mark = done
	w.timer.Reset(w.period)
}

// moved tells how many bytes are there.
func (w *stallWatch) moved(done int64) {
	if done-w.mark >= stallBytes || done < w.mark {
		w.begin(done)
	}
}

// rest ends the watch for what takes its time elsewhere.
func (w *stallWatch) rest() { w.timer.Stop() }

// explain adds why the context was cancelled, when that is what happened.
func (w *stallWatch) explain(err error) error {
	if errors.Is(context.Cause(w.ctx), errStalled) {
		return errors.Join(errStalled, err)
	}
	return err
}
