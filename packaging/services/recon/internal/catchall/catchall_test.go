package catchall

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"

	"honeysens.org/dockersensor/packaging/services/recon/internal/tracker"
	"honeysens.org/dockersensor/shared/nettest"
)

// listen opens a listener in a namespace of its own and runs it until the test
// ends.
func listen(t *testing.T, limits Limits, take func(tracker.Probe)) (*nettest.Host, *Listener) {
	t.Helper()
	host := nettest.NewHost(t, "recon")
	var l *Listener
	err := host.Do(func() (err error) {
		l, err = Listen(t.Context(), limits)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- l.Run(ctx, take) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("listener ended with %v", err)
		}
	})
	return host, l
}

func dial(t *testing.T, host *nettest.Host, port uint16) net.Conn {
	t.Helper()
	var conn net.Conn
	err := host.Do(func() (err error) {
		conn, err = net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), 5*time.Second)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	return conn
}

func TestNetnsTooManyConnections(t *testing.T) {
	limits := Limits{Connections: 10, PerSource: 2, First: time.Minute, More: time.Minute}
	host, l := listen(t, limits, func(tracker.Probe) {})
	dial(t, host, l.Port())
	dial(t, host, l.Port())
	if _, err := dial(t, host, l.Port()).Read(make([]byte, 1)); err == nil {
		t.Error("the third connection of a source got an answer")
	}
	if n := l.Refused(); n != 1 {
		t.Errorf("%d connections refused, want 1", n)
	}
}

func TestNetnsPayload(t *testing.T) {
	limits := Limits{Connections: 10, PerSource: 10, First: time.Minute, More: time.Minute}
	probes := make(chan tracker.Probe, 10)
	host, l := listen(t, limits, func(p tracker.Probe) { probes <- p })

	slow := dial(t, host, l.Port())
	for _, part := range []string{"GET ", "/ HT", "TP"} {
		if _, err := io.WriteString(slow, part); err != nil {
			t.Fatal(err)
		}
	}
	_ = slow.Close()
	if p := <-probes; string(p.Payload) != "GET / HTTP" || p.DstPort != l.Port() {
		t.Errorf("got %q for port %d", p.Payload, p.DstPort)
	}

	long := dial(t, host, l.Port())
	if _, err := io.WriteString(long, strings.Repeat("x", 4096)); err != nil {
		t.Fatal(err)
	}
	if p := <-probes; len(p.Payload) != tracker.MaxPayload {
		t.Errorf("%d bytes of payload", len(p.Payload))
	}
}

func TestNetnsRulesReplaceThemselves(t *testing.T) {
	nettest.Need(t, "nft")
	host := nettest.NewHost(t, "recon")
	in := nftables.WithNetNSFd(host.Fd())
	collector := netip.MustParseAddr("fd00::1")
	var rules *Rules
	for range 2 {
		var err error
		if rules, err = Install("eth0", collector, 5000, in); err != nil {
			t.Fatal(err)
		}
	}
	listing := host.Run("nft", "list", "ruleset")
	for _, want := range []string{"tproxy to :5000", "fib daddr type local", "ip6 saddr fd00::1 accept"} {
		if !strings.Contains(listing, want) {
			t.Errorf("%q is missing in\n%s", want, listing)
		}
	}
	if n := strings.Count(listing, "tproxy"); n != 1 {
		t.Errorf("%d rules divert", n)
	}
	for range 2 {
		if err := rules.Remove(); err != nil {
			t.Error(err)
		}
	}
	if listing := host.Run("nft", "list", "ruleset"); listing != "" {
		t.Errorf("rules remain:\n%s", listing)
	}
}
