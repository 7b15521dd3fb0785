package poller

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap/zaptest"

	"honeysens.org/dockersensor/manager/internal/hsapi"
)

// fake is client, source and sink at once; times are those of its polls.
type fake struct {
	times  []time.Duration
	sent   []hsapi.Status
	err    error
	wanted hsapi.Wanted
	taken  int
	start  time.Time
}

func (f *fake) PostStatus(_ context.Context, s hsapi.Status) (*hsapi.Wanted, error) {
	f.times = append(f.times, time.Since(f.start))
	f.sent = append(f.sent, s)
	if f.err != nil {
		return nil, f.err
	}
	return &f.wanted, nil
}

func (f *fake) PollStatus(context.Context) hsapi.Status {
	return hsapi.Status{Services: map[string]hsapi.ServiceState{"1": hsapi.ServiceRunning}}
}

func (f *fake) Take(context.Context, *hsapi.Wanted) { f.taken++ }

// poll runs a poller for a while of a bubble's time.
func poll(t *testing.T, f *fake, during time.Duration, then func(*Poller)) {
	t.Helper()
	f.start = time.Now()
	p := New(Config{Interval: 5 * time.Minute}, f, f, f, zaptest.NewLogger(t))
	ctx, cancel := context.WithTimeout(t.Context(), during)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.Run(ctx)
	}()
	synctest.Wait()
	if then != nil {
		then(p)
	}
	<-done
}

func TestInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{wanted: hsapi.Wanted{Interval: 2 * time.Minute}}
		poll(t, f, 5*time.Minute, nil)
		want := []time.Duration{0, 0, 2 * time.Minute, 4 * time.Minute}
		if len(f.times) != len(want) || f.taken != len(want) {
			t.Fatalf("polls at %v, %d answers taken; want polls at %v", f.times, f.taken, want)
		}
		for i := range want {
			if f.times[i] != want[i] {
				t.Errorf("polls at %v, want %v", f.times, want)
			}
		}
		if len(f.sent[0].Services) != 0 || len(f.sent[1].Services) != 1 {
			t.Errorf("services of the first polls: %v, %v; want none, then one", f.sent[0].Services, f.sent[1].Services)
		}
	})
}

func TestBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{err: &hsapi.Error{Class: hsapi.ClassServer, Problem: "broken"}}
		poll(t, f, 10*time.Minute, func(p *Poller) {
			if state := p.State(); state.Class != hsapi.ClassServer || state.Error == "" {
				t.Errorf("state %+v", state)
			}
		})
		for i := 1; i < len(f.times); i++ {
			if gap := f.times[i] - f.times[i-1]; gap < firstWait/2 || gap > maxWait {
				t.Errorf("gap %d is %s", i, gap)
			}
		}
		if n := len(f.times); n < 10 || n > 30 {
			t.Errorf("%d polls in ten minutes without a server", n)
		}
		if f.taken != 0 {
			t.Errorf("%d answers taken", f.taken)
		}
	})
}

func TestPoke(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		poll(t, f, time.Minute, func(p *Poller) {
			f.err = errors.New("gone")
			p.Poke()
			synctest.Wait()
			if state := p.State(); state.Error != "gone" || state.LastSuccess.IsZero() {
				t.Errorf("state %+v", state)
			}
			f.err = nil
			p.Poke()
			synctest.Wait()
			if state := p.State(); state.Error != "" {
				t.Errorf("state %+v after the server is back", state)
			}
		})
	})
}
