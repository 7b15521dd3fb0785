package nft

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"honeysens.org/dockersensor/nethelper/internal/ruleset"
	"honeysens.org/dockersensor/shared/helperapi"
	"honeysens.org/dockersensor/shared/nettest"
)

// TestNetnsHostPorts is who gets a port that the host listens on.
func TestNetnsHostPorts(t *testing.T) {
	t.Parallel()
	type listener struct{ name, v4, v6 string }
	listeners := []listener{
		{"wildcard", "0.0.0.0", "::"},
		{"address of the interface", host4, host6},
		{"other address", other4, other6},
	}
	// Who answers at an assigned port and at one of the catch-all.
	wants := map[helperapi.HostPorts]map[string][2]string{
		helperapi.HostPortsProtect: {
			"wildcard": {"host", "host"}, "address of the interface": {"host", "host"}, "other address": {"one", "two"},
		},
		helperapi.HostPortsAssigned: {
			"wildcard": {"one", "host"}, "address of the interface": {"host", "host"}, "other address": {"one", "two"},
		},
	}
	for mode, byListener := range wants {
		for _, on := range listeners {
			t.Run(string(mode)+", "+on.name, func(t *testing.T) {
				t.Parallel()
				l := newLab(t)
				l.services(t)
				l.up(t, func(c *ruleset.Config) { c.HostPorts = mode })
				for _, f := range []struct{ bind, host, attacker string }{{on.v4, host4, attacker4}, {on.v6, host6, attacker6}} {
					checkHostPorts(t, l, f.bind, f.host, f.attacker, byListener[on.name])
				}
			})
		}
	}
}

func checkHostPorts(t *testing.T, l *lab, bind, host, attacker string, who [2]string) {
	for _, p := range []struct {
		network           string
		assigned, catched int
	}{{"tcp", 22, 80}, {"udp", 53, 80}} {
		network := p.network
		for i, port := range []int{p.assigned, p.catched} {
			stop := func() {}
			err := l.host.Do(func() error {
				var err error
				stop, err = listen(network, at(bind, port), "host")
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			want(t, l.attacker, network, at(host, port), who[i]+" "+attacker)
			stop()
			l.host.Run("conntrack", "-F")
			// When the listener ends, the redirect works by itself.
			wantSoon(t, l.attacker, network, at(host, port), []string{"one", "two"}[i]+" "+attacker)
			l.host.Run("conntrack", "-F")
		}
	}
}

// wantSoon is want for after a listener was closed: a process that is being
// started at the same time holds a copy of it until it is another program.
func wantSoon(t *testing.T, h *nettest.Host, network, addr, answer string) {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for {
		got, err := ask(h, network, addr)
		if got == answer {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s %s answers %q (%v), want %q", network, addr, got, err, answer)
		}
	}
}

func TestNetnsConflictsAreNamed(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.services(t)
	serve(t, l.host, "tcp", "0.0.0.0:22", "host")
	serve(t, l.host, "udp", "0.0.0.0:80", "host")
	l.up(t, nil)
	want(t, l.attacker, "tcp", at(host4, 22), "host "+attacker4)
	want(t, l.attacker, "udp", at(host4, 80), "host "+attacker4)
	got := l.conflicts(t)
	if got != "22/tcp one host, 80/udp two host" {
		t.Errorf("conflicts with protect: %s", got)
	}
	l.up(t, func(c *ruleset.Config) { c.HostPorts = helperapi.HostPortsAssigned })
	want(t, l.attacker, "tcp", at(host4, 22), "one "+attacker4)
	if got := l.conflicts(t); !strings.Contains(got, "22/tcp one service") {
		t.Errorf("conflicts with assigned: %s", got)
	}
}

func (l *lab) conflicts(t *testing.T) string {
	t.Helper()
	o, err := l.table.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, c := range o.Conflicts {
		list = append(list, fmt.Sprintf("%d/%s %s %s", c.Port.Number, c.Port.Protocol, c.Service, c.Winner))
	}
	return strings.Join(list, ", ")
}

// TestNetnsPublishedPorts: what Docker publishes by its own rule in the nat
// table, without a socket, goes to Docker unless the operator chose otherwise.
func TestNetnsPublishedPorts(t *testing.T) {
	t.Parallel()
	nettest.Need(t, "iptables-nft")
	for mode, who := range map[helperapi.HostPorts][2]string{
		helperapi.HostPortsProtect:  {"docker", "docker"},
		helperapi.HostPortsAssigned: {"one", "docker"},
	} {
		t.Run(string(mode), func(t *testing.T) {
			l := newLab(t)
			l.services(t)
			container := nettest.NewHost(t, "container")
			nettest.Connect(container, "eth0", []string{"172.17.0.2/16"}, l.host, "docker0", []string{"172.17.0.1/16"})
			container.Run("ip", "route", "add", "default", "via", "172.17.0.1")
			serve(t, container, "tcp", "172.17.0.2:80", "docker")
			l.host.Run("iptables-nft", "-t", "nat", "-N", "DOCKER")
			l.host.Run("iptables-nft", "-t", "nat", "-A", "PREROUTING", "-m", "addrtype", "--dst-type", "LOCAL", "-j", "DOCKER")
			for _, port := range []string{"22", "80"} {
				l.host.Run("iptables-nft", "-t", "nat", "-A", "DOCKER", "!", "-i", "docker0", "-p", "tcp", "--dport", port, "-j", "DNAT", "--to-destination", "172.17.0.2:80")
			}
			l.up(t, func(c *ruleset.Config) { c.HostPorts, c.ForwardingWasOffV4 = mode, true })
			want(t, l.attacker, "tcp", at(host4, 22), who[0]+" "+attacker4)
			want(t, l.attacker, "tcp", at(host4, 80), who[1]+" "+attacker4)
			o, err := l.table.Observe(t.Context())
			must(t, err)
			named := len(o.Published) == 1 && o.Published[0].Port.Number == 22 && o.Published[0].Service == "one"
			if lost := who[0] == "docker"; named != lost {
				t.Errorf("published %+v, want the assigned port: %v", o.Published, lost)
			}
		})
	}
}
