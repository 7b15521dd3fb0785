package attach

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"go.uber.org/zap/zaptest"

	"honeysens.org/dockersensor/cni/checksum"
	"honeysens.org/dockersensor/nethelper/internal/hosttest"
	"honeysens.org/dockersensor/nethelper/internal/link"
	"honeysens.org/dockersensor/shared/helperapi"
	"honeysens.org/dockersensor/shared/nettest"
)

var sensorID = strings.Repeat("a1b2c3d4", 8)

// bench is a host with a bridge, and an attacher that works there.
type bench struct {
	t        *testing.T
	host     *nettest.Host
	attacher *Attacher
	cfg      Config
	network  Network
}

func newBench(t *testing.T) *bench {
	nettest.Need(t, "ip", "ping", "nft")
	host := nettest.NewHost(t, "host")
	outside := nettest.NewHost(t, "outside")
	nettest.Connect(host, "eth0", []string{"192.0.2.1/24"}, outside, "eth0", []string{"192.0.2.2/24"})
	b := &bench{t: t, host: host, cfg: Config{BinDir: hosttest.Plugins(t), StateDir: t.TempDir()}}
	b.network = b.layout("10.10.10.0/24")
	b.attacher = b.newAttacher()
	return b
}

func (b *bench) newAttacher() *Attacher {
	b.t.Helper()
	attacher, err := New(b.cfg, zaptest.NewLogger(b.t))
	if err != nil {
		b.t.Fatal(err)
	}
	return attacher
}

// layout makes the bridge, too.
func (b *bench) layout(v4 string) Network {
	b.t.Helper()
	n := Network{MTU: 1400, Layout: link.NewLayout(sensorID, helperapi.Bridge{V4: netip.MustParsePrefix(v4)})}
	b.do(func() error { _, err := link.New(sensorID, "eth0").Ensure(n.Layout); return err })
	return n
}

func (b *bench) do(fn func() error) {
	b.t.Helper()
	if err := b.host.Do(fn); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) tryAttach(c *hosttest.Container) (at Attachment, err error) {
	err = b.host.Do(func() error {
		s, err := Prove(c.Sandbox)
		if err != nil {
			return err
		}
		defer s.Close()
		at, err = b.attacher.Attach(b.t.Context(), b.network, s)
		return err
	})
	return at, err
}

func (b *bench) attach(c *hosttest.Container) Attachment {
	b.t.Helper()
	at, err := b.tryAttach(c)
	if err != nil {
		b.t.Fatal(err)
	}
	return at
}

func (b *bench) prune(keep ...*hosttest.Container) {
	b.t.Helper()
	wanted := map[string]bool{}
	for _, c := range keep {
		wanted[c.ContainerID] = true
	}
	b.do(func() error { return b.attacher.Prune(b.t.Context(), b.network, wanted) })
}

func (b *bench) leases() (names []string) {
	b.t.Helper()
	entries, err := os.ReadDir(filepath.Join(b.cfg.StateDir, "leases", "services"))
	if err != nil {
		b.t.Fatal(err)
	}
	for _, entry := range entries {
		if _, err := netip.ParseAddr(entry.Name()); err == nil {
			names = append(names, entry.Name())
		}
	}
	return names
}

func wantKind(t *testing.T, err error, kind helperapi.Kind) {
	t.Helper()
	var apiErr *helperapi.Error
	if !errors.As(err, &apiErr) || apiErr.Kind != kind {
		t.Errorf("got %v, want kind %s", err, kind)
	}
}

