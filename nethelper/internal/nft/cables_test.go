package nft

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"honeysens.org/dockersensor/nethelper/internal/ruleset"
	"honeysens.org/dockersensor/shared/helperapi"
	"honeysens.org/dockersensor/shared/nettest"
)

// cables is a lab whose services have a namespace and a port of the bridge each.
// The ports are not isolated, so that nothing but the rules is between them.
type cables struct {
	*lab
	one, two *nettest.Host
	mac      map[string]net.HardwareAddr // of "one", "two", and "svc0"
}

func newCables(t *testing.T) *cables {
	t.Helper()
	l := newLab(t)
	c := &cables{lab: l, one: l.service, two: nettest.NewHost(t, "two"), mac: map[string]net.HardwareAddr{}}
	c.two.Run("sysctl", "-qw", "net.ipv6.conf.all.accept_dad=0", "net.ipv6.conf.default.accept_dad=0")
	l.service.Run("ip", "addr", "del", "10.10.10.3/24", "dev", "eth0")
	l.service.Run("ip", "addr", "del", "fd12::3/64", "dev", "eth0")
	l.host.Run("ip", "link", "set", "svc0", "name", "port1")
	l.host.Run("ip", "addr", "flush", "dev", "port1")
	nettest.Connect(c.two, "eth0", []string{"10.10.10.3/24", "fd12::3/64"}, l.host, "port2", nil)
	c.two.Run("ip", "route", "add", "default", "via", "10.10.10.1")
	c.two.Run("ip", "-6", "route", "add", "default", "via", "fd12::1")
	l.host.Run("ip", "link", "add", "svc0", "address", "02:00:00:00:00:01", "type", "bridge", "mcast_snooping", "0")
	for _, port := range []string{"port1", "port2"} {
		l.host.Run("ip", "link", "set", port, "master", "svc0")
	}
	l.host.Run("ip", "link", "set", "svc0", "up")
	l.host.Run("ip", "addr", "add", "10.10.10.1/24", "dev", "svc0")
	l.host.Run("ip", "addr", "add", "fd12::1/64", "dev", "svc0", "nodad")
	for name, h := range map[string]*nettest.Host{"one": c.one, "two": c.two} {
		c.mac[name] = hardwareAddr(t, h, "eth0")
	}
	c.mac["svc0"] = hardwareAddr(t, l.host, "svc0")
	return c
}

// isolate separates the ports, as in the sensor. Otherwise, with br_netfilter, what
// goes from port to port would be seen by the rules of the host, and counted.
func (c *cables) isolate() {
	for _, port := range []string{"port1", "port2"} {
		c.host.Run("ip", "link", "set", port, "type", "bridge_slave", "isolated", "on")
	}
}

func hardwareAddr(t *testing.T, h *nettest.Host, name string) net.HardwareAddr {
	t.Helper()
	var link *net.Interface
	if err := h.Do(func() (err error) { link, err = net.InterfaceByName(name); return err }); err != nil {
		t.Fatal(err)
	}
	return link.HardwareAddr
}

func (c *cables) up(t testing.TB, change func(*ruleset.Config)) {
	t.Helper()
	c.lab.up(t, func(cfg *ruleset.Config) {
		cfg.Services[0].Port, cfg.Services[0].MAC = "port1", c.mac["one"]
		cfg.Services[1].Port, cfg.Services[1].MAC = "port2", c.mac["two"]
		if change != nil {
			change(cfg)
		}
	})
}

func (l *lab) observe(t testing.TB, service string) Service {
	t.Helper()
	o, err := l.table.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return o.Services[service]
}

// forgery is a frame that service one must not send, and whom it would reach.
type forgery struct {
	name  string
	to    *nettest.Host
	frame []byte
}

