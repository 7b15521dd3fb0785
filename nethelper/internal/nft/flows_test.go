package nft

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"honeysens.org/dockersensor/shared/nettest"
)

// flows are connections of the host with a server at the attacker's.
type flows struct {
	t                  *testing.T
	lab                *lab
	host, peer, family string
	// port is the server's, and tells packets of this case from others.
	port  uint16
	close []func()
}

func (f *flows) end() {
	for _, stop := range f.close {
		stop()
	}
	f.lab.host.Run("sysctl", "-qw", "net.netfilter.nf_conntrack_udp_timeout=30", "net.netfilter.nf_conntrack_udp_timeout_stream=120",
		"net.netfilter.nf_conntrack_tcp_timeout_established=432000")
}

func (f *flows) check(what string, err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatalf("%s: %v", what, err)
	}
}

// count counts from now on: what comes in, what comes through to the host, and
// what gets to the honeypots.
func (f *flows) count() {
	f.t.Helper()
	const script = `add table inet count; delete table inet count; table inet count {
		counter arrived {}
		counter received {}
		chain first { type filter hook prerouting priority -350; iifname "eth0" meta l4proto { tcp, udp } th sport %[1]d counter name arrived; }
		chain last { type filter hook input priority 350; iifname "eth0" meta l4proto { tcp, udp } th sport %[1]d counter name received; }
	}`
	for _, h := range []*nettest.Host{f.lab.host, f.lab.service} {
		h.Run("nft", fmt.Sprintf(script, f.port))
	}
}

func (f *flows) tally() tally {
	read := func(h *nettest.Host, counter string) int {
		out := h.Run("nft", "list", "counter", "inet", "count", counter)
		n, _ := strconv.Atoi(regexp.MustCompile(`packets (\d+)`).FindStringSubmatch(out)[1])
		return n
	}
	host := f.lab.host
	// In this order a packet in between is missed where it must be.
	honeypot, received := read(f.lab.service, "arrived"), read(host, "received")
	return tally{arrived: read(host, "arrived"), host: received, honeypot: honeypot}
}

// expired is called before the flows are there, and waits after they are for
// their entries to expire.
func (f *flows) expired() (wait func()) {
	f.lab.host.Run("sysctl", "-qw", "net.netfilter.nf_conntrack_udp_timeout=1", "net.netfilter.nf_conntrack_udp_timeout_stream=1",
		"net.netfilter.nf_conntrack_tcp_timeout_established=1")
	return func() {
		until(f.t, "the entries have expired", func() bool {
			for _, proto := range []string{"udp", "tcp"} {
				if out, _ := f.conntrack("-L", proto); !strings.Contains(out, ": 0 flow entries") {
					return false
				}
			}
			return true
		})
	}
}

// deleted deletes the entries.
func (f *flows) deleted() (remove func()) {
	return func() {
		for _, proto := range []string{"udp", "tcp"} {
			// It fails when there are none.
			_, _ = f.conntrack("-D", proto)
		}
	}
}

func (f *flows) conntrack(what, proto string) (string, error) {
	return f.lab.host.Try("conntrack", what, "-f", f.family, "-p", proto, "--dport", strconv.Itoa(int(f.port)))
}

// udp lets the host ask, and answers when the entries are gone.
func (f *flows) udp(to string, forget func() func(), stays bool) func() error {
	f.t.Helper()
	gone := forget()
	server := f.listenUDP()
	var asked []netip.AddrPort
	for range lateFlows {
		program, err := f.program()
		f.check("host opens a socket", err)
		f.check("host asks", f.lab.host.Do(func() error {
			_, err := program.WriteToUDPAddrPort([]byte("question"), f.destination(to))
			return err
		}))
		asked = append(asked, program.LocalAddr().(*net.UDPAddr).AddrPort())
		if stays {
			f.close = append(f.close, func() { _ = program.Close() })
		} else {
			_ = program.Close()
		}
	}
	gone()
	return func() error {
		for _, program := range asked {
			if _, err := server.WriteToUDPAddrPort([]byte("answer"), program); err != nil {
				return err
			}
		}
		return nil
	}
}

func (f *flows) listenUDP() (server *net.UDPConn) {
	f.t.Helper()
	f.check("attacker listens", f.lab.attacker.Do(func() (err error) {
		server, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(f.peer), f.port)))
		return err
	}))
	f.close = append(f.close, func() { _ = server.Close() })
	return server
}

func (f *flows) program() (conn *net.UDPConn, err error) {
	err = f.lab.host.Do(func() (err error) {
		conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(f.host), 0)))
		return err
	})
	return conn, err
}

// destination is where a question goes: the peer, or many.
func (f *flows) destination(to string) netip.AddrPort {
	addr := netip.MustParseAddr(to)
	switch {
	case f.family == "ipv6" && addr.IsMulticast():
		addr = netip.MustParseAddr("ff02::fb" + zone(f.lab.host))
	case !addr.IsMulticast():
		addr = netip.MustParseAddr(f.peer)
	}
	return netip.AddrPortFrom(addr, f.port)
}

