package report

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap/zaptest"

	"honeysens.org/dockersensor/shared/event"
)

// collector answers by a script, then with ok.
type collector struct {
	script []func(ctx context.Context) ([]byte, error)
	got    []string
	calls  int
}

func (c *collector) send(ctx context.Context, body []byte) ([]byte, error) {
	c.calls++
	if len(c.script) > 0 {
		step := c.script[0]
		c.script = c.script[1:]
		return step(ctx)
	}
	var e event.Event
	if err := json.Unmarshal(body, &e); err != nil {
		return nil, err
	}
	c.got = append(c.got, e.Summary)
	return []byte(`{"status": "ok"}`), nil
}

func away(context.Context) ([]byte, error) { return nil, errors.New("connection refused") }

func neverThere(ctx context.Context, _ []byte) ([]byte, error) { return away(ctx) }

func hangs(ctx context.Context) ([]byte, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func refuses(context.Context) ([]byte, error) { return []byte(`{"status": "error"}`), nil }

func TestDelivery(t *testing.T) {
	tests := []struct {
		name    string
		script  []func(context.Context) ([]byte, error)
		want    []string
		dropped uint64
		atLeast time.Duration
	}{
		{name: "at once", want: []string{"a", "b"}},
		{name: "collector away", script: []func(context.Context) ([]byte, error){away, away, away}, want: []string{"a", "b"}, atLeast: 7 * time.Second},
		{name: "collector hangs", script: []func(context.Context) ([]byte, error){hangs}, want: []string{"a", "b"}, atLeast: 11 * time.Second},
		{name: "refused for a while", script: []func(context.Context) ([]byte, error){refuses, refuses}, want: []string{"a", "b"}},
		{name: "refused for ever", script: []func(context.Context) ([]byte, error){refuses, refuses, refuses, refuses, refuses}, want: []string{"b"}, dropped: 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &collector{script: test.script}
				r := New(Config{}, c.send, zaptest.NewLogger(t))
				r.Put(event.Event{Summary: "a"})
				r.Put(event.Event{Summary: "b"})
				r.Close()
				begin := time.Now()
				r.Run(t.Context())
				if diff := cmp.Diff(test.want, c.got); diff != "" {
					t.Error(diff)
				}
				if took := time.Since(begin); took < test.atLeast {
					t.Errorf("no back-off: took %s", took)
				}
				if r.Dropped() != test.dropped {
					t.Errorf("dropped %d", r.Dropped())
				}
			})
		})
	}
}

func TestQueueIsBounded(t *testing.T) {
	r := New(Config{Queue: 10}, neverThere, zaptest.NewLogger(t))
	for range 100 {
		r.Put(event.Event{})
	}
	if r.Dropped() != 90 {
		t.Errorf("dropped %d of 90", r.Dropped())
	}
}

func TestQueueIsBoundedInBytes(t *testing.T) {
	r := New(Config{Bytes: 10_000}, neverThere, zaptest.NewLogger(t))
	for range 100 {
		r.Put(event.Event{Summary: strings.Repeat("x", 900)})
	}
	if got := r.Dropped(); got < 89 || got > 95 || r.bytes.Load() > 10_000 {
		t.Errorf("dropped %d, %d bytes wait", got, r.bytes.Load())
	}
}

func TestEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		r := New(Config{}, neverThere, zaptest.NewLogger(t))
		r.Put(event.Event{})
		r.Run(ctx)
	})
}
