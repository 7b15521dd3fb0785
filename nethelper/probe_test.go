package main

import (
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"honeysens.org/dockersensor/nethelper/internal/hosttest"
	"honeysens.org/dockersensor/shared/helperapi"
)

func (b *bench) probe(source string, port helperapi.Port) (helperapi.ProbeResult, error) {
	b.t.Helper()
	var result helperapi.ProbeResult
	err := b.call(http.MethodPost, helperapi.PathProbe, helperapi.Probe{Source: netip.MustParseAddr(source), Port: port}, &result)
	return result, err
}

func (b *bench) wantProbe(source string, port helperapi.Port, want helperapi.ProbeOutcome, said int) {
	b.t.Helper()
	got, err := b.probe(source, port)
	target := hosttest.HostV4
	if strings.Contains(source, ":") {
		target = hosttest.HostV6
	}
	if err != nil || got.Outcome != want || got.Said != said || got.Target.String() != target {
		b.t.Errorf("probe of %s: %+v, %v, want %s and %d bytes", port, got, err, want, said)
	}
}

func tcp(port uint16) helperapi.Port { return helperapi.Port{Protocol: helperapi.TCP, Number: port} }

// A probe takes the way of an attacker: it is redirected, counted, and answered
// by the honeypot that sees its source.
func TestNetnsProbeTakesTheWayOfAnAttacker(t *testing.T) {
	b := newBench(t)
	// A host that checks where answers would go.
	b.host.Run("sysctl", "-qw", "net.ipv4.conf.all.rp_filter=1", "net.ipv4.conf.eth0.rp_filter=1")
	before := hosttest.Snapshot(b.host)
	ssh, recon := b.twoHoneypots()
	b.start()
	b.put(wanted(ssh, recon))
	b.wantProbe("198.18.1.2", tcp(22), helperapi.ProbeAnswered, len("ssh sees 198.18.1.2"))
	b.wantProbe("198.19.255.254", tcp(9999), helperapi.ProbeAnswered, len("recon sees 198.19.255.254"))
	snmp := helperapi.Port{Protocol: helperapi.UDP, Number: 161}
	b.wantProbe("198.18.1.3", snmp, helperapi.ProbeSilent, 0)
	b.wantProbe("2001:2::1:2", tcp(22), helperapi.ProbeAnswered, len("ssh sees 2001:2::1:2"))
	b.wantProbe("2001:2:0:ffff::1", tcp(9999), helperapi.ProbeAnswered, len("recon sees 2001:2:0:ffff::1"))
	b.wantProbe("2001:2::1:3", snmp, helperapi.ProbeSilent, 0)
	if got := b.get().Services; got[0].Redirected.Packets != 2 || got[1].Redirected.Packets != 4 {
		t.Errorf("redirected %+v, want 2 and 4", got)
	}
	left := b.host.Run("ip", "route") + b.host.Run("ip", "-6", "route") + b.host.Run("ip", "neigh") + b.host.Run("tc", "qdisc")
	if strings.Contains(left, "198.1") || strings.Contains(left, "2001:2:") || strings.Contains(left, "clsact") {
		t.Errorf("probes have left:\n%s", left)
	}
	if err := b.end(syscall.SIGTERM); err != nil {
		t.Errorf("end: %v", err)
	}
	b.wantUnchanged(before)
}

func TestNetnsProbeTellsWhatBroke(t *testing.T) {
	b := newBench(t)
	ssh, _ := b.twoHoneypots()
	silent := hosttest.NewContainer(t, "silent")
	b.start()
	if _, err := b.probe("198.18.1.2", tcp(22)); !isKind(err, helperapi.KindUnavailable) {
		t.Errorf("before a state is in force: %v", err)
	}
	b.put(wanted(ssh, silent))
	b.wantProbe("198.18.1.2", tcp(9999), helperapi.ProbeRefused, 0)
	b.host.Run("nft", "add table inet foreign")
	b.host.Run("nft", "add chain inet foreign input { type filter hook prerouting priority -300; }")
	b.host.Run("nft", "add rule inet foreign input ip saddr 198.18.0.0/15 drop")
	b.wantProbe("198.18.1.2", tcp(22), helperapi.ProbeSilent, 0)
}

func TestNetnsProbeRefusesOtherSources(t *testing.T) {
	b := newBench(t)
	ssh, recon := b.twoHoneypots()
	b.start()
	b.put(wanted(ssh, recon))
	for _, source := range []string{"192.0.2.2", "198.20.0.1", "10.10.10.2", "::1", "2001:2:1::1", "::ffff:192.0.2.2"} {
		if _, err := b.probe(source, tcp(22)); !isKind(err, helperapi.KindInvalid) {
			t.Errorf("from %s: %v", source, err)
		}
	}
	if _, err := b.probe("198.18.0.1", tcp(0)); !isKind(err, helperapi.KindInvalid) {
		t.Errorf("to port 0: %v", err)
	}
}

// A helper that is killed in the middle leaves a route, which the next one and
// cleanup remove.
func TestNetnsKilledProbeIsCleanedUp(t *testing.T) {
	cleaners := map[string]func(*bench){
		"by the next helper": func(b *bench) {
			b.start()
			if err := b.end(syscall.SIGTERM); err != nil {
				t.Errorf("end: %v", err)
			}
		},
		"by cleanup": func(b *bench) { b.host.Run(program(t), "cleanup", "--sensor-id", testID) },
	}
	for name, clean := range cleaners {
		for _, source := range []string{"198.18.1.2", "2001:2::1:2"} {
			t.Run(name+" from "+source, func(t *testing.T) { killedProbe(t, source, clean) })
		}
	}
}

func killedProbe(t *testing.T, source string, clean func(*bench)) {
	b := newBench(t)
	before := hosttest.Snapshot(b.host)
	ssh, recon := b.twoHoneypots()
	b.start()
	b.put(wanted(ssh, recon))
	b.host.Run("nft", "add table inet foreign")
	b.host.Run("nft", "add chain inet foreign input { type filter hook prerouting priority -300; }")
	b.host.Run("nft", "add rule inet foreign input ip saddr 198.18.0.0/15 drop")
	b.host.Run("nft", "add rule inet foreign input ip6 saddr 2001:2::/48 drop")
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = b.probe(source, tcp(22))
	}()
	until(t, "the probe has its neighbour", func() bool { return strings.Contains(b.host.Run("ip", "neigh"), source) })
	_ = b.end(syscall.SIGKILL)
	<-done
	b.host.Run("nft", "delete table inet foreign")
	clean(b)
	b.wantUnchanged(before)
	if left := b.host.Run("ip", "neigh"); strings.Contains(left, source) {
		t.Errorf("neighbours are left:\n%s", left)
	}
}

func isKind(err error, kind helperapi.Kind) bool {
	var refused *helperapi.Error
	return errors.As(err, &refused) && refused.Kind == kind
}
