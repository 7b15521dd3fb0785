package app

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap/zaptest"

	"honeysens.org/dockersensor/shared/helperapi"
)

// fakeHelper stands for a helper process that can be away or forgetful.
type fakeHelper struct {
	mu   sync.Mutex
	away error
	has  *helperapi.Network
	puts int
}

func (f *fakeHelper) Apply(_ context.Context, want helperapi.Network) (helperapi.Observed, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.puts++
	if f.away != nil {
		return helperapi.Observed{}, f.away
	}
	f.has = &want
	return f.observed(), nil
}

func (f *fakeHelper) Observe(context.Context) (helperapi.Observed, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.away != nil {
		return helperapi.Observed{}, f.away
	}
	return f.observed(), nil
}

func (f *fakeHelper) observed() helperapi.Observed {
	if f.has == nil {
		return helperapi.Observed{}
	}
	return helperapi.Observed{Applied: true, Bridge: helperapi.BridgeObserved{GatewayV4: f.has.Bridge.V4.Addr().Next()}}
}

func (f *fakeHelper) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func subnet(v4 string) helperapi.Network {
	return helperapi.Network{Bridge: helperapi.Bridge{V4: netip.MustParsePrefix(v4)}}
}

// keep runs a keeper, with services that do nothing but reconnect, until the
// test ends.
func keep(t *testing.T, helper *fakeHelper, services ...helperapi.Service) *keeper {
	t.Helper()
	k := newKeeper(helper, subnet("10.10.10.0/24"), zaptest.NewLogger(t))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		k.run(ctx, func() { _, _ = k.Apply(ctx, services) })
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return k
}

func TestKeeperConfiguresANewHelper(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		helper := &fakeHelper{away: errors.New("away")}
		k := keep(t, helper, helperapi.Service{ID: "7"})
		synctest.Wait()
		if k.state().err == nil {
			t.Error("the helper's absence is not in the state")
		}
		helper.set(func() { helper.away = nil })
		<-time.After(observeEvery)
		synctest.Wait()
		if state := k.state(); state.err != nil || !state.observed.Applied || len(helper.has.Services) != 1 {
			t.Errorf("state %+v", state)
		}
		helper.set(func() { helper.has = nil })
		<-time.After(observeEvery)
		synctest.Wait()
		if !k.state().observed.Applied {
			t.Error("a helper that forgot everything did not get the wanted state again")
		}
	})
}

func TestKeeperLeavesWhatIsInForce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		attached := subnet("10.10.10.0/24")
		attached.Services = []helperapi.Service{{ID: "7"}}
		helper := &fakeHelper{has: &attached}
		k := keep(t, helper)
		<-time.After(3 * observeEvery)
		synctest.Wait()
		if helper.puts != 0 {
			t.Fatalf("%d changes although the helper has a state", helper.puts)
		}
		k.configure(subnet("10.20.0.0/24"))
		if _, err := k.Apply(t.Context(), attached.Services); err != nil {
			t.Fatal(err)
		}
		if got := helper.has.Bridge.V4.String(); got != "10.20.0.0/24" || len(helper.has.Services) != 1 {
			t.Errorf("helper has %s and %d services", got, len(helper.has.Services))
		}
	})
}

func TestKeeperShowsAFailedChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		helper := &fakeHelper{has: &helperapi.Network{}}
		k := keep(t, helper)
		synctest.Wait()
		k.note(helperapi.Observed{}, errors.New("refused"))
		<-time.After(3 * observeEvery)
		synctest.Wait()
		if k.state().err == nil {
			t.Error("that the helper answers hides that the last change failed")
		}
	})
}

// sink is a collector that only waits.
type sink struct{}

func (sink) Serve(ctx context.Context, listener net.Listener) error {
	<-ctx.Done()
	return listener.Close()
}

func TestIntakeFollowsTheGateway(t *testing.T) {
	helper := &fakeHelper{}
	k := keep(t, helper)
	in := &intake{server: sink{}, log: zaptest.NewLogger(t)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		in.run(ctx, k)
	}()
	for _, v4 := range []string{"127.1.0.0/24", "127.2.0.0/24"} {
		helper.set(func() { helper.has = nil })
		k.configure(subnet(v4))
		if _, err := k.Apply(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		want := netip.MustParsePrefix(v4).Addr().Next().String()
		for {
			address, _ := in.state()
			if host, _, err := net.SplitHostPort(address); err == nil && host == want {
				break
			}
			if t.Context().Err() != nil {
				t.Fatalf("listens at %q, want %s", address, want)
			}
		}
	}
	cancel()
	<-done
}
