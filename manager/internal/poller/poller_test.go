package poller

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"honeysens.org/dockersensor/manager/internal/hsapi"
)

// sensor is source, server and sink in one. Polls take a while, as they do.
type sensor struct {
	start    time.Time
	times    []time.Duration
	statuses []hsapi.Status
	taken    []*hsapi.Wanted
	took     time.Duration
	answer   func(n int) (*hsapi.Wanted, error)
}

func (s *sensor) PollStatus(context.Context) hsapi.Status {
	return hsapi.Status{State: hsapi.StateRunning, Services: map[string]hsapi.ServiceState{"1": hsapi.ServiceRunning}}
}

func (s *sensor) PostStatus(ctx context.Context, status hsapi.Status) (*hsapi.Wanted, error) {
	s.times = append(s.times, time.Since(s.start))
	s.statuses = append(s.statuses, status)
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(s.took):
	}
	return s.answer(len(s.times))
}

func (s *sensor) Take(_ context.Context, wanted *hsapi.Wanted) { s.taken = append(s.taken, wanted) }

// run polls for some time, in a bubble whose clock jumps.
func run(t *testing.T, s *sensor, log *zap.Logger, during func(*Poller)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s.start = time.Now()
		p := New(Config{Interval: 5 * time.Minute}, s, s, s, log)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			p.Run(ctx)
		}()
		during(p)
		cancel()
		<-done
	})
}

// always gives the same answer.
func always(wanted *hsapi.Wanted, err error) func(int) (*hsapi.Wanted, error) {
	return func(int) (*hsapi.Wanted, error) { return wanted, err }
}

func TestPollsAtTheServersInterval(t *testing.T) {
	s := &sensor{answer: func(n int) (*hsapi.Wanted, error) {
		return &hsapi.Wanted{Interval: []time.Duration{0, 2 * time.Minute, time.Hour}[min(n, 3)-1]}, nil
	}}
	run(t, s, zap.NewNop(), func(p *Poller) {
		<-time.After(30 * time.Minute)
		if got := p.State(); got.Interval != time.Hour || got.Error != "" || !got.LastSuccess.Equal(s.start.Add(7*time.Minute)) {
			t.Errorf("state %+v", got)
		}
	})
	if diff := cmp.Diff([]time.Duration{0, 5 * time.Minute, 7 * time.Minute}, s.times); diff != "" {
		t.Errorf("polls (-want +got):\n%s", diff)
	}
	if len(s.taken) != 3 {
		t.Errorf("the sink was told %d times", len(s.taken))
	}
}

func TestFirstPollTellsNoServices(t *testing.T) {
	s := &sensor{answer: func(n int) (*hsapi.Wanted, error) {
		if n == 1 {
			return nil, errors.New("away")
		}
		return &hsapi.Wanted{}, nil
	}}
	run(t, s, zap.NewNop(), func(*Poller) { <-time.After(10 * time.Minute) })
	if len(s.statuses) != 3 {
		t.Fatalf("%d polls", len(s.statuses))
	}
	for i, want := range []int{0, 0, 1} {
		if got := len(s.statuses[i].Services); got != want {
			t.Errorf("poll %d tells of %d services, want %d", i, got, want)
		}
	}
}

func TestBacksOffAndRecovers(t *testing.T) {
	away := &hsapi.Error{Class: hsapi.ClassRoute, Problem: "away"}
	s := &sensor{}
	s.answer = func(n int) (*hsapi.Wanted, error) {
		if n <= 20 {
			return nil, away
		}
		return &hsapi.Wanted{}, nil
	}
	core, logs := observer.New(zap.InfoLevel)
	run(t, s, zap.New(core), func(p *Poller) {
		<-time.After(5 * time.Minute)
		if got := p.State(); got.Class != hsapi.ClassRoute || got.Error != away.Error() || !got.LastSuccess.IsZero() || got.LastTry.IsZero() {
			t.Errorf("state while away: %+v", got)
		}
		<-time.After(20 * time.Minute)
		if got := p.State(); got.Class != "" || got.Error != "" || got.LastSuccess.IsZero() {
			t.Errorf("state afterwards: %+v", got)
		}
	})
	for i := 1; i <= 20; i++ {
		gap, full := s.times[i]-s.times[i-1], min(time.Second<<min(i-1, 10), time.Minute)
		if gap < full/2 || gap > full {
			t.Errorf("retry %d after %v, want %v to %v", i, gap, full/2, full)
		}
	}
	var messages []string
	for _, entry := range logs.All() {
		messages = append(messages, entry.Message)
	}
	if diff := cmp.Diff([]string{"poll failed", "server reached"}, messages); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
}

func TestRetriesAreNotInStep(t *testing.T) {
	seen := map[time.Duration]bool{}
	for range 20 {
		seen[retryAfter(100)] = true
	}
	if len(seen) < 10 {
		t.Errorf("%d different waits of 20", len(seen))
	}
}

func TestPoke(t *testing.T) {
	s := &sensor{answer: always(&hsapi.Wanted{}, nil), took: 100 * time.Millisecond}
	run(t, s, zap.NewNop(), func(p *Poller) {
		<-time.After(time.Minute)
		for range 100 {
			p.Poke()
		}
		<-time.After(50 * time.Millisecond)
		p.Poke() // while a poll is under way: its status was gathered before
		<-time.After(time.Minute)
	})
	want := []time.Duration{0, time.Minute, time.Minute + 1100*time.Millisecond}
	if diff := cmp.Diff(want, s.times); diff != "" {
		t.Errorf("polls (-want +got):\n%s", diff)
	}
}

func TestPokesDoNotDefeatTheBackOff(t *testing.T) {
	s := &sensor{answer: always(nil, errors.New("away"))}
	run(t, s, zap.NewNop(), func(p *Poller) {
		for range 1200 {
			<-time.After(50 * time.Millisecond)
			p.Poke()
		}
	})
	if len(s.times) > 18 {
		t.Errorf("%d polls in a minute", len(s.times))
	}
}

func TestEndsWithinAPoll(t *testing.T) {
	s := &sensor{answer: always(&hsapi.Wanted{}, nil), took: time.Hour}
	run(t, s, zap.NewNop(), func(p *Poller) {
		<-time.After(time.Minute)
		if got := p.State(); !got.LastTry.IsZero() {
			t.Errorf("state %+v", got)
		}
	})
	if len(s.times) != 1 || len(s.taken) != 0 {
		t.Errorf("%d polls, %d taken", len(s.times), len(s.taken))
	}
}

// TestRestart: neither a poll that hangs nor the wait after many failures keeps
// from polling with new settings.
func TestRestart(t *testing.T) {
	const restart = 10*time.Minute + 10*time.Second
	s := &sensor{took: 15 * time.Second}
	s.answer = func(n int) (*hsapi.Wanted, error) {
		if s.times[n-1] < restart {
			return nil, errors.New("away")
		}
		return &hsapi.Wanted{}, nil
	}
	run(t, s, zap.NewNop(), func(p *Poller) {
		<-time.After(restart)
		p.Restart() // in a wait, or in a poll
		<-time.After(7 * time.Second)
		p.Restart() // in a poll
		<-time.After(17 * time.Second)
		if got := p.State(); got.LastSuccess.IsZero() || got.Error != "" {
			t.Errorf("state %+v", got)
		}
	})
	var after []time.Duration
	for _, at := range s.times {
		if at >= restart {
			after = append(after, at-restart)
		}
	}
	if len(after) != 2 || after[0] > 5*time.Second || after[1] != 8*time.Second {
		t.Errorf("polls after the restart: %v", after)
	}
}