func (c *cables) forgeries() []forgery {
	own, two, bridge := c.mac["one"], c.mac["two"], c.mac["svc0"]
	all, routers := net.HardwareAddr{255, 255, 255, 255, 255, 255}, net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}
	const own4, own6, gw4, gw6, ll6 = "10.10.10.2", "fd12::2", "10.10.10.1", "fd12::1", "ff02::1"
	link := linkLocal(own).String()
	return []forgery{
		{"IPv4 of another service", c.host, udpFrame(own, bridge, "10.10.10.3", gw4, 1000, 5556)},
		{"IPv6 of another service", c.host, udpFrame(own, bridge, "fd12::3", gw6, 1000, 5556)},
		{"IPv4 of an attacker", c.host, udpFrame(own, bridge, attacker4, gw4, 1000, 5556)},
		{"IPv6 of an attacker", c.host, udpFrame(own, bridge, attacker6, gw6, 1000, 5556)},
		{"IPv4 of the gateway", c.two, udpFrame(own, two, gw4, "10.10.10.3", 1000, 80)},
		{"IPv6 of the gateway", c.two, udpFrame(own, two, gw6, "fd12::3", 1000, 80)},
		{"IPv4, hardware address of another service", c.host, udpFrame(two, bridge, own4, gw4, 1000, 5556)},
		{"IPv6, hardware address of another service", c.host, udpFrame(two, bridge, own6, gw6, 1000, 5556)},
		{"IPv4, hardware address of the bridge", c.two, udpFrame(bridge, two, own4, "10.10.10.3", 1000, 80)},
		{"link-local address of another", c.host, udpFrame(own, bridge, linkLocal(two).String(), gw6, 1000, 5556)},
		{"ARP: the gateway is here", c.two, arpFrame(own, two, 2, own, gw4, two, "10.10.10.3")},
		{"ARP: the gateway is here, everybody", c.two, arpFrame(own, all, 1, own, gw4, all, gw4)},
		{"ARP: another service is here", c.host, arpFrame(own, bridge, 2, own, "10.10.10.3", bridge, gw4)},
		{"ARP: another hardware address in the message", c.host, arpFrame(own, bridge, 2, two, own4, bridge, gw4)},
		{"ARP: another hardware address in the frame", c.host, arpFrame(two, bridge, 2, own, own4, bridge, gw4)},
		{"ND: the gateway is here", c.two, icmpFrame(own, two, gw6, "fd12::3", advert(gw6, own))},
		{"ND: the gateway is here, everybody", c.two, icmpFrame(own, routers, gw6, ll6, advert(gw6, own))},
		{"ND: another service asks", c.host, icmpFrame(own, bridge, "fd12::3", gw6, solicit(gw6, own))},
		{"router advertisement", c.two, icmpFrame(own, routers, link, ll6, []byte{134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0})},
		{"router advertisement, routable source", c.host, icmpFrame(own, bridge, own6, gw6, []byte{134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0})},
		{"redirect", c.two, icmpFrame(own, two, link, "fd12::3", append([]byte{137, 0, 0, 0, 0, 0, 0, 0}, make([]byte, 32)...))},
		{"DHCP offer", c.two, udpFrame(own, all, own4, "255.255.255.255", 67, 68)},
		{"DHCPv6 reply", c.two, udpFrame(own, two, link, "fd12::3", 547, 546)},
		{"within a VLAN", c.two, slices.Concat(two, own, []byte{0x81, 0, 0, 5}, udpFrame(own, two, own4, "10.10.10.3", 1000, 80)[12:])},
		{"no IP", c.two, slices.Concat(two, own, []byte{0x88, 0xb5}, make([]byte, 50))},
	}
}

// TestNetnsNobodyIsAnother: what a service sends under the name of somebody else,
// or in the part of a router, arrives without the rules and not with them, and is
// counted for the one whose cable it came by.
func TestNetnsNobodyIsAnother(t *testing.T) {
	t.Parallel()
	c := newCables(t)
	for _, f := range c.forgeries() {
		if !c.arrives(t, f) {
			t.Errorf("%s: does not arrive without rules", f.name)
		}
	}
	c.up(t, nil)
	for _, f := range c.forgeries() {
		before := c.observe(t, "one").Forged.Packets
		if c.arrives(t, f) {
			t.Errorf("%s: arrives", f.name)
		}
		if n := c.observe(t, "one").Forged.Packets - before; n != 1 {
			t.Errorf("%s: counted %d times", f.name, n)
		}
	}
	if two := c.observe(t, "two"); two.Forged.Packets != 0 {
		t.Errorf("counted for another: %+v", two)
	}
}

