package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"honeysens.org/dockersensor/nethelper/internal/hosttest"
	"honeysens.org/dockersensor/shared/helperapi"
	"honeysens.org/dockersensor/shared/nettest"
)

func TestNetnsAttackersReachHoneypotsAndTheEndLeavesNoTrace(t *testing.T) {
	b := newBench(t)
	before := hosttest.Snapshot(b.host)
	ssh, recon := b.twoHoneypots()
	b.start()
	seen := b.put(wanted(ssh, recon))
	if !seen.Applied || !seen.Interface.Up || seen.Interface.Problem != "" || seen.Bridge.Name != "services-a1b2c3" {
		t.Errorf("observed %+v", seen)
	}
	b.wantAttacksWork()
	if again := b.put(wanted(ssh, recon)); again.Services[0].V4 != seen.Services[0].V4 {
		t.Errorf("addresses changed: %+v, then %+v", seen.Services, again.Services)
	}
	if got := b.get().Services; got[0].Redirected.Packets != 2 || got[1].Redirected.Packets != 2 {
		t.Errorf("redirected %+v, want 2 each", got)
	}
	b.put(wanted(ssh))
	if said, err := b.attack("192.0.2.1:9999"); err == nil {
		t.Errorf("the catch-all is gone and says %q", said)
	}
	b.wantAttack("192.0.2.1:22", "ssh sees 192.0.2.2")
	if err := b.end(syscall.SIGTERM); err != nil {
		t.Errorf("end: %v", err)
	}
	b.wantUnchanged(before)
}

func TestNetnsWayThroughAForeignFirewall(t *testing.T) {
	nettest.Need(t, "iptables-nft", "ip6tables-nft")
	b := newBench(t)
	b.host.Run("iptables-nft", "-P", "FORWARD", "DROP")
	b.host.Run("ip6tables-nft", "-P", "FORWARD", "DROP")
	before := hosttest.Snapshot(b.host)
	ssh, recon := b.twoHoneypots()
	b.start()
	seen := b.put(wanted(ssh, recon))
	if len(seen.Firewalls) == 0 || seen.Firewalls[0].Passage == "" {
		t.Errorf("firewalls %+v", seen.Firewalls)
	}
	b.wantAttacksWork()
	// A firewall that is loaded anew opens again by itself.
	b.host.Run("iptables-nft", "-F", "FORWARD")
	until(t, "the passage is back", func() bool {
		said, err := b.attack("192.0.2.1:22")
		return err == nil && said == "ssh sees 192.0.2.2"
	})
	if err := b.end(syscall.SIGTERM); err != nil {
		t.Errorf("end: %v", err)
	}
	b.wantUnchanged(before)
}

// During an update the new sensor takes over from the old one.
func TestNetnsSecondSensorTakesOver(t *testing.T) {
	b := newBench(t)
	before := hosttest.Snapshot(b.host)
	ssh, recon := b.twoHoneypots()
	b.start()
	b.put(wanted(ssh, recon))
	next := &bench{t: t, host: b.host, attacker: b.attacker, dir: t.TempDir()}
	nextID := strings.Repeat("0f1e2d3c", 8)
	ssh2, recon2 := b.twoHoneypots()
	next.start("--sensor-id", nextID)
	t.Cleanup(next.kill)
	err := next.call(http.MethodPut, helperapi.PathNetwork, wanted(ssh2, recon2), &helperapi.Observed{})
	var refused *helperapi.Error
	if !errors.As(err, &refused) || refused.Kind != helperapi.KindConflict || !strings.Contains(refused.Message, "services-a1b2c3") {
		t.Errorf("the same service network: got %v", err)
	}
	other := wanted(ssh2, recon2)
	other.Bridge.V4 = netip.MustParsePrefix("10.10.11.0/24")
	next.put(other)
	if err := b.end(syscall.SIGTERM); err != nil {
		t.Errorf("end: %v", err)
	}
	next.wantAttacksWork()
	if err := next.end(syscall.SIGTERM); err != nil {
		t.Errorf("end: %v", err)
	}
	b.wantUnchanged(before)
}

func TestNetnsKilledHelperIsSucceeded(t *testing.T) {
	b := newBench(t)
	before := hosttest.Snapshot(b.host)
	ssh, recon := b.twoHoneypots()
	b.start()
	seen := b.put(wanted(ssh, recon))
	_ = b.end(syscall.SIGKILL)
	b.wantAttacksWork()
	b.start()
	if got := b.get(); !got.Applied || len(got.Services) != 2 || got.Services[0].V4 != seen.Services[0].V4 {
		t.Errorf("adopted %+v", got)
	}
	b.wantAttacksWork()
	_ = b.end(syscall.SIGKILL)
	recon.Stop()
	b.start()
	if got := b.get(); len(got.Services) != 1 || got.Services[0].ID != "1" {
		t.Errorf("adopted %+v, want the one that lives", got.Services)
	}
	if err := b.end(syscall.SIGTERM); err != nil {
		t.Errorf("end: %v", err)
	}
	b.wantUnchanged(before)
}

