package tracker

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"honeysens.org/dockersensor/shared/event"
)

var (
	start    = time.Unix(1700000000, 0)
	attacker = netip.MustParseAddr("198.51.100.7")
)

func syn(at time.Duration, sport, port uint16) Probe {
	return Probe{Time: start.Add(at), Source: attacker, Protocol: event.ProtocolTCP, SourcePort: sport, DstPort: port, Flags: 2}
}

func TestSingleConnection(t *testing.T) {
	tr := New(Config{})
	if e := tr.Add(syn(0, 4000, 22)); e != nil {
		t.Fatalf("one probe made %v", e)
	}
	withPayload := syn(time.Second, 4000, 22)
	withPayload.Payload = []byte("hello")
	tr.Add(withPayload)
	tr.Add(Probe{Time: start.Add(2 * time.Second), Source: attacker, Protocol: event.ProtocolUDP, SourcePort: 9, DstPort: 161})
	if events := tr.Expire(start.Add(7999 * time.Millisecond)); len(events) != 0 {
		t.Fatalf("closed before six seconds of silence: %v", events)
	}
	payload := "aGVsbG8="
	want := []event.Event{{
		Timestamp: start.Unix(), Service: event.ServiceRecon, Source: "198.51.100.7", Summary: event.SummarySingle,
		Details: []event.Detail{},
		Packets: []event.Packet{
			{Timestamp: start.Unix(), Protocol: event.ProtocolTCP, Port: 22, Payload: &payload, Headers: []map[string]any{{"flags": 2}}},
			{Timestamp: start.Unix() + 2, Protocol: event.ProtocolUDP, Port: 161, Headers: []map[string]any{}},
		},
	}}
	if diff := cmp.Diff(want, tr.Expire(start.Add(8*time.Second))); diff != "" {
		t.Error(diff)
	}
	if len(tr.sources) != 0 {
		t.Error("the source is still remembered")
	}
}

func TestScan(t *testing.T) {
	tr := New(Config{})
	var scan *event.Event
	for port := range uint16(25) {
		if scan != nil {
			t.Fatalf("a scan after %d probes", port)
		}
		scan = tr.Add(syn(0, 4000, port+1))
	}
	if scan == nil || scan.Summary != event.SummaryScan || len(scan.Packets) != 25 {
		t.Fatalf("no scan after 25 probes: %v", scan)
	}
	for port := range uint16(100) {
		if e := tr.Add(syn(50*time.Second, 4001, port+1)); e != nil {
			t.Fatalf("an ignored source made %v", e)
		}
	}
	if events := tr.Expire(start.Add(59 * time.Second)); len(events) != 0 {
		t.Fatalf("an ignored source made %v", events)
	}
	tr.Add(syn(60*time.Second, 4002, 80))
	events := tr.Expire(start.Add(66 * time.Second))
	if len(events) != 1 || events[0].Summary != event.SummarySingle {
		t.Errorf("after a minute the source should count again: %v", events)
	}
}

// A scan of all ports that takes its time is one event; one that never ends is
// reported again.
func TestLongScanIsOneEvent(t *testing.T) {
	tr := New(Config{})
	scans := 0
	probe := func(n int, at time.Duration) {
		if e := tr.Add(syn(at, 4000, uint16(n))); e != nil {
			scans++
		}
		if events := tr.Expire(start.Add(at)); len(events) > 0 {
			t.Fatalf("after %s: %v", at, events)
		}
	}
	for n := range 65535 {
		probe(n, time.Duration(n)*10*time.Millisecond)
	}
	if scans != 1 {
		t.Errorf("a scan of 11 minutes made %d events", scans)
	}
	for n := range 65535 {
		probe(n, 656*time.Second+time.Duration(n)*10*time.Millisecond)
	}
	if scans != 2 {
		t.Errorf("a scan of 22 minutes made %d events", scans)
	}
}

