package iface

import (
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/insomniacslk/dhcp/dhcpv4"
	"go.uber.org/zap"
)

func ack(options ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	message, err := dhcpv4.New(dhcpv4.PrependModifiers(options,
		dhcpv4.WithMessageType(dhcpv4.MessageTypeAck), dhcpv4.WithYourIP(net.IPv4(192, 0, 2, 7)),
		dhcpv4.WithNetmask(net.CIDRMask(24, 32)), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(192, 0, 2, 1))),
		dhcpv4.WithLeaseTime(600), dhcpv4.WithRouter(net.IPv4(192, 0, 2, 254)), dhcpv4.WithDNS(net.IPv4(192, 0, 2, 253)),
	)...)
	if err != nil {
		panic(err)
	}
	return message
}

func TestParseLease(t *testing.T) {
	addr := netip.MustParseAddr
	good := lease{
		address: netip.MustParsePrefix("192.0.2.7/24"), gateway: addr("192.0.2.254"), dns: []netip.Addr{addr("192.0.2.253")},
		server: addr("192.0.2.1"), renew: 300 * time.Second, rebind: 525 * time.Second, lasted: 600 * time.Second,
	}
	with := func(change func(*lease)) lease {
		l := good
		change(&l)
		return l
	}
	cases := map[string]struct {
		option dhcpv4.Modifier
		want   lease
		err    string
	}{
		"plain":           {dhcpv4.WithNetmask(net.CIDRMask(24, 32)), good, ""},
		"own times":       {dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionRenewTimeValue, []byte{0, 0, 0, 9})), with(func(l *lease) { l.renew = 9 * time.Second }), ""},
		"renew after end": {dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionRenewTimeValue, []byte{1, 0, 0, 9})), good, ""},
		"without an end": {dhcpv4.WithLeaseTime(1<<32 - 1), with(func(l *lease) {
			l.lasted, l.renew, l.rebind = maxLease, maxLease/2, maxLease*7/8
		}), ""},
		"gateway elsewhere":  {dhcpv4.WithRouter(net.IPv4(198, 51, 100, 1)), with(func(l *lease) { l.gateway = netip.Addr{} }), ""},
		"gateway itself":     {dhcpv4.WithRouter(net.IPv4(192, 0, 2, 7)), with(func(l *lease) { l.gateway = netip.Addr{} }), ""},
		"impossible DNS":     {dhcpv4.WithDNS(net.IPv4(224, 0, 0, 1), net.IPv4zero), with(func(l *lease) { l.dns = nil }), ""},
		"no mask":            {dhcpv4.WithoutOption(dhcpv4.OptionSubnetMask), good, ""},
		"mask with holes":    {dhcpv4.WithNetmask(net.IPv4Mask(255, 0, 255, 0)), lease{}, "impossible"},
		"mask of everything": {dhcpv4.WithNetmask(net.CIDRMask(0, 32)), lease{}, "not the address of a host"},
		"no address":         {dhcpv4.WithYourIP(net.IPv4zero), lease{}, "impossible"},
		"loopback":           {dhcpv4.WithYourIP(net.IPv4(127, 0, 0, 1)), lease{}, "not the address of a host"},
		"multicast":          {dhcpv4.WithYourIP(net.IPv4(224, 0, 0, 1)), lease{}, "not the address of a host"},
		"broadcast":          {dhcpv4.WithYourIP(net.IPv4(192, 0, 2, 255)), lease{}, "not the address of a host"},
		"no server":          {dhcpv4.WithoutOption(dhcpv4.OptionServerIdentifier), lease{}, "from no server"},
		"too short":          {dhcpv4.WithLeaseTime(1), lease{}, "too short"},
		"no lease time":      {dhcpv4.WithoutOption(dhcpv4.OptionIPAddressLeaseTime), lease{}, "too short"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := parseLease("eth0", ack(c.option), time.Time{})
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("got %+v, %v; want an error with %q", got, err, c.err)
				}
				return
			}
			if diff := cmp.Diff(c.want, got, cmp.AllowUnexported(lease{}), cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); err != nil || diff != "" {
				t.Errorf("%v\n%s", err, diff)
			}
		})
	}
}

func FuzzParseLease(f *testing.F) {
	f.Add(ack().ToBytes())
	f.Add(ack(dhcpv4.WithNetmask(net.IPv4Mask(255, 0, 255, 0))).ToBytes())
	f.Add(ack(dhcpv4.WithRouter(), dhcpv4.WithDNS()).ToBytes())
	f.Fuzz(func(t *testing.T, raw []byte) {
		message, err := dhcpv4.FromBytes(raw)
		if err != nil {
			return
		}
		l, err := parseLease("eth0", message, time.Now())
		if err != nil {
			return
		}
		if !l.address.IsValid() || l.lasted < minLease || l.renew <= 0 || l.renew > l.rebind || l.rebind > l.lasted || len(l.dns) > maxNameServers {
			t.Errorf("accepted %+v", l)
		}
	})
}