func TestNetnsCleanupAfterAKill(t *testing.T) {
	b := newBench(t)
	before := hosttest.Snapshot(b.host)
	ssh, recon := b.twoHoneypots()
	b.start()
	b.put(wanted(ssh, recon))
	_ = b.end(syscall.SIGKILL)
	if out := b.host.Run(program(t), "cleanup", "--sensor-id", strings.Repeat("0", 12)); !strings.Contains(out, "nothing to remove") {
		t.Errorf("cleanup of another sensor: %s", out)
	}
	b.wantAttacksWork()
	if out := b.host.Run(program(t), "cleanup", "--sensor-id", testID); !strings.Contains(out, "table honeysens-a1b2c3d4a1b2") || !strings.Contains(out, "bridge services-a1b2c3") {
		t.Errorf("cleanup: %s", out)
	}
	b.wantUnchanged(before)
	// The next one starts from nothing but the old wanted state.
	b.start()
	b.wantAttacksWork()
}

func TestNetnsOthersThatRemoveOurLinksAreHealed(t *testing.T) {
	b := newBench(t)
	ssh, recon := b.twoHoneypots()
	b.start()
	b.put(wanted(ssh, recon))
	b.host.Run("ip", "link", "del", "services-a1b2c3")
	until(t, "the bridge is back", func() bool { return b.get().Heals > 0 })
	b.wantAttacksWork()
	if got := b.get().LastHeal; time.Since(got) > time.Minute {
		t.Errorf("last heal %v", got)
	}
}

func TestNetnsRefusedStateChangesNothing(t *testing.T) {
	b := newBench(t)
	ssh, recon := b.twoHoneypots()
	b.start("--egress", "internet")
	b.put(wanted(ssh, recon))
	before := hosttest.Snapshot(b.host)
	cases := map[string]struct {
		change func(*helperapi.Network)
		want   helperapi.Kind
	}{
		"own pid":                 {func(n *helperapi.Network) { n.Services[0].Sandbox.PID = os.Getpid() }, helperapi.KindDenied},
		"another container's pid": {func(n *helperapi.Network) { n.Services[0].Sandbox.PID, n.Services[1].Sandbox.PID = recon.PID, ssh.PID }, helperapi.KindDenied},
		"other interface":         {func(n *helperapi.Network) { n.Interface.Name = "lo" }, helperapi.KindDenied},
		"the host's own network":  {func(n *helperapi.Network) { n.Bridge.V4 = netip.MustParsePrefix("192.0.2.0/24") }, helperapi.KindDenied},
		"loose egress":            {func(n *helperapi.Network) { n.Egress = helperapi.EgressAll }, helperapi.KindDenied},
		"impossible port":         {func(n *helperapi.Network) { n.Services[0].Ports[0].To = 0 }, helperapi.KindInvalid},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			want := wanted(ssh, recon)
			c.change(&want)
			err := b.call(http.MethodPut, helperapi.PathNetwork, want, &helperapi.Observed{})
			var refused *helperapi.Error
			if !errors.As(err, &refused) || refused.Kind != c.want {
				t.Errorf("got %v, want kind %s", err, c.want)
			}
		})
	}
	b.wantUnchanged(before)
	b.wantAttacksWork()
}

func TestNetnsMissingInterfaceIsSaid(t *testing.T) {
	b := newBench(t)
	b.start("--iface", "eth7")
	const want = "interface eth7 does not exist in this network namespace; set IFACE to one of: eth0"
	if got := b.get(); got.Applied || got.Interface.Problem != want {
		t.Errorf("observed %+v", got)
	}
	n := wanted()
	n.Interface.Name = "eth7"
	err := b.call(http.MethodPut, helperapi.PathNetwork, n, &helperapi.Observed{})
	var refused *helperapi.Error
	if !errors.As(err, &refused) || refused.Kind != helperapi.KindConflict || refused.Message != want {
		t.Errorf("got %v", err)
	}
}

func TestNetnsHelperHasFewCapabilities(t *testing.T) {
	b := newBench(t)
	b.start()
	var health helperapi.Health
	if err := b.call(http.MethodGet, helperapi.PathHealth, nil, &health); err != nil {
		t.Fatal(err)
	}
	want := []string{"CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_SYS_PTRACE", "CAP_SYS_ADMIN"}
	if diff := cmp.Diff(want, health.Capabilities); diff != "" {
		t.Error(diff)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", b.helper.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"CapInh:\t0000000000000000", "CapPrm:\t0000000000283000", "CapBnd:\t0000000000283000", "NoNewPrivs:\t1"} {
		if !strings.Contains(string(status), line) {
			t.Errorf("no %q in\n%s", line, status)
		}
	}
}

func TestNetnsSecondHelperIsRefused(t *testing.T) {
	b := newBench(t)
	b.start()
	out, err := b.host.Try(program(t), "serve", "--socket", b.socket(), "--allow-uid", "0", "--sensor-id", testID,
		"--cni-bin-dir", hosttest.Plugins(t), "--state-dir", t.TempDir())
	if err == nil || !strings.Contains(out, "another process serves it") {
		t.Errorf("second helper: %v\n%s", err, out)
	}
	b.get()
}