// TestFloodIsBounded has very many sources send as much as is kept of each.
func TestFloodIsBounded(t *testing.T) {
	tr := New(Config{})
	addr := netip.MustParseAddr("10.0.0.0")
	for range 10_000 {
		addr = addr.Next()
		for n := range 24 {
			tr.Add(Probe{Time: start, Source: addr, Protocol: event.ProtocolUDP, SourcePort: uint16(n), DstPort: 53, Payload: make([]byte, 1500)})
		}
	}
	kept := 0
	for _, s := range tr.sources {
		kept += len(s.probes)
		if len(s.probes) == 0 {
			t.Error("a source without its first probe")
		}
	}
	if kept != tr.probes || kept > tr.cfg.MaxProbes+tr.cfg.MaxSources {
		t.Errorf("%d probes are kept, %d counted", kept, tr.probes)
	}
	if tr.Flush(); tr.probes != 0 {
		t.Errorf("%d probes are counted of nothing", tr.probes)
	}
}

func TestRetransmissionsAreNoScan(t *testing.T) {
	tr := New(Config{})
	for i := range 40 {
		if e := tr.Add(syn(time.Duration(i)*time.Millisecond, 4000, 80)); e != nil {
			t.Fatal("retransmissions of one segment made a scan")
		}
	}
	if events := tr.Flush(); len(events) != 1 || len(events[0].Packets) != 1 {
		t.Errorf("want one packet: %v", events)
	}
}

func TestPayloadBeforeSegment(t *testing.T) {
	tr := New(Config{})
	early := syn(0, 4000, 80)
	early.Payload = []byte("x")
	tr.Add(early)
	tr.Add(syn(time.Millisecond, 4000, 80))
	events := tr.Flush()
	if len(events) != 1 || len(events[0].Packets) != 1 || events[0].Packets[0].Payload == nil {
		t.Errorf("want one packet with payload: %v", events)
	}
}

func TestLongCollectionEnds(t *testing.T) {
	tr := New(Config{})
	for i := range 13 {
		tr.Add(syn(time.Duration(i)*5*time.Second, uint16(4000+i), 80))
		if events := tr.Expire(start.Add(time.Duration(i) * 5 * time.Second)); len(events) != 0 && i < 12 {
			t.Fatalf("closed after %d s: %v", i*5, events)
		} else if i == 12 && len(events) != 1 {
			t.Error("still open after a minute")
		}
	}
}

func TestBounds(t *testing.T) {
	tr := New(Config{MaxSources: 100})
	addr := netip.MustParseAddr("10.0.0.0")
	for range 1000 {
		addr = addr.Next()
		p := syn(0, 1, 1)
		p.Source, p.Payload = addr, make([]byte, 1500)
		tr.Add(p)
	}
	if len(tr.sources) != 100 || tr.Refused() != 900 {
		t.Errorf("%d sources, %d refused", len(tr.sources), tr.Refused())
	}
	for _, e := range tr.Flush() {
		if n := len(*e.Packets[0].Payload); n > 255 {
			t.Fatalf("payload of %d characters", n)
		}
	}
}

func TestMappedAndScopedSources(t *testing.T) {
	tr := New(Config{})
	for _, text := range []string{"::ffff:198.51.100.7", "fe80::1%eth0"} {
		p := syn(0, 1, 1)
		p.Source = netip.MustParseAddr(text)
		tr.Add(p)
	}
	var got []string
	for _, e := range tr.Flush() {
		got = append(got, e.Source)
	}
	if diff := cmp.Diff([]string{"198.51.100.7", "fe80::1"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestWireForm(t *testing.T) {
	tr := New(Config{})
	tr.Add(syn(0, 4000, 22))
	text, err := json.Marshal(tr.Flush()[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{`"details":[]`, `"payload":null`, `"headers":[{"flags":2}]`, `"service":0`} {
		if !strings.Contains(string(text), part) {
			t.Errorf("%s is missing in %s", part, text)
		}
	}
}
