package nft

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"honeysens.org/dockersensor/nethelper/internal/ruleset"
	"honeysens.org/dockersensor/shared/helperapi"
	"honeysens.org/dockersensor/shared/nettest"
)

func TestNetnsRedirect(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.services(t)
	l.up(t, func(c *ruleset.Config) {
		// Assigned and protected: protected.
		c.Services[0].Ports = append(c.Services[0].Ports, helperapi.Assignment{Port: helperapi.Port{Protocol: helperapi.TCP, Number: 2222}, To: 2022})
	})
	families := []struct{ name, host, attacker string }{{"v4", host4, attacker4}, {"v6", host6, attacker6}}
	for _, f := range families {
		tests := []struct {
			name, network string
			port          int
			who           string
		}{
			{"assigned", "tcp", 22, "one"},
			{"assigned", "udp", 53, "one"},
			{"catch-all", "tcp", 53, "two"},
			{"catch-all", "tcp", 80, "two"},
			{"catch-all", "udp", 80, "two"},
			{"protected", "tcp", 2222, ""},
			{"protected", "udp", 2222, ""},
		}
		for _, test := range tests {
			t.Run(fmt.Sprintf("%s %d/%s of %s", test.name, test.port, test.network, f.name), func(t *testing.T) {
				answer := ""
				if test.who != "" {
					answer = test.who + " " + f.attacker
				}
				want(t, l.attacker, test.network, at(f.host, test.port), answer)
			})
		}
	}
	if one, two := l.redirected(t, "one"), l.redirected(t, "two"); one != 4 || two != 6 {
		t.Errorf("counted %d and %d connections, want 4 and 6", one, two)
	}
	want(t, l.attacker, "tcp", at(other4, 80), "two "+attacker4)
}

func TestNetnsErrorsReachTheAttacker(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.up(t, nil)
	for _, host := range []string{host4, host6} {
		if _, err := ask(l.attacker, "udp", at(host, 9)); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("udp to a closed port of the service: %v, want the service's refusal", err)
		}
	}
	if n := l.refused(t); n != 0 {
		t.Errorf("%d answers of services were refused", n)
	}
}