// TestNetnsAGenuineServiceIsNotHindered has all that a service does before and
// while it works, from an interface that has just come up.
func TestNetnsAGenuineServiceIsNotHindered(t *testing.T) {
	t.Parallel()
	c := newCables(t)
	c.up(t, nil)
	for _, addr := range []string{"0.0.0.0:5556", "[::]:5556"} {
		serve(t, c.host, "tcp", addr, "collector")
	}
	c.isolate()
	c.one.Run("ip", "link", "set", "eth0", "down")
	c.one.Run("sysctl", "-qw", "net.ipv6.conf.eth0.accept_dad=1", "net.ipv6.conf.eth0.dad_transmits=1")
	c.one.Run("ip", "link", "set", "eth0", "up")
	c.one.Run("ip", "addr", "replace", "fd12::2/64", "dev", "eth0")
	c.one.Run("ip", "route", "replace", "default", "via", "10.10.10.1")
	c.one.Run("ip", "-6", "route", "replace", "default", "via", "fd12::1")
	until(t, "addresses are not tentative", func() bool {
		out := c.one.Run("ip", "-6", "addr", "show", "dev", "eth0")
		return strings.Contains(out, "fe80:") && strings.Contains(out, "fd12::2") && !strings.Contains(out, "tentative")
	})
	c.host.Run("ip", "neigh", "flush", "dev", "svc0")
	for _, addr := range []string{"10.10.10.2:2022", "[fd12::2]:2022"} {
		serve(t, c.one, "tcp", addr, "one")
	}
	for _, gateway := range []string{"10.10.10.1:5556", "[fd12::1]:5556"} {
		got, err := askFrom(t.Context(), c.one, "tcp", "", gateway)
		if !strings.HasPrefix(got, "collector") {
			t.Errorf("%s answers %q, %v", gateway, got, err)
		}
	}
	for host, attacker := range map[string]string{host4: attacker4, host6: attacker6} {
		want(t, c.attacker, "tcp", at(host, 22), "one "+attacker)
	}
	one := c.observe(t, "one")
	if one.Forged.Packets != 0 || one.Refused.Packets != 0 || one.Bounded.Packets != 0 || one.Redirected.Packets != 2 {
		t.Errorf("counted %+v", one)
	}
}

// TestNetnsWithoutPortsAndCounts: kernels that lack what there is now.
func TestNetnsWithoutPortsAndCounts(t *testing.T) {
	t.Parallel()
	c := newCables(t)
	if c.table.Lacks() != (ruleset.Lacks{}) {
		t.Fatalf("this kernel lacks %+v", c.table.Lacks())
	}
	c.up(t, func(cfg *ruleset.Config) { cfg.Lacks = ruleset.Lacks{Ports: true, Tracked: true} })
	if out := c.host.Run("nft", "list", "ruleset"); strings.Contains(out, "table bridge") || strings.Contains(out, "ct count") {
		t.Errorf("rules that this kernel has not:\n%s", out)
	}
	serve(t, c.one, "tcp", "10.10.10.2:2022", "one")
	want(t, c.attacker, "tcp", at(host4, 22), "one "+attacker4)
}

// arrives sends a frame from service one and tells whether it gets there. What
// comes behind it tells that it does not.
func (c *cables) arrives(t *testing.T, f forgery) bool {
	t.Helper()
	name := "eth0"
	if f.to == c.host {
		name = "svc0"
	}
	receiver := packetSocket(t, f.to, name)
	defer func() { _ = unix.Close(receiver) }()
	sender := packetSocket(t, c.one, "eth0")
	defer func() { _ = unix.Close(sender) }()
	// Allowed in any state: a question for the one who listens.
	to, asked := c.mac["two"], "10.10.10.3"
	if f.to == c.host {
		to, asked = c.mac["svc0"], "10.10.10.1"
	}
	c.teach(t)
	last := arpFrame(c.mac["one"], to, 1, c.mac["one"], "10.10.10.2", make(net.HardwareAddr, 6), asked)
	for _, frame := range [][]byte{f.frame, last} {
		if _, err := unix.Write(sender, frame); err != nil {
			t.Fatalf("%s: send: %v", f.name, err)
		}
	}
	buf := make([]byte, 2000)
	for {
		n, err := unix.Read(receiver, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			t.Fatalf("%s: receive: %v", f.name, err)
		}
		switch got := buf[:n]; {
		case sameFrame(f.frame, got) || sameFrame(untagged(f.frame), got):
			return true
		case sameFrame(last, got):
			return false
		}
	}
}

