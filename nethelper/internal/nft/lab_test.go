package nft

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"honeysens.org/dockersensor/nethelper/internal/ruleset"
	"honeysens.org/dockersensor/shared/nettest"
)

// Addresses of the lab.
const (
	attacker4, attacker6 = "192.0.2.2", "2001:db8:a::2"
	host4, host6         = "192.0.2.1", "2001:db8:a::1"
	other4, other6       = "198.51.100.1", "2001:db8:b::1"
	public4, public6     = "1.2.3.4", "2a00::4"
)

// lab is an attacker, a host and the namespace of two services.
type lab struct {
	attacker, host, service *nettest.Host
	table                   *Table
}

func newLab(t testing.TB) *lab {
	t.Helper()
	nettest.Need(t, "nft", "conntrack", "sysctl")
	l := &lab{attacker: nettest.NewHost(t, "attacker"), host: nettest.NewHost(t, "host"), service: nettest.NewHost(t, "service")}
	for _, h := range []*nettest.Host{l.attacker, l.host, l.service} {
		// Link-local addresses are used for neighbour discovery, without a delay.
		h.Run("sysctl", "-qw", "net.ipv6.conf.all.accept_dad=0", "net.ipv6.conf.default.accept_dad=0")
	}
	nettest.Connect(l.attacker, "eth0", []string{attacker4 + "/24", attacker6 + "/64"}, l.host, "eth0", []string{host4 + "/24", host6 + "/64"})
	nettest.Connect(l.service, "eth0", []string{"10.10.10.2/24", "10.10.10.3/24", "fd12::2/64", "fd12::3/64"}, l.host, "svc0", []string{"10.10.10.1/24", "fd12::1/64"})
	for _, addr := range []string{other4 + "/32", other6 + "/128"} {
		l.host.Run("ip", "addr", "add", addr, "dev", "lo")
	}
	for _, addr := range []string{public4 + "/32", public6 + "/128"} {
		l.attacker.Run("ip", "addr", "add", addr, "dev", "lo")
	}
	l.host.Run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
	routes := []struct {
		from *nettest.Host
		via4 string
		via6 string
	}{{l.service, "10.10.10.1", "fd12::1"}, {l.attacker, host4, host6}, {l.host, attacker4, attacker6}}
	for _, r := range routes {
		r.from.Run("ip", "route", "add", "default", "via", r.via4)
		r.from.Run("ip", "-6", "route", "add", "default", "via", r.via6)
	}
	l.table = open(t, l.host)
	return l
}

// up puts the example in force and starts both services.
func (l *lab) up(t testing.TB, change func(*ruleset.Config)) {
	t.Helper()
	cfg := example()
	if change != nil {
		change(&cfg)
	}
	apply(t, l.table, cfg)
}

// services answers at all ports that the tests lead to.
func (l *lab) services(t testing.TB) {
	t.Helper()
	for _, addr := range []string{"10.10.10.2:2022", "[fd12::2]:2022"} {
		serve(t, l.service, "tcp", addr, "one")
	}
	for _, addr := range []string{"10.10.10.2:2053", "[fd12::2]:2053"} {
		serve(t, l.service, "udp", addr, "one")
	}
	for _, port := range []string{"80", "53", "2222", "8080"} {
		for _, addr := range []string{"10.10.10.3:" + port, "[fd12::3]:" + port} {
			serve(t, l.service, "tcp", addr, "two")
			serve(t, l.service, "udp", addr, "two")
		}
	}
}

// serve answers with a name and the address of the one who asks, until the test
// ends.
func serve(t testing.TB, h *nettest.Host, network, addr, name string) {
	t.Helper()
	stop := func() {}
	err := h.Do(func() error {
		var err error
		stop, err = listen(network, addr, name)
		return err
	})
	if err != nil {
		t.Fatalf("%s listens on %s %s: %v", name, network, addr, err)
	}
	t.Cleanup(stop)
}

func listen(network, addr, name string) (stop func(), err error) {
	// Without the digit 0.0.0.0 would be [::], for both families.
	family := "4"
	if strings.HasPrefix(addr, "[") {
		family = "6"
	}
	var wg sync.WaitGroup
	if network == "udp" {
		conn, err := net.ListenPacket("udp"+family, addr)
		if err != nil {
			return nil, err
		}
		wg.Go(func() { answerUDP(conn, name) })
		return func() { _ = conn.Close(); wg.Wait() }, nil
	}
	l, err := net.Listen("tcp"+family, addr)
	if err != nil {
		return nil, err
	}
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, reply(name, conn.RemoteAddr()))
			_ = conn.Close()
		}
	})
	return func() { _ = l.Close(); wg.Wait() }, nil
}