// TestNetnsEstablishedConnectionsStay: a connection to the host's own listener
// goes on when a service takes the port, and new packets of it after conntrack
// has forgotten it, too.
func TestNetnsEstablishedConnectionsStay(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.services(t)
	var listener net.Listener
	var client, server net.Conn
	err := l.host.Do(func() (err error) {
		listener, err = net.Listen("tcp", "0.0.0.0:22")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	err = l.attacker.Do(func() (err error) {
		client, err = net.Dial("tcp", at(host4, 22))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	if server, err = listener.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	l.up(t, func(c *ruleset.Config) { c.HostPorts = helperapi.HostPortsAssigned })
	l.host.Run("conntrack", "-F")
	_ = client.SetDeadline(time.Now().Add(2 * time.Second))
	_ = server.SetDeadline(time.Now().Add(2 * time.Second))
	buf := make([]byte, 10)
	if _, err := client.Write([]byte("ping")); err != nil {
		t.Fatal(err)
	}
	if n, err := server.Read(buf); err != nil || string(buf[:n]) != "ping" {
		t.Errorf("the host's connection reads %q, %v", buf[:n], err)
	}
	want(t, l.attacker, "tcp", at(host4, 22), "one "+attacker4)
}

func TestNetnsOnlyOpeningPacketsAreRedirected(t *testing.T) {
	t.Parallel()
	const fin, syn, rst, psh, ack = 1, 2, 4, 8, 16
	l := newLab(t)
	l.services(t)
	l.up(t, nil)
	for _, f := range []struct {
		from, to, service string
		port              uint16
	}{
		{attacker4, host4, "two", 80}, {attacker6, host6, "two", 80}, {attacker4, host4, "one", 22}, {attacker6, host6, "one", 22},
	} {
		before := l.redirected(t, f.service)
		for i, flags := range []byte{ack, psh | ack, fin | ack, rst, rst | ack, syn | ack, 0, fin} {
			if err := sendTCP(l.attacker, f.from, f.to, uint16(4000+i), f.port, flags, "late"); err != nil {
				t.Fatal(err)
			}
		}
		// Packets keep their order, so when this one is through the others are.
		want(t, l.attacker, "tcp", at(f.to, int(f.port)), f.service+" "+f.from)
		if n := l.redirected(t, f.service) - before; n != 1 {
			t.Errorf("%d packets to %s were redirected, want the opening one only", n, f.to)
		}
		if err := sendTCP(l.attacker, f.from, f.to, 4100, f.port, syn, ""); err != nil {
			t.Fatal(err)
		}
		until(t, "a bare SYN is redirected", func() bool { return l.redirected(t, f.service)-before == 2 })
	}
}

// TestNetnsAnswersToTheHost: UDP that comes back after conntrack and the socket
// are gone is nothing for a honeypot.
func TestNetnsAnswersToTheHost(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ to, answerFrom, host string }{
		"unicast v4":   {attacker4, attacker4, host4},
		"unicast v6":   {attacker6, attacker6, host6},
		"multicast v4": {"224.0.0.251", attacker4, host4},
		"multicast v6": {"ff02::fb", attacker6, host6},
		"broadcast":    {"192.0.2.255", attacker4, host4},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			l.services(t)
			l.up(t, nil)
			to := test.to
			if strings.HasPrefix(to, "ff02:") {
				to += zone(l.host)
			}
			hostPort := l.hostSends(t, to, test.host, 8080)
			l.host.Run("conntrack", "-F")
			l.attackerSends(t, test.answerFrom, 8080, test.host, hostPort)
			want(t, l.attacker, "udp", at(test.host, 80), "two "+test.answerFrom)
			if n := l.redirected(t, "two"); n != 1 {
				t.Errorf("%d connections were redirected, want the attack only", n)
			}
			if strings.HasPrefix(name, "unicast") {
				// Somebody else, to the same port, is no answer.
				l.attackerSends(t, test.answerFrom, 8081, test.host, hostPort)
				until(t, "a stranger is redirected", func() bool { return l.redirected(t, "two") == 2 })
			}
		})
	}
}

// zone is the one of eth0, by number: the net package remembers names of
// interfaces for all namespaces alike.
func zone(h *nettest.Host) string {
	index, _, _ := strings.Cut(h.Run("ip", "-o", "link", "show", "dev", "eth0"), ":")
	return "%" + index
}

// hostSends sends a datagram from a new port of the host and closes the socket.
func (l *lab) hostSends(t *testing.T, to, from string, port int) (local int) {
	t.Helper()
	err := l.host.Do(func() error {
		config := net.ListenConfig{Control: broadcasting}
		conn, err := config.ListenPacket(t.Context(), "udp", at(from, 0))
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		local = conn.LocalAddr().(*net.UDPAddr).Port
		addr, err := net.ResolveUDPAddr("udp", at(to, port))
		if err != nil {
			return err
		}
		_, err = conn.WriteTo([]byte("question"), addr)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return local
}

// broadcasting lets a socket send to everybody, and have the port of one before
// it: a process that is being started may hold a copy of that.
func broadcasting(_, _ string, c syscall.RawConn) error {
	var err error
	ctl := c.Control(func(fd uintptr) {
		err = errors.Join(
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 1),
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
	})
	return errors.Join(ctl, err)
}

func (l *lab) attackerSends(t *testing.T, from string, fromPort int, to string, port int) {
	t.Helper()
	err := l.attacker.Do(func() error {
		conn, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(from), uint16(fromPort))),
			net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(to), uint16(port))))
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		_, err = conn.Write([]byte("answer"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestNetnsHeartbeatRunsOut(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.services(t)
	l.up(t, func(c *ruleset.Config) { c.Heartbeat = 3 * time.Second })
	want(t, l.attacker, "tcp", at(host4, 80), "two "+attacker4)
	until(t, "the host is as if there were no sensor", func() bool {
		_, err := ask(l.attacker, "tcp", at(host4, 80))
		return errors.Is(err, syscall.ECONNREFUSED)
	})
	if err := l.table.Heartbeat(t.Context()); err != nil {
		t.Fatal(err)
	}
	want(t, l.attacker, "tcp", at(host4, 80), "two "+attacker4)
}

// TestNetnsNeverRedirected is what no honeypot may get, although nobody on the
// host waits for it.
func TestNetnsNeverRedirected(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.services(t)
	l.up(t, nil)
	l.attacker.Run("ip", "addr", "add", "10.10.10.99/32", "dev", "lo")
	l.attacker.Run("ip", "addr", "add", "fd12::99/128", "dev", "lo", "nodad")
	tests := map[string]struct {
		from, to string
		port     int
	}{
		"answer of a DHCP server":        {attacker4, host4, 68},
		"answer of a DHCPv6 server":      {attacker6, host6, 546},
		"address of the services bridge": {"10.10.10.99", host4, 80},
		"IPv6 address of the bridge":     {"fd12::99", host6, 80},
	}
	for name, test := range tests {
		before := l.redirected(t, "two")
		l.attackerSends(t, test.from, 9000, test.to, test.port)
		want(t, l.attacker, "udp", at(host4, 80), "two "+attacker4)
		want(t, l.attacker, "udp", at(host6, 80), "two "+attacker6)
		if n := l.redirected(t, "two") - before; n != 2 {
			t.Errorf("%s: %d connections were redirected, want the 2 attacks", name, n)
		}
	}
	// The host answers by itself: it could not route back what a service answers.
	fields := strings.Fields(l.host.Run("ip", "-6", "-br", "addr", "show", "dev", "eth0", "scope", "link"))
	linkLocal := netip.MustParsePrefix(fields[len(fields)-1]).Addr().String() + zone(l.attacker)
	if _, err := ask(l.attacker, "udp", at(linkLocal, 80)); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("link-local address of the host: %v, want the host's refusal", err)
	}
}

// TestNetnsAnswersToContainers: what the host has sent for a container, under
// its own address, has answers, too.
func TestNetnsAnswersToContainers(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.services(t)
	container := nettest.NewHost(t, "container")
	nettest.Connect(container, "eth0", []string{"172.17.0.2/16"}, l.host, "docker0", []string{"172.17.0.1/16"})
	container.Run("ip", "route", "add", "default", "via", "172.17.0.1")
	l.host.Run("nft", "add table ip docker { chain post { type nat hook postrouting priority 100; ip saddr 172.17.0.0/16 masquerade; }; }")
	l.up(t, nil)
	serve(t, l.attacker, "udp", at(attacker4, 8080), "server")
	answer, err := askFrom(t.Context(), container, "udp", "172.17.0.2:5000", at(attacker4, 8080))
	if answer != "server "+host4 {
		t.Fatalf("the container gets %q, %v", answer, err)
	}
	l.host.Run("conntrack", "-F")
	l.attackerSends(t, public4, 8080, host4, 5000)
	until(t, "a stranger is redirected", func() bool { return l.redirected(t, "two") == 1 })
	sendUDP(t, l.attacker, attacker4, host4, 8080, 5000)
	want(t, l.attacker, "udp", at(host4, 80), "two "+attacker4)
	if n := l.redirected(t, "two"); n != 2 {
		t.Errorf("%d connections were redirected, want the stranger and the attack", n)
	}
}

// sendUDP sends from a port that a server of the test is bound to.
func sendUDP(t *testing.T, h *nettest.Host, from, to string, fromPort, port uint16) {
	t.Helper()
	datagram := []byte{byte(fromPort >> 8), byte(fromPort), byte(port >> 8), byte(port), 0, 9, 0, 0, 'x'}
	if err := sendRaw(h, netip.MustParseAddr(to), unix.IPPROTO_UDP, datagram); err != nil {
		t.Fatalf("send from %s: %v", from, err)
	}
}