func TestUnwrapReadsWhatWrapWrote(t *testing.T) {
	raw := wrap([]byte("hello"), netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("192.0.2.1"))
	if checksum(raw[:ipHeader]) != 0 {
		t.Error("wrong checksum of the IP header")
	}
	// From a server to a client.
	copy(raw[20:24], []byte{0, serverPort, 0, clientPort})
	got, from, ok := unwrap(raw)
	if !ok || string(got) != "hello" || from.String() != "192.0.2.7:67" {
		t.Errorf("got %q from %v, %v", got, from, ok)
	}
	for end := range raw {
		if _, _, ok := unwrap(raw[:end]); ok {
			t.Errorf("%d of %d bytes are taken", end, len(raw))
		}
	}
}

func FuzzUnwrap(f *testing.F) {
	raw := wrap([]byte("hello"), netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("192.0.2.1"))
	copy(raw[20:24], []byte{0, serverPort, 0, clientPort})
	f.Add(raw)
	f.Add(raw[:ipHeader])
	f.Fuzz(func(t *testing.T, raw []byte) {
		if content, _, ok := unwrap(raw); ok && len(content) > len(raw)-ipHeader-udpHeader {
			t.Errorf("%d bytes out of %d", len(content), len(raw))
		}
	})
}

func TestRecordSurvivesTheAlias(t *testing.T) {
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	cases := map[string]record{
		"nothing": {sensor: "0123456789ab", wasUp: true},
		"all": {
			sensor: "0123456789ab", claimed: true, mac: mac, set: net.HardwareAddr{2, 0, 0, 0, 0, 2},
			address: netip.MustParsePrefix("2001:db8:1111:2222:3333:4444:5555:6666/128"), alias: "rack 7 = \"uplink\"",
		},
	}
	for name, want := range cases {
		got, ours := parseRecord(want.String())
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(record{}), cmpopts.EquateComparable(netip.Prefix{})); !ours || diff != "" {
			t.Errorf("%s: %v\n%s", name, ours, diff)
		}
	}
}

func TestParseRecordRefuses(t *testing.T) {
	good := record{sensor: "0123456789ab", wasUp: true}.String()
	for _, alias := range []string{
		"", "uplink", "honeysens", good + " more=1", strings.Replace(good, "up=1", "up=2", 1), strings.Replace(good, "mac=", "mac=02:00:00:00:00:01", 1),
		strings.Replace(good, "addr=", "addr=192.0.2.1", 1), strings.Replace(good, "was=", "was=%", 1),
		"honeysens 0123456789ab if=eth0 v4=0 all4=0 v6=force:0",
	} {
		if got, ours := parseRecord(alias); ours {
			t.Errorf("%q is read as %+v", alias, got)
		}
	}
}

func FuzzParseRecord(f *testing.F) {
	f.Add(record{sensor: "0123456789ab", wasUp: true}.String())
	f.Add("honeysens 0123456789ab up=0 eap=1 mac=02:00:00:00:00:01 set=02:00:00:00:00:02 addr=192.0.2.1/24 was=")
	f.Fuzz(func(t *testing.T, alias string) {
		r, ours := parseRecord(alias)
		if !ours {
			return
		}
		if again, ours := parseRecord(r.String()); !ours || again.String() != r.String() {
			t.Errorf("%q becomes %q", alias, r)
		}
	})
}

func TestResolvConf(t *testing.T) {
	mine := func(sensor string) bool { return sensor == "0123456789ab" }
	for name, before := range map[string]string{"empty": "", "plain": "nameserver 192.0.2.1\nsearch example.org\n", "no newline": "nameserver 192.0.2.1"} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "resolv.conf")
			if err := os.WriteFile(path, []byte(before), 0o600); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if err := writeResolv(path, "0123456789ab", []netip.Addr{netip.MustParseAddr("192.0.2.9")}); err != nil {
					t.Fatal(err)
				}
			}
			if raw, err := os.ReadFile(path); err != nil || strings.Count(string(raw), "\nnameserver 192.0.2.9\n") != 1 {
				t.Errorf("%v\n%s", err, raw)
			}
			if done, err := restoreResolv(path, func(string) bool { return false }); done || err != nil {
				t.Errorf("another sensor's: %v, %v", done, err)
			}
			if done, err := restoreResolv(path, mine); !done || err != nil {
				t.Errorf("restore: %v, %v", done, err)
			}
			if raw, err := os.ReadFile(path); err != nil || string(raw) != before {
				t.Errorf("%v\n%s", err, raw)
			}
		})
	}
	if done, err := restoreResolv("/nowhere", mine); done || err != nil {
		t.Errorf("missing: %v, %v", done, err)
	}
}

func TestRunEndsWithAContextThatHasEnded(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := New(Config{SensorID: testID, Iface: "eth0"}, zap.NewNop()).Run(ctx); err != nil {
		t.Error(err)
	}
}