func TestNetnsAttachedServiceReachesTheGatewayAndNoOtherService(t *testing.T) {
	b := newBench(t)
	one, two := hosttest.NewContainer(t, "one"), hosttest.NewContainer(t, "two")
	first, second := b.attach(one), b.attach(two)
	one.Run("ping", "-c1", "-W2", b.network.Layout.GatewayV4.String())
	one.Run("ping", "-c1", "-W2", b.network.Layout.GatewayV6.String())
	b.host.Run("ping", "-c1", "-W2", first.V4.String())
	b.host.Run("ping", "-c1", "-W2", first.V6.String())
	if out, err := one.Try("ping", "-c1", "-W1", second.V4.String()); err == nil {
		t.Errorf("services reach each other:\n%s", out)
	}
	for _, family := range []string{"-4", "-6"} {
		if out := one.Run("ip", family, "route", "show", "default"); !strings.Contains(out, "via") {
			t.Errorf("no default route: %q", out)
		}
	}
	if forwarding := b.host.Run("sysctl", "-n", "net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"); strings.TrimSpace(forwarding) != "0\n0" {
		t.Errorf("the host became a router: %q", forwarding)
	}
	off := func(host *nettest.Host, iface string) {
		t.Helper()
		err := host.Do(func() error {
			off, err := checksum.IsOff(iface)
			if err == nil && !off {
				err = errors.New("checksum offload is on")
			}
			return err
		})
		if err != nil {
			t.Errorf("%s: %v", iface, err)
		}
	}
	off(one.Host, "eth0")
	off(b.host, first.Port)
	off(b.host, b.network.Layout.Name)
}

// TestNetnsNobodyTakesTheAddressOfAnother: the host keeps to the hardware address
// that it has from the attachment, whatever comes over the bridge.
func TestNetnsNobodyTakesTheAddressOfAnother(t *testing.T) {
	b := newBench(t)
	one, two := hosttest.NewContainer(t, "one"), hosttest.NewContainer(t, "two")
	b.attach(one)
	second := b.attach(two)
	gateways := map[netip.Addr]netip.Addr{second.V4: b.network.Layout.GatewayV4, second.V6: b.network.Layout.GatewayV6}
	for addr, gateway := range gateways {
		one.Run("ip", "addr", "add", netip.PrefixFrom(addr, gateway.BitLen()-8).String(), "dev", "eth0")
		_, _ = one.Try("ping", "-c1", "-W0.3", "-I", addr.String(), gateway.String())
		entry := b.host.Run("ip", "neigh", "show", addr.String(), "dev", b.network.Layout.Name)
		if !strings.Contains(entry, second.MAC.String()) || !strings.Contains(entry, "PERMANENT") {
			t.Errorf("neighbour %s: %q, want %s", addr, entry, second.MAC)
		}
		b.host.Run("ping", "-c1", "-W2", addr.String())
	}
	b.prune(one)
	for addr := range gateways {
		if entry := b.host.Run("ip", "neigh", "show", addr.String(), "dev", b.network.Layout.Name); strings.Contains(entry, "PERMANENT") {
			t.Errorf("left behind: %q", entry)
		}
	}
}

func TestNetnsAttachmentStays(t *testing.T) {
	b := newBench(t)
	c := hosttest.NewContainer(t, "one")
	first := b.attach(c)
	if again := b.attach(c); !reflect.DeepEqual(again, first) {
		t.Errorf("attached again: %+v, then %+v", first, again)
	}
	b.attacher = b.newAttacher()
	if adopted := b.attach(c); !reflect.DeepEqual(adopted, first) {
		t.Errorf("after a restart: %+v, then %+v", first, adopted)
	}
	b.host.Run("ip", "link", "del", b.network.Layout.Name)
	b.network = b.layout("10.10.10.0/24")
	if healed := b.attach(c); !reflect.DeepEqual(healed, first) {
		t.Errorf("after the bridge was lost: %+v, then %+v", first, healed)
	}
	c.Run("ping", "-c1", "-W2", b.network.Layout.GatewayV4.String())
}

func TestNetnsNewServiceNetworkGivesNewAddresses(t *testing.T) {
	b := newBench(t)
	c := hosttest.NewContainer(t, "one")
	b.attach(c)
	b.network = b.layout("10.20.0.0/16")
	at := b.attach(c)
	if !b.network.Layout.V4.Contains(at.V4) {
		t.Fatalf("address %v, want one of %v", at.V4, b.network.Layout.V4)
	}
	c.Run("ping", "-c1", "-W2", "10.20.0.1")
	b.prune(c)
	c.Run("ping", "-c1", "-W2", "10.20.0.1")
	if got := b.leases(); len(got) != 2 {
		t.Errorf("leases %v, want one of each family", got)
	}
}

func TestNetnsHoneypotThatRemovedItsInterfaceGetsAnother(t *testing.T) {
	b := newBench(t)
	c := hosttest.NewContainer(t, "one")
	b.attach(c)
	c.Run("ip", "link", "del", "eth0")
	b.attach(c)
	c.Run("ping", "-c1", "-W2", b.network.Layout.GatewayV4.String())
}

