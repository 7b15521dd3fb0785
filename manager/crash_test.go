package main

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"honeysens.org/dockersensor/shared/nettest"
)

// producer reports events until it is stopped, and remembers which of them were
// acknowledged and which got no answer.
type producer struct {
	mu           sync.Mutex
	acknowledged []string
	unanswered   map[string]bool
	wg           sync.WaitGroup
	cancel       context.CancelFunc
}

// produce has some honeypots report events as fast as they are taken. They wait
// for a manager that is not there.
func (r *rig) produce() *producer {
	ctx, cancel := context.WithCancel(r.t.Context())
	p := &producer{unanswered: map[string]bool{}, cancel: cancel}
	for worker := range 4 {
		p.wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				p.one(ctx, r, fmt.Sprintf("worker %d event %d", worker, n))
			}
		})
	}
	r.t.Cleanup(p.stop)
	return p
}

func (p *producer) one(ctx context.Context, r *rig, summary string) {
	err := r.report(ctx, summary)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil {
		p.acknowledged = append(p.acknowledged, summary)
		return
	}
	p.unanswered[summary] = true
	pause(ctx, 5*time.Millisecond)
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func (p *producer) stop() {
	p.cancel()
	p.wg.Wait()
}

// TestNetnsKilledAtAnyStep kills the manager, for real, at its n-th system call
// of a kind: the steps of intake, batch, acknowledgement and removal are these.
// Another manager goes on. No acknowledged event may be missing, and none may
// be at the server twice unless the kill came between the server's storing it
// and the removal from the disk.
func TestNetnsKilledAtAnyStep(t *testing.T) {
	nettest.Need(t, "strace")
	tests := []struct {
		// The calls of this kind separate the steps.
		step, call string
		at         []int
	}{
		{"before a page of the spool is written", "pwrite64", []int{1, 2, 3, 5, 13, 34, 89}},
		{"between the pages and their way to the disk", "fdatasync", []int{1, 2, 3, 4, 5, 8, 21}},
		{"before a reply, a request or an acknowledgement", "write", []int{8, 25, 40, 60, 80}},
		{"before a reply or a request is read", "read", []int{60, 120, 180}},
	}
	r := newRig(t)
	r.start()
	r.manager.end(unix.SIGTERM)
	for _, tt := range tests {
		for _, n := range tt.at {
			t.Run(fmt.Sprintf("%s (%s %d)", tt.step, tt.call, n), func(t *testing.T) {
				if err := r.server.ClearEvents(t.Context()); err != nil {
					t.Fatal(err)
				}
				one := *r
				one.t = t
				one.killedAt(tt.call, n)
			})
		}
	}
}

// killedAt is one story: a kill, and a manager after it.
func (r *rig) killedAt(call string, n int) {
	r.tracer = []string{"strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=" + call,
		"-e", fmt.Sprintf("inject=%s:signal=KILL:when=%d", call, n)}
	r.run()
	producer := r.produce()
	<-r.manager.done
	r.tracer = nil
	r.start()
	r.until("events are taken again", func() error {
		if accepted := r.status().Collector.Accepted; accepted < 20 {
			return fmt.Errorf("%d events", accepted)
		}
		return nil
	})
	producer.stop()
	r.wantStored(producer.acknowledged)
	r.until("nothing waits", func() error {
		if s := r.status().Events; s.Waiting > 0 {
			return fmt.Errorf("events %+v", s)
		}
		return nil
	})
	twice := 0
	for summary, count := range r.stored() {
		if count > 2 {
			r.t.Errorf("%s is there %d times", summary, count)
		}
		if count == 2 {
			twice++
		}
	}
	r.t.Logf("%d acknowledged, %d unanswered, %d at the server twice", len(producer.acknowledged), len(producer.unanswered), twice)
	r.manager.end(unix.SIGTERM)
}
