package capture

import (
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"honeysens.org/dockersensor/packaging/services/recon/internal/tracker"
	"honeysens.org/dockersensor/shared/event"
)

const (
	remote = "198.51.100.7"
	local  = "192.0.2.10"
)

func ip4(proto byte, from, to string, transport []byte) []byte {
	b := make([]byte, 20, 20+len(transport))
	b[0], b[9] = 0x45, proto
	binary.BigEndian.PutUint16(b[2:], uint16(20+len(transport)))
	copy(b[12:], netip.MustParseAddr(from).AsSlice())
	copy(b[16:], netip.MustParseAddr(to).AsSlice())
	return append(b, transport...)
}

func ip6(next byte, rest []byte) []byte {
	b := make([]byte, 40, 40+len(rest))
	b[0], b[6] = 0x60, next
	binary.BigEndian.PutUint16(b[4:], uint16(len(rest)))
	copy(b[8:], netip.MustParseAddr("2001:db8::7").AsSlice())
	copy(b[24:], netip.MustParseAddr("2001:db8::10").AsSlice())
	return append(b, rest...)
}

func tcp(flags byte) []byte {
	b := make([]byte, 20)
	binary.BigEndian.PutUint16(b, 4000)
	binary.BigEndian.PutUint16(b[2:], 22)
	b[12], b[13] = 0x50, flags
	return b
}

func udp(sport, dport uint16, payload string) []byte {
	b := make([]byte, 8)
	binary.BigEndian.PutUint16(b, sport)
	binary.BigEndian.PutUint16(b[2:], dport)
	return append(b, payload...)
}