// teach lets the bridge learn again where service two is, which a forged frame may
// have changed.
func (c *cables) teach(t *testing.T) {
	t.Helper()
	sender := packetSocket(t, c.two, "eth0")
	defer func() { _ = unix.Close(sender) }()
	frame := arpFrame(c.mac["two"], c.mac["svc0"], 1, c.mac["two"], "10.10.10.3", make(net.HardwareAddr, 6), "10.10.10.1")
	if err := writeFrame(sender, frame); err != nil {
		t.Fatal(err)
	}
}

// sameFrame compares frames but for what fills them up, which br_netfilter cuts off.
func sameFrame(sent, got []byte) bool {
	return bytes.Equal(bytes.TrimRight(sent, "\x00"), bytes.TrimRight(got, "\x00"))
}

// untagged: the kernel takes the VLAN out of a frame before it shows it.
func untagged(frame []byte) []byte {
	if binary.BigEndian.Uint16(frame[12:]) != 0x8100 {
		return frame
	}
	return slices.Concat(frame[:12], frame[16:])
}

// packetSocket sends and gets whole frames, for ten seconds at most.
func packetSocket(t *testing.T, h *nettest.Host, name string) (fd int) {
	t.Helper()
	const all = unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8
	err := h.Do(func() error {
		link, err := net.InterfaceByName(name)
		if err != nil {
			return err
		}
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		patience := unix.NsecToTimeval((10 * time.Second).Nanoseconds())
		return errors.Join(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &patience),
			unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: link.Index}))
	})
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

func linkLocal(mac net.HardwareAddr) netip.Addr {
	return netip.AddrFrom16([16]byte{0xfe, 0x80, 8: mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]})
}

func etherFrame(from, to net.HardwareAddr, kind uint16, payload []byte) []byte {
	frame := slices.Concat(to, from, binary.BigEndian.AppendUint16(nil, kind), payload)
	return append(frame, make([]byte, max(0, 60-len(frame)))...)
}

func udpFrame(from, to net.HardwareAddr, src, dst string, sport, dport uint16) []byte {
	datagram := binary.BigEndian.AppendUint16(nil, sport)
	datagram = binary.BigEndian.AppendUint16(datagram, dport)
	datagram = append(datagram, 0, 12, 0, 0, 't', 'e', 's', 't')
	return ipFrame(from, to, src, dst, unix.IPPROTO_UDP, datagram, 6)
}

func icmpFrame(from, to net.HardwareAddr, src, dst string, message []byte) []byte {
	return ipFrame(from, to, src, dst, unix.IPPROTO_ICMPV6, message, 2)
}

// ipFrame puts a header and a checksum at the given place in front.
func ipFrame(from, to net.HardwareAddr, src, dst string, proto byte, payload []byte, sumAt int) []byte {
	a, b := netip.MustParseAddr(src), netip.MustParseAddr(dst)
	payload = slices.Clone(payload)
	binary.BigEndian.PutUint16(payload[sumAt:], transportSum(a, b, proto, payload))
	if a.Is6() {
		header := []byte{0x60, 0, 0, 0, 0, byte(len(payload)), proto, 255}
		return etherFrame(from, to, unix.ETH_P_IPV6, slices.Concat(header, a.AsSlice(), b.AsSlice(), payload))
	}
	header := slices.Concat([]byte{0x45, 0, 0, byte(20 + len(payload)), 0, 1, 0, 0, 64, proto, 0, 0}, a.AsSlice(), b.AsSlice())
	binary.BigEndian.PutUint16(header[10:], ^fold(header))
	return etherFrame(from, to, unix.ETH_P_IP, slices.Concat(header, payload))
}

func transportSum(src, dst netip.Addr, proto byte, payload []byte) uint16 {
	pseudo := slices.Concat(src.AsSlice(), dst.AsSlice(), []byte{0, 0, 0, byte(len(payload)), 0, 0, 0, proto}, payload)
	return ^fold(pseudo)
}

