package e2e

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"honeysens.org/dockersensor/packaging/lab/admin"
	"honeysens.org/dockersensor/packaging/lab/host"
	"honeysens.org/dockersensor/packaging/lab/labtest"
	"honeysens.org/dockersensor/packaging/lab/scenario"
	"honeysens.org/dockersensor/shared/event"
)

const (
	// scanner is an address that nothing else comes from, pinger another.
	scanner, pinger = "192.0.2.120", "192.0.2.121"
	// reconMemory is what recon may take at most, in KiB.
	reconMemory = 32 << 10
)

// scanOfAllPorts has nmap try all ports: that is one event of recon. An echo
// request is answered by the host, and is none.
func scanOfAllPorts(t *testing.T, s *scenario.Scenario) {
	for _, address := range []string{scanner, pinger} {
		out, err := s.Lab.Command(t.Context(), host.Attacker, "ip", "addr", "replace", address+"/24", "dev", host.Interface).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	since := labtest.LastEvent(t, s)
	echo(t, s)
	start := time.Now()
	cmd := s.Lab.Command(t.Context(), host.Attacker, "nmap", "-n", "-Pn", "-sS", "-p-", "--max-retries", "1", "-S", scanner, "-e", host.Interface, s.TargetV4)
	out, err := cmd.CombinedOutput()
	labtest.Must(t, err)
	t.Logf("nmap took %s: %s", time.Since(start).Round(time.Second), summary(string(out)))
	labtest.Arrives(t, s, since, "a scan of all ports", func(e admin.Event) bool {
		return e.Source == scanner && e.Service == event.ServiceRecon && e.Summary == event.SummaryScan
	})
	// What recon had collected meanwhile would be here before the event of a
	// visit that comes after.
	after := labtest.LastEvent(t, s)
	labtest.Must(t, s.Dial(t.Context(), "tcp", host.AttackerV4, s.TargetV4, 8081, func(net.Conn) error { return nil }))
	labtest.Arrives(t, s, after, "a visit after the scan", func(e admin.Event) bool { return e.Source == host.AttackerV4 && e.Service == event.ServiceRecon })
	events, err := s.Server.Events(t.Context(), since, 0)
	labtest.Must(t, err)
	scans := 0
	for _, e := range events {
		if e.Source == scanner && e.Service == event.ServiceRecon {
			scans++
		}
		if e.Source == pinger {
			t.Errorf("an echo request became an event: %+v", e)
		}
	}
	if scans != 1 {
		t.Errorf("the scan made %d events of recon, want 1", scans)
	}
	used, size := reconUse(t, s)
	t.Logf("recon: %.1f MB of memory at most, program of %.1f MB", float64(used)/1024, float64(size)/1e6)
	if used > reconMemory || size > 10e6 {
		t.Errorf("recon took %d KiB of memory and has %d bytes", used, size)
	}
}

func summary(out string) string {
	for line := range strings.Lines(out) {
		if strings.Contains(line, "Not shown") || strings.Contains(line, "All 65535") {
			return strings.TrimSpace(line)
		}
	}
	return fmt.Sprintf("%d lines", strings.Count(out, "\n"))
}

// reconUse returns the most that recon has had in memory, in KiB, and the size of
// its program in bytes.
func reconUse(t *testing.T, s *scenario.Scenario) (memory, size int) {
	t.Helper()
	out, err := s.Exec(t.Context(), "sh", "-c", `p=$(pidof recon); sed -n 's/^VmHWM:[^0-9]*\([0-9]*\).*/\1/p' /proc/$p/status; stat -L -c %s /proc/$p/exe`)
	labtest.Must(t, err)
	fields := strings.Fields(out)
	if len(fields) != 2 {
		t.Fatalf("got %q", out)
	}
	memory, errMemory := strconv.Atoi(fields[0])
	size, errSize := strconv.Atoi(fields[1])
	labtest.Must(t, errMemory)
	labtest.Must(t, errSize)
	return memory, size
}

// echo sends an echo request (RFC 792) and wants the host's reply.
func echo(t *testing.T, s *scenario.Scenario) {
	t.Helper()
	err := s.On(host.Attacker, func() error {
		conn, err := net.DialIP("ip4:icmp", &net.IPAddr{IP: net.ParseIP(pinger)}, &net.IPAddr{IP: net.ParseIP(s.TargetV4)})
		if err != nil {
			return err
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			return err
		}
		if _, err := conn.Write([]byte{8, 0, 0xf7, 0xfd, 0, 1, 0, 1}); err != nil {
			return err
		}
		for reply := make([]byte, 100); ; {
			if n, _, err := conn.ReadFrom(reply); err != nil || (n > 0 && reply[0] == 0) {
				return err
			}
		}
	})
	if err != nil {
		t.Errorf("no echo: %v", err)
	}
}