func TestNetnsPruneLeavesNothing(t *testing.T) {
	b := newBench(t)
	kept, unwanted, dead := hosttest.NewContainer(t, "kept"), hosttest.NewContainer(t, "unwanted"), hosttest.NewContainer(t, "dead")
	keptAt := b.attach(kept)
	b.attach(unwanted)
	b.attach(dead)
	dead.Stop()
	// What a plug-in that was killed half way leaves.
	b.host.Run("ip", "link", "add", "vethstray", "type", "veth", "peer", "name", "vethpeer")
	b.host.Run("ip", "link", "set", "vethstray", "master", b.network.Layout.Name)
	stray := filepath.Join(b.cfg.StateDir, "leases", "services", "10.10.10.77")
	if err := os.WriteFile(stray, []byte(strings.Repeat("f", 64)+"\r\neth0"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.prune(kept)
	if out := b.host.Run("ip", "-o", "link", "show", "type", "veth"); strings.Count(out, "\n") != 2 || !strings.Contains(out, keptAt.Port) {
		t.Errorf("want eth0 and %s:\n%s", keptAt.Port, out)
	}
	if got := b.leases(); len(got) != 2 {
		t.Errorf("leases %v, want two", got)
	}
	if out, err := unwanted.Try("ip", "link", "show", "eth0"); err == nil {
		t.Errorf("still there:\n%s", out)
	}
	b.prune()
	if got := b.leases(); len(got) != 0 {
		t.Errorf("leases %v, want none", got)
	}
}

func TestNetnsForeignNetworkInTheContainerIsAConflict(t *testing.T) {
	b := newBench(t)
	c := hosttest.NewContainer(t, "one")
	other := nettest.NewHost(t, "other")
	nettest.Connect(c.Host, "eth0", []string{"198.51.100.1/24"}, other, "eth0", nil)
	_, err := b.tryAttach(c)
	wantKind(t, err, helperapi.KindConflict)
	c.Run("ip", "link", "show", "eth0")
	if got := b.leases(); len(got) != 0 {
		t.Errorf("leases %v, want none", got)
	}
}

func TestNetnsFailedAttachmentIsUndone(t *testing.T) {
	b := newBench(t)
	dir := t.TempDir()
	for _, plugin := range []string{"bridge", "host-local"} {
		if err := os.Symlink(filepath.Join(b.cfg.BinDir, plugin), filepath.Join(dir, plugin)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "offload"), []byte("#!/bin/sh\ntest \"$CNI_COMMAND\" != ADD\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	b.cfg.BinDir = dir
	b.attacher = b.newAttacher()
	c := hosttest.NewContainer(t, "one")
	if _, err := b.tryAttach(c); err == nil {
		t.Fatal("attached with a plug-in that fails")
	}
	if out := b.host.Run("ip", "-o", "link", "show", "type", "veth"); strings.Count(out, "\n") != 1 {
		t.Errorf("left behind:\n%s", out)
	}
	if got := b.leases(); len(got) != 0 {
		t.Errorf("leases %v, want none", got)
	}
}

func TestNetnsProve(t *testing.T) {
	host := nettest.NewHost(t, "host")
	good, own := hosttest.NewContainer(t, "good"), hosttest.NewContainerIn(t, host)
	dead := hosttest.NewContainer(t, "dead")
	dead.Stop()
	cases := map[string]struct {
		claim helperapi.Sandbox
		want  helperapi.Kind
	}{
		"good":             {good.Sandbox, ""},
		"another's pid":    {helperapi.Sandbox{ContainerID: own.ContainerID, PID: good.PID}, helperapi.KindDenied},
		"no container":     {helperapi.Sandbox{ContainerID: good.ContainerID, PID: os.Getpid()}, helperapi.KindDenied},
		"host's namespace": {own.Sandbox, helperapi.KindDenied},
		"dead":             {dead.Sandbox, helperapi.KindUnavailable},
		"no such process":  {helperapi.Sandbox{ContainerID: good.ContainerID, PID: 1 << 22}, helperapi.KindUnavailable},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			err := host.Do(func() error {
				s, err := Prove(c.claim)
				if err != nil {
					return err
				}
				return s.Close()
			})
			if c.want != "" {
				wantKind(t, err, c.want)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}