// fold is the sum over words of 16 bits, an even number of bytes.
func fold(data []byte) uint16 {
	var sum uint32
	for ; len(data) > 1; data = data[2:] {
		sum += uint32(binary.BigEndian.Uint16(data))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

// arpFrame is a question (1) or an answer (2): RFC 826.
func arpFrame(from, to net.HardwareAddr, operation byte, srcMAC net.HardwareAddr, src string, dstMAC net.HardwareAddr, dst string) []byte {
	message := slices.Concat([]byte{0, 1, 8, 0, 6, 4, 0, operation}, srcMAC, netip.MustParseAddr(src).AsSlice(), dstMAC, netip.MustParseAddr(dst).AsSlice())
	return etherFrame(from, to, unix.ETH_P_ARP, message)
}

// advert and solicit are messages of neighbour discovery: RFC 4861, 4.3 and 4.4.
func advert(target string, mac net.HardwareAddr) []byte {
	return slices.Concat([]byte{136, 0, 0, 0, 0x20, 0, 0, 0}, netip.MustParseAddr(target).AsSlice(), []byte{2, 1}, mac)
}

func solicit(target string, mac net.HardwareAddr) []byte {
	return slices.Concat([]byte{135, 0, 0, 0, 0, 0, 0, 0}, netip.MustParseAddr(target).AsSlice(), []byte{1, 1}, mac)
}

// TestNetnsAttemptsAreTold: who tried to go where.
func TestNetnsAttemptsAreTold(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.up(t, nil)
	for from, targets := range map[string][]string{
		"10.10.10.2": {at(host4, 22), at(attacker4, 443), at("10.10.10.1", 9), at(public4, 25)},
		"fd12::2":    {at(host6, 22), at(attacker6, 443), at("fd12::1", 9), at(public6, 25)},
	} {
		for i, to := range targets {
			l.wantRefused(t, []string{"tcp", "udp"}[i%2], from, to)
		}
	}
	for from, to := range map[string]string{"10.10.10.2": attacker4, "fd12::2": attacker6} {
		before := l.refused(t)
		if out, err := l.service.Try("ping", "-c1", "-W0.1", "-I", from, to); err == nil {
			t.Errorf("%s answers: %s", to, out)
		}
		until(t, "the refusal is counted", func() bool { return l.refused(t) > before })
	}
	one, two := l.observe(t, "one"), l.observe(t, "two")
	got := make([]string, len(one.Tried))
	for i, attempt := range one.Tried {
		got[i] = attempt.String()
	}
	wanted := []string{
		"1.2.3.4 25/udp", "10.10.10.1 9/tcp", "192.0.2.1 22/tcp", "192.0.2.2 icmp", "192.0.2.2 443/udp",
		"2001:db8:a::1 22/tcp", "2001:db8:a::2 ipv6-icmp", "2001:db8:a::2 443/udp", "2a00::4 25/udp", "fd12::1 9/tcp",
	}
	slices.Sort(got)
	slices.Sort(wanted)
	if !slices.Equal(got, wanted) {
		t.Errorf("tried %q, want %q", got, wanted)
	}
	if one.Refused.Packets < 10 || one.Refused.Packets != l.refused(t) || two.Refused.Packets != 0 || len(two.Tried) != 0 {
		t.Errorf("one %+v, two %+v", one, two)
	}
	// One that tries much has no more places than fit, and counts go on.
	for port := range 60 {
		if err := sendFrom(l.service, "10.10.10.3", at(attacker4, 1000+port)); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "all are counted", func() bool { return l.observe(t, "two").Refused.Packets == 60 })
	if n := len(l.observe(t, "two").Tried); n < 1 || n > helperapi.MaxTried {
		t.Errorf("%d places noted, want up to %d", n, helperapi.MaxTried)
	}
}

func sendFrom(h *nettest.Host, from, to string) error {
	return h.Do(func() error {
		d := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(from)}}
		conn, err := d.Dial("udp", to)
		if err != nil {
			return err
		}
		_, err = conn.Write([]byte("x"))
		return errors.Join(err, conn.Close())
	})
}

// together opens n connections at once and returns how many were answered
// within two seconds.
func together(t *testing.T, h *nettest.Host, n int, network, from, to string) int {
	t.Helper()
	var wg sync.WaitGroup
	answers := make(chan string, n)
	for range n {
		wg.Go(func() {
			ctx, cancel := contextFor(t, 1500*time.Millisecond)
			defer cancel()
			got, _ := askFrom(ctx, h, network, from, to)
			answers <- got
		})
	}
	wg.Wait()
	close(answers)
	count := 0
	for got := range answers {
		if got != "" {
			count++
		}
	}
	return count
}

func writeFrame(fd int, frame []byte) error {
	_, err := unix.Write(fd, frame)
	return err
}
