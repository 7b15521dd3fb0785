// Package report brings events to the collector and waits for it as long as it
// takes: an event leaves the queue when the collector has answered. The queue is
// bounded; events that do not fit are counted and lost.
package report

import (
	"context"
	"encoding/json"
	"fmt"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"honeysens.org/dockersensor/shared/event"
)

// Send makes one request and returns the reply.
type Send func(ctx context.Context, body []byte) ([]byte, error)

// Config holds the limits. New sets those that are zero.
type Config struct {
	// Queue is the number of events that wait, Bytes what they take; 1024, 4 MiB.
	Queue int
	Bytes int64
	// Timeout bounds one request; 10 s.
	Timeout time.Duration
	// RetryMin and RetryMax bound the pause between two requests after one has
	// failed; 1 s and 30 s.
	RetryMin, RetryMax time.Duration
	// Refusals is how often the collector may refuse one event before it is
	// given up; 5.
	Refusals int
}

func (cfg Config) withDefaults() Config {
	if cfg.Queue == 0 {
		cfg.Queue = 1024
	}
	if cfg.Bytes == 0 {
		cfg.Bytes = 4 << 20
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 10 * time.Second
	}
	if cfg.RetryMin == 0 {
		cfg.RetryMin = time.Second
	}
	if cfg.RetryMax == 0 {
		cfg.RetryMax = 30 * time.Second
	}
	if cfg.Refusals == 0 {
		cfg.Refusals = 5
	}
	return cfg
}

// Reporter owns the queue.
type Reporter struct {
	cfg     Config
	send    Send
	log     *zap.Logger
	queue   chan []byte
	bytes   atomic.Int64
	dropped atomic.Uint64
}

// New returns a reporter that has nothing to report.
func New(cfg Config, send Send, log *zap.Logger) *Reporter {
	cfg = cfg.withDefaults()
	return &Reporter{cfg: cfg, send: send, log: log, queue: make(chan []byte, cfg.Queue)}
}

// Dropped counts events that did not fit into the queue, or were given up.
func (r *Reporter) Dropped() uint64 { return r.dropped.Load() }

// Put queues an event without waiting.
func (r *Reporter) Put(e event.Event) {
	body, err := json.Marshal(e)
	if err != nil {
		r.dropped.Add(1)
		r.log.Error("event cannot be encoded", zap.Error(err))
		return
	}
	size := int64(len(body))
	if r.bytes.Add(size) <= r.cfg.Bytes {
		select {
		case r.queue <- body:
			return
		default:
		}
	}
	r.bytes.Add(-size)
	r.dropped.Add(1)
}

// Close ends the queue: Run returns when it is empty. Put must not be called
// afterwards.
func (r *Reporter) Close() { close(r.queue) }

// Run reports events one after the other until Close was called and the queue
// is empty, or the context ends.
func (r *Reporter) Run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case body, ok := <-r.queue:
			if !ok {
				return
			}
			r.deliver(ctx, body)
			r.bytes.Add(-int64(len(body)))
		}
	}
}

// deliver repeats until the collector has the event.
func (r *Reporter) deliver(ctx context.Context, body []byte) {
	pause := r.cfg.RetryMin
	for refusals := 0; ; {
		refused, err := r.try(ctx, body)
		if err == nil || ctx.Err() != nil {
			return
		}
		if refused {
			refusals++
		}
		if refusals >= r.cfg.Refusals {
			r.dropped.Add(1)
			r.log.Error("event given up", zap.Error(err))
			return
		}
		r.log.Warn("collector did not take an event", zap.Error(err), zap.Duration("retry_in", pause))
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		pause = min(2*pause, r.cfg.RetryMax)
	}
}

// try makes one request. It tells whether the collector has answered with
// anything but success.
func (r *Reporter) try(ctx context.Context, body []byte) (refused bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Timeout)
	defer cancel()
	reply, err := r.send(ctx, body)
	if err != nil {
		return false, err
	}
	var answer struct {
		Status string `json:"status"`
	}
	if err := json.Unmarshal(reply, &answer); err != nil {
		return true, fmt.Errorf("reply of the collector: %w", err)
	}
	if answer.Status != "ok" {
		return true, fmt.Errorf("collector answered with status %.40q", answer.Status)
	}
	return false, nil
}
