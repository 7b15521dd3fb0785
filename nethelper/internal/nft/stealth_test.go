package nft

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"honeysens.org/dockersensor/nethelper/internal/ruleset"
	"honeysens.org/dockersensor/shared/helperapi"
	"honeysens.org/dockersensor/shared/nettest"
)

// tap sees what arrives at the attacker's interface, from the IP header on.
type tap struct{ fd int }

func newTap(t *testing.T, h *nettest.Host) tap {
	t.Helper()
	var fd int
	err := h.Do(func() (err error) {
		const all = unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM, all)
		if err != nil {
			return err
		}
		moment := unix.NsecToTimeval(int64(300 * time.Millisecond))
		return unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &moment)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	return tap{fd}
}

// next returns the distance and the rest of the next packet from an address
// that match accepts, which gets the protocol and what follows the IP header;
// false when there is none for a moment.
func (p tap) next(from netip.Addr, match func(proto byte, data []byte) bool) (hops byte, data []byte, ok bool) {
	buf := make([]byte, 2000)
	for {
		n, sa, err := unix.Recvfrom(p.fd, buf, 0)
		if err != nil {
			return 0, nil, false
		}
		if ll, isLink := sa.(*unix.SockaddrLinklayer); isLink && ll.Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		pkt := buf[:n]
		var src netip.Addr
		var proto byte
		switch {
		case n >= 20 && pkt[0]>>4 == 4:
			src, hops, proto, data = netip.AddrFrom4([4]byte(pkt[12:16])), pkt[8], pkt[9], pkt[20:]
		case n >= 40 && pkt[0]>>4 == 6:
			src, hops, proto, data = netip.AddrFrom16([16]byte(pkt[8:24])), pkt[7], pkt[6], pkt[40:]
		default:
			continue
		}
		if src == from && match(proto, data) {
			return hops, data, true
		}
	}
}

// fromPort matches TCP packets of a port.
func fromPort(port uint16) func(byte, []byte) bool {
	return func(proto byte, data []byte) bool {
		return proto == unix.IPPROTO_TCP && len(data) >= 20 && uint16(data[0])<<8|uint16(data[1]) == port
	}
}

func icmp(proto byte, _ []byte) bool { return proto == unix.IPPROTO_ICMP }

func icmpOrV6Error(proto byte, data []byte) bool {
	return icmp(proto, data) || proto == unix.IPPROTO_ICMPV6 && data[0] < 128
}

// stealthLab has a program of the host at 7, and redirects 22 and, to the
// catch-all, everything else.
func stealthLab(t *testing.T) *lab {
	t.Helper()
	l := newLab(t)
	l.services(t)
	serve(t, l.host, "tcp", "0.0.0.0:7", "host")
	serve(t, l.host, "tcp", "[::]:7", "host")
	l.up(t, func(c *ruleset.Config) {
		c.Protected = []helperapi.Port{{Protocol: helperapi.TCP, Number: 99}}
		c.ForwardingWasOffV4, c.ForwardingWasOffV6 = true, true
	})
	return l
}

// TestNetnsRedirectedPortsLookLikeTheHosts compares what comes back from ports
// of services with what comes back from a port of the host.
func TestNetnsRedirectedPortsLookLikeTheHosts(t *testing.T) {
	t.Parallel()
	l := stealthLab(t)
	seen := newTap(t, l.attacker)
	const fin, syn, rst, psh, ack, urg = 1, 2, 4, 8, 16, 32
	probes := map[string]struct {
		flags byte
		reply byte // the flags of what comes back; 0 is silence
	}{
		"SYN":          {syn, syn | ack},
		"ACK":          {ack, rst},
		"SYN and ACK":  {syn | ack, rst},
		"FIN and ACK":  {fin | ack, rst},
		"FIN":          {fin, 0},
		"nothing":      {0, 0},
		"a tree":       {fin | psh | urg, 0},
		"SYN and FIN":  {syn | fin, 0},
		"RST":          {rst, 0},
		"data, no ACK": {psh, 0},
	}
	source := uint16(30000)
	for _, f := range []struct{ host, attacker string }{{host4, attacker4}, {host6, attacker6}} {
		for name, probe := range probes {
			for _, port := range []uint16{7, 22, 80} {
				t.Run(fmt.Sprintf("%s to port %d of %s", name, port, f.host), func(t *testing.T) {
					source++
					if err := sendTCP(l.attacker, f.attacker, f.host, source, port, probe.flags, ""); err != nil {
						t.Fatal(err)
					}
					mine := func(proto byte, data []byte) bool {
						return fromPort(port)(proto, data) && uint16(data[2])<<8|uint16(data[3]) == source
					}
					hops, data, answered := seen.next(netip.MustParseAddr(f.host), mine)
					if answered != (probe.reply != 0) {
						t.Fatalf("answered is %v, want %v: %x", answered, probe.reply != 0, data)
					}
					if answered && (hops != 64 || data[13] != probe.reply) {
						t.Errorf("flags %#x with TTL %d, want %#x with 64", data[13], hops, probe.reply)
					}
				})
			}
		}
	}
	// What nobody has, and nobody redirects, says so.
	for flags, reply := range map[byte]byte{fin: rst | ack, 0: rst | ack} {
		if err := sendTCP(l.attacker, attacker4, host4, 29999, 99, flags, ""); err != nil {
			t.Fatal(err)
		}
		if _, data, ok := seen.next(netip.MustParseAddr(host4), fromPort(99)); !ok || data[13] != reply {
			t.Errorf("flags %#x to a closed port: %x, want a reset", flags, data)
		}
	}
}

