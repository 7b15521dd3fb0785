package main

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"honeysens.org/dockersensor/nethelper/internal/hosttest"
	"honeysens.org/dockersensor/shared/helperapi"
	"honeysens.org/dockersensor/shared/nettest"
)

// What the server wants of the interface changes while attackers are there.
func TestNetnsInterfaceChangesWithoutLosingServices(t *testing.T) {
	nettest.Need(t, "dnsmasq")
	b := newBench(t)
	before := hosttest.Snapshot(b.host)
	ssh, recon := b.twoHoneypots()
	b.start()
	b.put(wanted(ssh, recon))
	b.wantAttacksWork()
	// The host has an address: DHCP is none of the sensor's business.
	n := wanted(ssh, recon)
	n.Interface.Mode, n.Interface.MAC = helperapi.ModeDHCP, "02:00:00:00:00:77"
	if seen := b.put(n); seen.Interface.MAC != "02:00:00:00:00:77" || seen.Interface.Problem != "" {
		t.Errorf("observed %+v", seen.Interface)
	}
	b.wantAttacksWork()
	// One more address, by the side of the host's.
	n.Interface.Mode, n.Interface.Address = helperapi.ModeStatic, netip.MustParsePrefix("192.0.2.9/24")
	b.put(n)
	b.wantAttacksWork()
	b.wantAttack("192.0.2.9:22", "ssh sees 192.0.2.2")
	_ = b.end(syscall.SIGKILL)
	if out := b.host.Run(program(t), "cleanup", "--sensor-id", testID); !strings.Contains(out, "changes to interface eth0") {
		t.Errorf("cleanup: %s", out)
	}
	b.wantUnchanged(before)
}

func TestNetnsHelperGetsItsAddressByDHCP(t *testing.T) {
	nettest.Need(t, "dnsmasq")
	b := newBench(t)
	b.host.Run("ip", "-4", "addr", "flush", "dev", "eth0")
	before := hosttest.Snapshot(b.host)
	server := exec.Command("dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--port=0", "--interface=eth0", "--user=root", "--dhcp-authoritative",
		"--dhcp-leasefile="+filepath.Join(t.TempDir(), "leases"), "--pid-file=", "--no-ping", "--dhcp-range=192.0.2.50,192.0.2.50,255.255.255.0,2m")
	if err := b.attacker.Start(server); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Kill()
		_ = server.Wait()
	})
	ssh, recon := b.twoHoneypots()
	b.start()
	n := wanted(ssh, recon)
	n.Interface.Mode = helperapi.ModeDHCP
	b.put(n)
	waitForAddress(b, "192.0.2.50/24")
	b.wantAttack("192.0.2.50:22", "ssh sees 192.0.2.2")
	b.wantAttack("192.0.2.50:9999", "recon sees 192.0.2.2")
	_ = b.end(syscall.SIGKILL)
	b.wantAttack("192.0.2.50:22", "ssh sees 192.0.2.2")
	b.start()
	b.wantAttack("192.0.2.50:22", "ssh sees 192.0.2.2")
	if err := b.end(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	b.wantUnchanged(before)
	if entries, err := os.ReadDir(filepath.Join(b.dir, "state", "802.1x")); err == nil {
		t.Errorf("left in the state directory: %v", entries)
	}
}

// waitForAddress waits longer than the helper does for a client of the host.
func waitForAddress(b *bench, address string) {
	b.t.Helper()
	deadline, tick := time.After(30*time.Second), time.NewTicker(100*time.Millisecond)
	defer tick.Stop()
	for !strings.Contains(b.host.Run("ip", "-4", "addr", "show", "eth0"), address) {
		select {
		case <-deadline:
			b.t.Fatalf("no address %s", address)
		case <-tick.C:
		}
	}
}
