package probe

import (
	"net"
	"net/netip"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"honeysens.org/dockersensor/shared/helperapi"
)

func testFlow(protocol helperapi.Protocol) flow {
	return flow{
		source: netip.MustParseAddr("198.18.1.2"), target: netip.MustParseAddr("192.0.2.1"), from: 40000,
		port: helperapi.Port{Protocol: protocol, Number: 22},
	}
}

// testFlows are those of both families.
func testFlows(protocol helperapi.Protocol) []flow {
	six := testFlow(protocol)
	six.source, six.target = netip.MustParseAddr("2001:2::1:2"), netip.MustParseAddr("2001:db8::1")
	return []flow{testFlow(protocol), six}
}

// answer is a packet of the flow's other side.
func answer(f flow, segment func(flow) []byte) []byte {
	back := flow{source: f.target, target: f.source, from: f.port.Number, port: helperapi.Port{Protocol: f.port.Protocol, Number: f.from}}
	return back.frame(net.HardwareAddr{2, 0, 0, 0, 0, 2}, segment(back))[14:]
}

func TestParseReadsAnswers(t *testing.T) {
	for _, f := range testFlows(helperapi.TCP) {
		got, ok := f.parse(answer(f, func(b flow) []byte { return b.tcp(syn|ack, 7, 9, "hello") }))
		if want := (segment{flags: syn | ack, seq: 7, acked: 9, length: 5}); !ok || got != want {
			t.Errorf("%v: got %+v, %v, want %+v", f.source, got, ok, want)
		}
	}
	for _, f := range testFlows(helperapi.UDP) {
		got, ok := f.parse(answer(f, func(b flow) []byte { return b.udp("hello") }))
		if want := (segment{length: 5}); !ok || got != want {
			t.Errorf("%v: got %+v, %v, want %+v", f.source, got, ok, want)
		}
	}
}

// TestFilter: what follows the question for the kind of frame, which only the kernel
// answers, lets pass what the other side of the flow says.
func TestFilter(t *testing.T) {
	for _, f := range testFlows(helperapi.TCP) {
		vm, err := bpf.NewVM(f.filter()[3:])
		if err != nil {
			t.Fatal(err)
		}
		mine, others := answer(f, func(b flow) []byte { return b.tcp(ack, 7, 9, "") }), f
		others.source = f.source.Next()
		foreign := answer(others, func(b flow) []byte { return b.tcp(ack, 7, 9, "") })
		other := f
		other.port.Protocol = helperapi.UDP
		for _, packet := range []struct {
			raw  []byte
			want int
		}{{mine, maxRead}, {foreign, 0}, {answer(other, func(b flow) []byte { return b.udp("") }), 0}} {
			if n, err := vm.Run(packet.raw); err != nil || n != packet.want {
				t.Errorf("%v: %d bytes of % x, %v, want %d", f.source, n, packet.raw, err, packet.want)
			}
		}
	}
}

func TestParseRefusesOthers(t *testing.T) {
	f := testFlow(helperapi.TCP)
	good := answer(f, func(b flow) []byte { return b.tcp(syn|ack, 7, 9, "") })
	change := func(at int, to byte) []byte {
		raw := append([]byte{}, good...)
		raw[at] = to
		return raw
	}
	for name, raw := range map[string][]byte{
		"empty": nil, "cut": good[:30], "version": change(0, 0x65), "header length": change(0, 0x4f), "short header": change(0, 0x41),
		"protocol": change(9, unix.IPPROTO_UDP), "source": change(15, 2), "destination": change(19, 3), "port": change(21, 23),
		"total length": change(3, 21), "data offset": change(32, 0xf0), "no data offset": change(32, 0),
	} {
		if s, ok := f.parse(raw); ok {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, protocol := range []helperapi.Protocol{helperapi.TCP, helperapi.UDP} {
		for _, fl := range testFlows(protocol) {
			f.Add(answer(fl, func(b flow) []byte { return b.tcp(syn|ack, 7, 9, "hello") }))
			f.Add(answer(fl, func(b flow) []byte { return b.udp("hello") }))
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		for _, protocol := range []helperapi.Protocol{helperapi.TCP, helperapi.UDP} {
			for _, fl := range testFlows(protocol) {
				if s, ok := fl.parse(raw); ok && s.length > 65535 {
					t.Errorf("%+v", s)
				}
			}
		}
	})
}
