package nft

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
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

// packet is what is behind its IP header, and the distance that it has left.
type packet struct {
	src   netip.Addr
	hops  byte
	proto byte
	data  []byte
}

// all returns what has arrived, up to a moment of silence.
func (p tap) all() []packet {
	var list []packet
	buf := make([]byte, 2000)
	for {
		n, sa, err := unix.Recvfrom(p.fd, buf, 0)
		if err != nil {
			return list
		}
		if ll, isLink := sa.(*unix.SockaddrLinklayer); isLink && ll.Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		pkt := bytes.Clone(buf[:n])
		switch {
		case n >= 28 && pkt[0]>>4 == 4:
			list = append(list, packet{netip.AddrFrom4([4]byte(pkt[12:16])), pkt[8], pkt[9], pkt[20:]})
		case n >= 48 && pkt[0]>>4 == 6:
			list = append(list, packet{netip.AddrFrom16([16]byte(pkt[8:24])), pkt[7], pkt[6], pkt[40:]})
		}
	}
}

// isError tells about errors and redirects of ICMP.
func (p packet) isError() bool {
	return p.proto == unix.IPPROTO_ICMP && p.data[0] != 0 && p.data[0] != 8 ||
		p.proto == unix.IPPROTO_ICMPV6 && (p.data[0] < 128 || p.data[0] == 137)
}

// isTCP tells about packets between two ports.
func (p packet) isTCP(from, to uint16) bool {
	return p.proto == unix.IPPROTO_TCP && binary.BigEndian.Uint16(p.data) == from && binary.BigEndian.Uint16(p.data[2:]) == to
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
	probes := []struct {
		name  string
		flags byte
		reply byte // the flags of what comes back; 0 is silence
	}{
		{"SYN", syn, syn | ack},
		{"ACK", ack, rst},
		{"SYN and ACK", syn | ack, rst},
		{"FIN and ACK", fin | ack, rst},
		{"FIN", fin, 0},
		{"nothing", 0, 0},
		{"a tree", fin | psh | urg, 0},
		{"SYN and FIN", syn | fin, 0},
		{"RST", rst, 0},
		{"data, no ACK", psh, 0},
	}
	const closed = 99 // and protected
	for _, f := range []struct{ host, attacker string }{{host4, attacker4}, {host6, attacker6}} {
		source := uint16(30000)
		for _, probe := range probes {
			for _, port := range []uint16{7, 22, 80, closed} {
				source++
				must(t, sendTCP(l.attacker, f.attacker, f.host, source, port, probe.flags, ""))
			}
		}
		back := seen.all()
		source = 30000
		for _, probe := range probes {
			for _, port := range []uint16{7, 22, 80, closed} {
				source++
				reply := probe.reply
				if port == closed && probe.flags&(rst|ack) == 0 {
					reply = rst | ack
				}
				checkReply(t, fmt.Sprintf("%s to port %d of %s", probe.name, port, f.host), back, port, source, reply)
			}
		}
	}
}

// checkReply finds the answer to a probe; one without flags is silence.
func checkReply(t *testing.T, what string, back []packet, port, source uint16, flags byte) {
	t.Helper()
	i := slices.IndexFunc(back, func(p packet) bool { return p.isTCP(port, source) })
	switch {
	case i < 0 && flags != 0:
		t.Errorf("%s: no answer", what)
	case i >= 0 && (back[i].data[13] != flags || back[i].hops != 64):
		t.Errorf("%s: flags %#x, %d hops left; want %#x with 64", what, back[i].data[13], back[i].hops, flags)
	}
}

// TestNetnsLastHop: a packet that may go no further than the host reaches a
// service, as it would reach a program.
func TestNetnsLastHop(t *testing.T) {
	t.Parallel()
	l := stealthLab(t)
	l.host.Run("sysctl", "-qw", "net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0")
	seen := newTap(t, l.attacker)
	l.attacker.Run("sysctl", "-qw", "net.ipv4.ip_default_ttl=1", "net.ipv6.conf.all.hop_limit=1", "net.ipv6.conf.eth0.hop_limit=1")
	for _, f := range []struct{ host, attacker string }{{host4, attacker4}, {host6, attacker6}} {
		for _, port := range []int{22, 80, 7} {
			who := map[int]string{22: "one", 80: "two", 7: "host"}[port]
			want(t, l.attacker, "tcp", at(f.host, port), who+" "+f.attacker)
		}
	}
	l.attacker.Run("ip", "route", "add", "203.0.113.0/24", "via", host4)
	must(t, sendTCP(l.attacker, attacker4, "203.0.113.9", 31000, 80, 2, ""))
	for _, p := range seen.all() {
		if p.isError() {
			t.Errorf("%s shows itself as a router: %x", p.src, p.data)
		}
	}
}

// TestNetnsNoSignOfARouter: a host that was no router neither forwards nor tells
// that a packet came too far. Without the rules it does both.
func TestNetnsNoSignOfARouter(t *testing.T) {
	t.Parallel()
	for _, off := range []bool{true, false} {
		t.Run(fmt.Sprintf("forwarding was off: %v", off), func(t *testing.T) {
			l := newLab(t)
			l.up(t, func(c *ruleset.Config) { c.ForwardingWasOffV4, c.ForwardingWasOffV6 = off, off })
			l.host.Run("sysctl", "-qw", "net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0")
			l.host.Run("ip", "route", "add", "203.0.113.0/24", "via", attacker4)
			l.host.Run("ip", "-6", "route", "add", "2001:db8:f::/48", "via", attacker6)
			l.attacker.Run("ip", "route", "add", "203.0.113.0/24", "via", host4)
			l.attacker.Run("ip", "-6", "route", "add", "2001:db8:f::/48", "via", host6)
			for _, f := range []struct{ from, host, to string }{{attacker4, host4, "203.0.113.9"}, {attacker6, host6, "2001:db8:f::9"}} {
				seen := newTap(t, l.attacker)
				must(t, sendTCP(l.attacker, f.from, f.to, 31000, 80, 2, ""))
				l.attacker.Run("sysctl", "-qw", "net.ipv4.ip_default_ttl=1", "net.ipv6.conf.all.hop_limit=1", "net.ipv6.conf.eth0.hop_limit=1")
				must(t, sendTCP(l.attacker, f.from, f.to, 31001, 80, 2, ""))
				l.attacker.Run("sysctl", "-qw", "net.ipv4.ip_default_ttl=64", "net.ipv6.conf.all.hop_limit=64", "net.ipv6.conf.eth0.hop_limit=64")
				tooFar, forwarded := false, false
				for _, p := range seen.all() {
					tooFar = tooFar || p.isError()
					forwarded = forwarded || p.isTCP(31000, 80)
				}
				if tooFar == off || forwarded == off {
					t.Errorf("to %s: error is %v, forwarded is %v", f.to, tooFar, forwarded)
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