func TestLook(t *testing.T) {
	options := append([]byte{protoTCP, 1}, make([]byte, 14)...)
	laterFragment := append([]byte{protoUDP, 0, 0x10, 0}, make([]byte, 28)...)
	tests := []struct {
		name string
		kind uint8
		data []byte
		want bool
	}{
		{"SYN", unix.PACKET_HOST, ip4(protoTCP, remote, local, tcp(2)), true},
		{"NULL scan", unix.PACKET_HOST, ip4(protoTCP, remote, local, tcp(0)), true},
		{"FIN scan", unix.PACKET_HOST, ip4(protoTCP, remote, local, tcp(1)), true},
		{"late FIN of a connection", unix.PACKET_HOST, ip4(protoTCP, remote, local, tcp(0x11)), false},
		{"SYN/ACK", unix.PACKET_HOST, ip4(protoTCP, remote, local, tcp(0x12)), false},
		{"RST", unix.PACKET_HOST, ip4(protoTCP, remote, local, tcp(4)), false},
		{"own SYN", unix.PACKET_OUTGOING, ip4(protoTCP, local, remote, tcp(2)), false},
		{"from the collector", unix.PACKET_HOST, ip4(protoTCP, "10.10.10.1", local, tcp(2)), false},
		{"datagram", unix.PACKET_HOST, ip4(protoUDP, remote, local, udp(1, 161, "x")), true},
		{"broadcast", unix.PACKET_BROADCAST, ip4(protoUDP, remote, "192.0.2.255", udp(1, 137, "x")), false},
		{"DHCP", unix.PACKET_HOST, ip4(protoUDP, remote, local, udp(67, 68, "x")), false},
		{"other host", unix.PACKET_OTHERHOST, ip4(protoUDP, remote, local, udp(1, 161, "x")), false},
		{"IPv6 SYN", unix.PACKET_HOST, ip6(protoTCP, tcp(2)), true},
		{"IPv6 SYN behind options", unix.PACKET_HOST, ip6(60, append(options, tcp(2)...)), true},
		{"IPv6 later fragment", unix.PACKET_HOST, ip6(44, laterFragment), false},
		{"IPv6 unknown header", unix.PACKET_HOST, ip6(50, make([]byte, 60)), false},
		{"ICMP", unix.PACKET_HOST, ip4(1, remote, local, make([]byte, 20)), false},
		{"cut TCP header", unix.PACKET_HOST, ip4(protoTCP, remote, local, tcp(2)[:12]), false},
		{"empty", unix.PACKET_HOST, nil, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := &Capture{ignore: netip.MustParseAddr("10.10.10.1"), own: newFlows()}
			if _, got := c.look(time.Unix(1, 0), test.kind, test.data); got != test.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestFields(t *testing.T) {
	c := &Capture{own: newFlows()}
	now := time.Unix(5, 0)
	padded := append(ip4(protoUDP, remote, local, udp(9, 161, "abc")), 0, 0, 0)
	got, _ := c.look(now, unix.PACKET_HOST, padded)
	if got.Protocol != event.ProtocolUDP || got.Source.String() != remote || got.DstPort != 161 || got.SourcePort != 9 ||
		string(got.Payload) != "abc" || !got.Time.Equal(now) {
		t.Errorf("%+v", got)
	}
	got, _ = c.look(now, unix.PACKET_HOST, ip6(protoTCP, tcp(2)))
	if got.Protocol != event.ProtocolTCP || got.Source.String() != "2001:db8::7" || got.DstPort != 22 || got.Flags != 2 {
		t.Errorf("%+v", got)
	}
}

func TestAnswersAreNoProbes(t *testing.T) {
	c := &Capture{own: newFlows()}
	question := ip4(protoUDP, local, remote, udp(5353, 53, "?"))
	answer := ip4(protoUDP, remote, local, udp(53, 5353, "!"))
	start := time.Unix(1000, 0)
	if _, got := c.look(start, unix.PACKET_HOST, answer); !got {
		t.Fatal("an answer without a question is a probe")
	}
	c.look(start, unix.PACKET_OUTGOING, question)
	if _, got := c.look(start.Add(4*time.Minute), unix.PACKET_HOST, answer); got {
		t.Error("an answer was taken for a probe")
	}
	if _, got := c.look(start.Add(6*time.Minute), unix.PACKET_HOST, answer); !got {
		t.Error("a question is remembered for ever")
	}
}

func TestFlowsAreBounded(t *testing.T) {
	f := newFlows()
	f.max = 100
	for i := range 1000 {
		f.sent(time.Unix(0, 0), packet{sport: uint16(i)})
		if len(f.until) > 100 {
			t.Fatalf("%d flows", len(f.until))
		}
	}
}

// TestFilter runs the part of the filter that needs no kernel: what follows the
// look at the protocol.
func TestFilter(t *testing.T) {
	program := filter()[3:]
	vm, err := bpf.NewVM(program)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		data []byte
		want int
	}{
		{"SYN", ip4(protoTCP, remote, local, tcp(2)), snapLength},
		{"NULL", ip4(protoTCP, remote, local, tcp(0)), snapLength},
		{"data", ip4(protoTCP, remote, local, tcp(0x18)), 0},
		{"RST", ip4(protoTCP, remote, local, tcp(4)), 0},
		{"UDP", ip4(protoUDP, remote, local, udp(1, 2, "")), snapLength},
		{"ICMP", ip4(1, remote, local, make([]byte, 20)), 0},
	}
	for _, test := range tests {
		if got, err := vm.Run(test.data); err != nil || (got > 0) != (test.want > 0) {
			t.Errorf("%s: %d, %v", test.name, got, err)
		}
	}
}

func FuzzLook(f *testing.F) {
	f.Add(ip4(protoTCP, remote, local, tcp(2)))
	f.Add(ip4(protoUDP, remote, local, udp(1, 2, "payload")))
	f.Add(ip6(protoTCP, tcp(2)))
	f.Add(ip6(0, append([]byte{protoUDP, 0, 0, 0, 0, 0, 0, 0}, udp(1, 2, "x")...)))
	extension, _ := hex.DecodeString("6000000000100040")
	f.Add(extension)
	f.Fuzz(func(t *testing.T, data []byte) {
		c := &Capture{own: newFlows()}
		probe, ok := c.look(time.Unix(1, 0), unix.PACKET_HOST, data)
		if ok && (!probe.Source.IsValid() || len(probe.Payload) > tracker.MaxPayload) {
			t.Errorf("%+v", probe)
		}
	})
}
