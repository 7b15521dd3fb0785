package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"honeysens.org/dockersensor/nethelper/internal/hosttest"
)

// loadInterval makes 200 connections a second.
const loadInterval = 5 * time.Millisecond

// loadLimit is long since all of this may share two processors with other
// tests; an attacker who is refused, or redirected nowhere, fails all the same. That
// his TCP has to try again is looked at by repeatedSYNs: the kernel answers a SYN
// at once, however busy the programs are.
const loadLimit = 15 * time.Second

// repeatedSYNs is how often the attacker's TCP has asked again for a connection.
func (b *bench) repeatedSYNs() int {
	b.t.Helper()
	var raw []byte
	err := b.attacker.Do(func() (err error) {
		raw, err = os.ReadFile("/proc/thread-self/net/netstat")
		return err
	})
	if err != nil {
		b.t.Fatal(err)
	}
	// A line with names, and one with their values.
	names, values, _ := strings.Cut(string(raw), "\n")
	i := slices.Index(strings.Fields(names), "TCPSynRetrans")
	values, _, _ = strings.Cut(values, "\n")
	n, err := strconv.Atoi(strings.Fields(values)[i])
	if err != nil {
		b.t.Fatal(err)
	}
	return n
}

// load connects to honeypots, by both families, until ctx ends. It returns how
// many connections there were when all of them have ended.
func (b *bench) load(ctx context.Context, failed func(address string, err error)) int {
	targets := []struct{ address, want string }{
		{"192.0.2.1:22", "ssh sees 192.0.2.2"}, {"[2001:db8::1]:22", "ssh sees 2001:db8::2"},
		{"192.0.2.1:9999", "recon sees 192.0.2.2"}, {"[2001:db8::1]:9999", "recon sees 2001:db8::2"},
	}
	var attacks sync.WaitGroup
	defer attacks.Wait()
	tick := time.NewTicker(loadInterval)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return n
		case <-tick.C:
		}
		target := targets[n%len(targets)]
		attacks.Go(func() {
			said, err := b.attackWithin(target.address, loadLimit)
			if err == nil && said != target.want {
				err = fmt.Errorf("hears %q", said)
			}
			if err != nil {
				failed(target.address, err)
			}
		})
	}
}

// TestNetnsKillsUnderLoad: no attacker notices that the helper is killed and
// another takes over.
func TestNetnsKillsUnderLoad(t *testing.T) {
	const kills = 10
	b := newBench(t)
	ssh, recon := b.twoHoneypots()
	b.start()
	b.put(wanted(ssh, recon))
	ctx, cancel := context.WithCancel(t.Context())
	var failures atomic.Int32
	var total int
	var loader sync.WaitGroup
	loader.Go(func() {
		total = b.load(ctx, func(address string, err error) {
			failures.Add(1)
			t.Logf("%s: %v", address, err)
		})
	})
	began := time.Now()
	before := b.repeatedSYNs()
	for range kills {
		_ = b.end(syscall.SIGKILL)
		b.start()
		if got := b.get(); !got.Applied || len(got.Services) != 2 {
			t.Errorf("adopted %+v", got)
		}
	}
	took := time.Since(began)
	cancel()
	loader.Wait()
	repeated := b.repeatedSYNs() - before
	t.Logf("%d new connections in %.1f s, %.0f a second, with %d kills: %d failed, %d SYNs were repeated",
		total, took.Seconds(), float64(total)/took.Seconds(), kills, failures.Load(), repeated)
	if n := failures.Load(); n > 0 || repeated > 0 || total < 10*kills {
		t.Errorf("%d of %d connections failed, %d SYNs were repeated", n, total, repeated)
	}
	// One SYN that is lost shows.
	b.host.Run("nft", `table inet lose { chain in { type filter hook prerouting priority -400; tcp flags syn limit rate 1/hour burst 1 packets drop; }; }`)
	if said, err := b.attackWithin("192.0.2.1:22", loadLimit); err != nil || said != "ssh sees 192.0.2.2" {
		t.Errorf("with a SYN lost: %q, %v", said, err)
	}
	if b.repeatedSYNs() == before+repeated {
		t.Error("a lost SYN is not seen")
	}
}

// TestNetnsCleanupSparesOtherSensors: what one sensor left is removed from
// anywhere, once or twice, and the sensor next to it goes on.
func TestNetnsCleanupSparesOtherSensors(t *testing.T) {
	b := newBench(t)
	other := &bench{t: t, host: b.host, attacker: b.attacker, dir: t.TempDir()}
	t.Cleanup(other.kill)
	ssh, recon := b.twoHoneypots()
	other.start("--sensor-id", strings.Repeat("0f1e2d3c", 8))
	n := wanted(ssh, recon)
	n.Bridge.V4 = netip.MustParsePrefix("10.10.11.0/24")
	other.put(n)
	alone := hosttest.Snapshot(b.host)
	ssh2, recon2 := b.twoHoneypots()
	b.start()
	b.put(wanted(ssh2, recon2))
	_ = b.end(syscall.SIGKILL)
	if out := b.host.Run(program(t), "cleanup", "--sensor-id", testID[:12]); !strings.Contains(out, "removed table") {
		t.Errorf("cleanup: %s", out)
	}
	if out := b.host.Run(program(t), "cleanup", "--sensor-id", testID[:12]); !strings.Contains(out, "nothing to remove") {
		t.Errorf("second cleanup: %s", out)
	}
	b.wantUnchanged(alone)
	other.wantAttacksWork()
	if got := other.get(); got.Heals != 0 {
		t.Errorf("the other sensor had to repair something: %+v", got)
	}
}