func answerUDP(conn net.PacketConn, name string) {
	buf := make([]byte, 1500)
	for {
		_, from, err := conn.ReadFrom(buf)
		if err != nil {
			return
		}
		_, _ = conn.WriteTo([]byte(reply(name, from)), from)
	}
}

func reply(name string, from net.Addr) string {
	return name + " " + netip.MustParseAddrPort(from.String()).Addr().Unmap().String()
}

// ask returns what answers at an address, or an error after a moment.
func ask(h *nettest.Host, network, addr string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 400*time.Millisecond)
	defer cancel()
	return askFrom(ctx, h, network, "", addr)
}

// askFrom asks from an address, or for UDP from an address and port, until ctx
// ends.
func askFrom(ctx context.Context, h *nettest.Host, network, from, addr string) (string, error) {
	var answer string
	err := h.Do(func() error {
		var d net.Dialer
		if local, err := netip.ParseAddrPort(from); err == nil {
			d.LocalAddr = net.UDPAddrFromAddrPort(local)
		} else if from != "" && network == "udp" {
			d.LocalAddr = &net.UDPAddr{IP: net.ParseIP(from)}
		} else if from != "" {
			d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
		}
		conn, err := d.DialContext(ctx, network, addr)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })()
		if network == "udp" {
			_, _ = conn.Write([]byte("x"))
		}
		buf := make([]byte, 1500)
		n, err := conn.Read(buf)
		answer = string(buf[:n])
		return err
	})
	return answer, err
}

// wantRefused asks from a service, and waits until the refusal is counted.
func (l *lab) wantRefused(t *testing.T, network, from, addr string) {
	t.Helper()
	before := l.refused(t)
	ctx, cancel := context.WithCancel(t.Context())
	var asker sync.WaitGroup
	var answer string
	asker.Go(func() { answer, _ = askFrom(ctx, l.service, network, from, addr) })
	until(t, "the refusal is counted", func() bool { return l.refused(t) > before })
	cancel()
	asker.Wait()
	if answer != "" {
		t.Errorf("%s %s answers %q, want no answer", network, addr, answer)
	}
}

// want asks and compares; "" wants no answer.
func want(t *testing.T, h *nettest.Host, network, addr, answer string) {
	t.Helper()
	got, err := ask(h, network, addr)
	if got != answer {
		t.Errorf("%s %s answers %q (%v), want %q", network, addr, got, err, answer)
	}
}

// at joins an address of either family and a port.
func at(addr string, port int) string {
	if strings.Contains(addr, ":") {
		return fmt.Sprintf("[%s]:%d", addr, port)
	}
	return fmt.Sprintf("%s:%d", addr, port)
}

// redirected is the number of connections led to a service.
func (l *lab) redirected(t testing.TB, service string) uint64 {
	t.Helper()
	o, err := l.table.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return o.Services[service].Redirected.Packets
}

func (l *lab) refused(t testing.TB) uint64 {
	t.Helper()
	o, err := l.table.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return o.Refused.Packets
}

// sendTCP sends one bare TCP packet with flags from the attacker to the host.
func sendTCP(h *nettest.Host, from, to string, sport, dport uint16, flags byte, payload string) error {
	src, dst := netip.MustParseAddr(from), netip.MustParseAddr(to)
	seg := make([]byte, 20, 20+len(payload))
	binary.BigEndian.PutUint16(seg[0:], sport)
	binary.BigEndian.PutUint16(seg[2:], dport)
	binary.BigEndian.PutUint32(seg[4:], 1000)
	seg[12], seg[13] = 5<<4, flags
	binary.BigEndian.PutUint16(seg[14:], 1024)
	seg = append(seg, payload...)
	binary.BigEndian.PutUint16(seg[16:], checksum(src, dst, seg))
	return sendRaw(h, dst, unix.IPPROTO_TCP, seg)
}

// sendRaw sends what follows the IP header.
func sendRaw(h *nettest.Host, dst netip.Addr, proto int, data []byte) error {
	return h.Do(func() error {
		family, sa := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Addr: dst.As16()})
		if dst.Is4() {
			family, sa = unix.AF_INET, &unix.SockaddrInet4{Addr: dst.As4()}
		}
		fd, err := unix.Socket(family, unix.SOCK_RAW, proto)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(fd) }()
		return unix.Sendto(fd, data, 0, sa)
	})
}

func checksum(src, dst netip.Addr, seg []byte) uint16 {
	pseudo := append(src.AsSlice(), dst.AsSlice()...)
	pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(len(seg)))
	pseudo = binary.BigEndian.AppendUint32(pseudo, unix.IPPROTO_TCP)
	var sum uint32
	for _, data := range [][]byte{pseudo, seg} {
		for i := 0; i < len(data); i += 2 {
			word := uint32(data[i]) << 8
			if i+1 < len(data) {
				word |= uint32(data[i+1])
			}
			sum += word
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