// TestNetnsLastHop: a packet that may go no further than the host reaches a
// service, as it would reach a program.
func TestNetnsLastHop(t *testing.T) {
	t.Parallel()
	l := stealthLab(t)
	seen := newTap(t, l.attacker)
	l.attacker.Run("sysctl", "-qw", "net.ipv4.ip_default_ttl=1", "net.ipv6.conf.all.hop_limit=1", "net.ipv6.conf.eth0.hop_limit=1")
	for _, f := range []struct{ host, attacker string }{{host4, attacker4}, {host6, attacker6}} {
		for _, port := range []int{22, 80, 7} {
			who := map[int]string{22: "one", 80: "two", 7: "host"}[port]
			want(t, l.attacker, "tcp", at(f.host, port), who+" "+f.attacker)
		}
		if _, data, ok := seen.next(netip.MustParseAddr(f.host), icmpOrV6Error); ok {
			t.Errorf("%s sends an error: %x", f.host, data)
		}
	}
	l.attacker.Run("ip", "route", "add", "203.0.113.0/24", "via", host4)
	if err := sendTCP(l.attacker, attacker4, "203.0.113.9", 31000, 80, 2, ""); err != nil {
		t.Fatal(err)
	}
	if _, data, ok := seen.next(netip.MustParseAddr(host4), icmp); ok {
		t.Errorf("the host shows itself as a router: %x", data)
	}
}

// TestNetnsNoRedirectsForStrangers: a host that was no router is none, not even
// one that knows a better way. Without the rules it says so.
func TestNetnsNoRedirectsForStrangers(t *testing.T) {
	t.Parallel()
	for _, off := range []bool{true, false} {
		t.Run(fmt.Sprintf("forwarding was off: %v", off), func(t *testing.T) {
			l := newLab(t)
			l.up(t, func(c *ruleset.Config) { c.ForwardingWasOffV4, c.ForwardingWasOffV6 = off, off })
			l.host.Run("ip", "route", "add", "203.0.113.0/24", "via", attacker4)
			l.host.Run("ip", "-6", "route", "add", "2001:db8:f::/48", "via", attacker6)
			l.attacker.Run("ip", "route", "add", "203.0.113.0/24", "via", host4)
			l.attacker.Run("ip", "-6", "route", "add", "2001:db8:f::/48", "via", host6)
			for _, f := range []struct{ from, host, to string }{{attacker4, host4, "203.0.113.9"}, {attacker6, host6, "2001:db8:f::9"}} {
				seen := newTap(t, l.attacker)
				if err := sendTCP(l.attacker, f.from, f.to, 31000, 80, 2, ""); err != nil {
					t.Fatal(err)
				}
				returned := func(proto byte, data []byte) bool {
					return fromPort(31000)(proto, data) || proto == unix.IPPROTO_ICMP
				}
				_, _, fromHost := seen.next(netip.MustParseAddr(f.host), returned)
				_, _, forwarded := newTap(t, l.attacker).next(netip.MustParseAddr(f.from), returned)
				if off && (fromHost || forwarded) {
					t.Errorf("to %s: the host answers %v, forwards %v", f.to, fromHost, forwarded)
				}
				if !off && f.from == attacker4 && !fromHost {
					t.Error("without the rules nothing is sent: this case shows nothing")
				}
			}
		})
	}
}

// TestNetnsMisfitGetsNoReset: a packet that does not fit a redirected
// connection must not make the host, which knows nothing of it, end it.
func TestNetnsMisfitGetsNoReset(t *testing.T) {
	t.Parallel()
	const ack = 16
	for _, f := range []struct{ host, attacker, service string }{
		{host4, attacker4, "10.10.10.2:2022"}, {host6, attacker6, "[fd12::2]:2022"},
	} {
		l := newLab(t)
		l.up(t, nil)
		var listener net.Listener
		var client net.Conn
		must(t, l.service.Do(func() (err error) { listener, err = net.Listen("tcp", f.service); return err }))
		t.Cleanup(func() { _ = listener.Close() })
		must(t, l.attacker.Do(func() (err error) { client, err = net.Dial("tcp", at(f.host, 22)); return err }))
		t.Cleanup(func() { _ = client.Close() })
		server, err := listener.Accept()
		must(t, err)
		t.Cleanup(func() { _ = server.Close() })
		// Its sequence number has nothing to do with the connection's.
		must(t, sendTCP(l.attacker, f.attacker, f.host, client.LocalAddr().(*net.TCPAddr).AddrPort().Port(), 22, ack, "misfit"))
		_, err = server.Write([]byte("still there"))
		must(t, err)
		must(t, client.SetReadDeadline(time.Now().Add(2*time.Second)))
		buf := make([]byte, 20)
		if n, err := client.Read(buf); string(buf[:n]) != "still there" {
			t.Errorf("the connection reads %q, %v", buf[:n], err)
		}
		must(t, client.SetReadDeadline(time.Now().Add(100*time.Millisecond)))
		if _, err := client.Read(buf); !os.IsTimeout(err) {
			t.Errorf("the connection ended: %v", err)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