// announce sends datagrams that are for many.
func (f *flows) announce(to4, to6 string, from, port uint16) func() error {
	to := netip.MustParseAddr(to4)
	if f.family == "ipv6" {
		to = netip.MustParseAddr(to6 + zone(f.lab.attacker))
	}
	f.check("host listens", f.lab.host.Do(func() error {
		group := net.UDPAddrFromAddrPort(netip.AddrPortFrom(to.WithZone(""), port))
		if !to.IsMulticast() {
			return nil
		}
		eth0, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		member, err := net.ListenMulticastUDP("udp", eth0, group)
		if err == nil {
			f.close = append(f.close, func() { _ = member.Close() })
		}
		return err
	}))
	return f.datagrams(to, from, port)
}

// dhcp sends what a DHCP server answers, or a DHCPv6 server.
func (f *flows) dhcp() func() error {
	server, client := uint16(67), uint16(68)
	if f.family == "ipv6" {
		server, client = 547, 546
	}
	f.port = server
	return f.datagrams(netip.MustParseAddr(f.host), server, client)
}

// datagrams come from another port each time as far as conntrack can tell, for
// entries of each would hide all but the first.
func (f *flows) datagrams(to netip.Addr, from, port uint16) func() error {
	return func() error {
		for range lateFlows {
			if err := f.datagram(to, from, port); err != nil {
				return err
			}
			f.lab.host.Run("conntrack", "-F")
		}
		return nil
	}
}

func (f *flows) datagram(to netip.Addr, from, port uint16) error {
	return f.lab.attacker.Do(func() error {
		config := net.ListenConfig{Control: broadcasting}
		conn, err := config.ListenPacket(f.t.Context(), "udp", netip.AddrPortFrom(netip.MustParseAddr(f.peer), from).String())
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		_, err = conn.WriteTo([]byte("news"), net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, port)))
		return err
	})
}

// tcp connects the host's programs with the attacker's server.
func (f *flows) tcp() (programs, servers []*net.TCPConn) {
	f.t.Helper()
	var listener *net.TCPListener
	addr := net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(f.peer), f.port))
	f.check("attacker listens", f.lab.attacker.Do(func() (err error) {
		listener, err = net.ListenTCP("tcp", addr)
		return err
	}))
	f.close = append(f.close, func() { _ = listener.Close() })
	for range lateFlows {
		var program *net.TCPConn
		f.check("host connects", f.lab.host.Do(func() (err error) {
			program, err = net.DialTCP("tcp", nil, addr)
			return err
		}))
		server, err := listener.AcceptTCP()
		f.check("attacker accepts", err)
		f.close = append(f.close, func() { _, _ = program.Close(), server.Close() })
		programs, servers = append(programs, program), append(servers, server)
	}
	return programs, servers
}

func (f *flows) tcpData(forget func() func()) func() error {
	gone := forget()
	_, servers := f.tcp()
	gone()
	return func() error { return writeAll(servers) }
}

func writeAll(conns []*net.TCPConn) error {
	for _, conn := range conns {
		if _, err := conn.Write([]byte("late")); err != nil {
			return err
		}
	}
	return nil
}

func (f *flows) tcpKeepAlive() func() error {
	_, servers := f.tcp()
	f.deleted()()
	return func() error {
		for _, server := range servers {
			raw, err := server.SyscallConn()
			if err != nil {
				return err
			}
			if err := raw.Control(func(fd uintptr) {
				_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 1)
				_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
			}); err != nil {
				return err
			}
		}
		return nil
	}
}

// tcpRetransmission keeps acknowledgements from the attacker's server, so that
// it sends again.
func (f *flows) tcpRetransmission() func() error {
	_, servers := f.tcp()
	f.lab.attacker.Run("nft", fmt.Sprintf("table inet deaf { chain in { type filter hook input priority 0; tcp dport %d drop; }; }", f.port))
	f.close = append([]func(){func() { f.lab.attacker.Run("nft", "delete", "table", "inet", "deaf") }}, f.close...)
	f.check("server writes", writeAll(servers))
	f.deleted()()
	return func() error { return nil }
}

// tcpAfterwards sends a bare ACK of each connection after both sides have
// closed it.
func (f *flows) tcpAfterwards() func() error {
	const ack = 0x10
	programs, servers := f.tcp()
	var ports []uint16
	for i := range programs {
		ports = append(ports, programs[i].LocalAddr().(*net.TCPAddr).AddrPort().Port())
		f.check("server closes", servers[i].Close())
		f.check("program reads the end", readEnd(programs[i]))
		f.check("program closes", programs[i].Close())
	}
	f.deleted()()
	return func() error {
		for _, port := range ports {
			if err := sendTCP(f.lab.attacker, f.peer, f.host, f.port, port, ack, ""); err != nil {
				return err
			}
		}
		return nil
	}
}

func readEnd(conn *net.TCPConn) error {
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		return fmt.Errorf("read: %w", err)
	}
	return nil
}
