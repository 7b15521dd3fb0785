package scenario

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"time"

	"honeysens.org/dockersensor/packaging/lab/admin"
	"honeysens.org/dockersensor/packaging/lab/host"
	"honeysens.org/dockersensor/shared/event"
)

// patience is how long an attacker waits for an answer.
const patience = 10 * time.Second

// Attack is one thing that an attacker does, from an address that is used for
// nothing else, and the event that must come of it.
type Attack struct {
	Name string
	// Source is the address that the event must name.
	Source string
	// Do does it. An error says that the attacker noticed something: a refused
	// connection, or no answer.
	Do func(ctx context.Context) error
	// Wanted tells whether an event, whose source is the attack's, shows it.
	Wanted func(event.Event) bool
}

// Match tells whether an event is the attack's.
func (a *Attack) Match(e admin.Event) bool { return e.Source == a.Source && a.Wanted(e.Event) }

// Attacks returns one attack of each kind, and gives the attacker an address
// for each.
func (s *Scenario) Attacks(ctx context.Context) ([]Attack, error) {
	attacks := s.attacks()
	for _, a := range attacks {
		size := "/24"
		if strings.Contains(a.Source, ":") {
			size = "/64"
		}
		if err := s.attackerHas(ctx, a.Source+size); err != nil {
			return nil, err
		}
	}
	return attacks, nil
}

func (s *Scenario) attackerHas(ctx context.Context, address string) error {
	args := []string{"addr", "replace", address, "dev", host.Interface}
	if strings.Contains(address, ":") {
		args = append(args, "nodad")
	}
	if out, err := s.Lab.Command(ctx, host.Attacker, "ip", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("give the attacker the address %s: %w: %s", address, err, out)
	}
	return nil
}

func (s *Scenario) attacks() []Attack {
	v4, v6 := s.TargetV4, s.TargetV6
	return []Attack{
		s.login("log in at the assigned port, IPv4", "192.0.2.101", v4),
		s.login("log in at the assigned port, IPv6", "2001:db8::101", v6),
		s.talk("talk to port 8080 by TCP, IPv4", "tcp", "192.0.2.102", v4, 8080),
		s.talk("talk to port 54321 by TCP, IPv4", "tcp", "192.0.2.103", v4, 54321),
		s.talk("talk to port 3306 by TCP, IPv6", "tcp", "2001:db8::102", v6, 3306),
		s.talk("send to port 161 by UDP, IPv4", "udp", "192.0.2.104", v4, 161),
		s.talk("send to port 1900 by UDP, IPv6", "udp", "2001:db8::103", v6, 1900),
		s.scan("scan 100 ports with nmap", "192.0.2.105", v4),
	}
}

// login talks to the honeypot on its assigned port, and wants its event: not
// recon's.
func (s *Scenario) login(name, source, target string) Attack {
	return Attack{
		Name: name, Source: source,
		Do: func(ctx context.Context) error {
			return s.Dial(ctx, "tcp", source, target, s.Port, func(conn net.Conn) error {
				if err := greeting(conn); err != nil {
					return err
				}
				_, err := io.WriteString(conn, "SSH-2.0-attack\r\nroot:123456\r\n")
				return err
			})
		},
		Wanted: func(e event.Event) bool { return e.Service == event.ServiceGeneric },
	}
}

// talk sends one line to a port that only the catch-all serves.
func (s *Scenario) talk(name, network, source, target string, port int) Attack {
	payload := fmt.Sprintf("hello port %d\r\n", port)
	return Attack{
		Name: name, Source: source,
		Do: func(ctx context.Context) error {
			return s.Dial(ctx, network, source, target, port, func(conn net.Conn) error {
				_, err := io.WriteString(conn, payload)
				return err
			})
		},
		Wanted: func(e event.Event) bool {
			return e.Service == event.ServiceRecon && holds(e, network, port, payload)
		},
	}
}

// holds tells whether a packet of the event is to that port with that payload.
func holds(e event.Event, network string, port int, payload string) bool {
	protocol := event.ProtocolTCP
	if network == "udp" {
		protocol = event.ProtocolUDP
	}
	for _, p := range e.Packets {
		if p.Protocol != protocol || p.Port != port || p.Payload == nil {
			continue
		}
		if got, err := base64.StdEncoding.DecodeString(*p.Payload); err == nil && string(got) == payload {
			return true
		}
	}
	return false
}

// scan has nmap look for open ports, half open as root does it.
func (s *Scenario) scan(name, source, target string) Attack {
	return Attack{
		Name: name, Source: source,
		Do: func(ctx context.Context) error {
			cmd := s.Lab.Command(ctx, host.Attacker, "nmap", "-n", "-Pn", "-sS", "-F", "--max-retries", "1",
				"-S", source, "-e", host.Interface, target)
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("nmap: %w: %s", err, out)
			}
			return nil
		},
		Wanted: func(e event.Event) bool {
			return e.Service == event.ServiceRecon && e.Summary == event.SummaryScan
		},
	}
}

// Dial connects from one of the attacker's addresses.
func (s *Scenario) Dial(ctx context.Context, network, source, target string, port int, talk func(net.Conn) error) error {
	return s.On(host.Attacker, func() error {
		dialer := net.Dialer{Timeout: patience, LocalAddr: localAddr(network, source)}
		conn, err := dialer.DialContext(ctx, network, net.JoinHostPort(target, fmt.Sprint(port)))
		if err != nil {
			return err
		}
		if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
			return errors.Join(err, conn.Close())
		}
		return errors.Join(talk(conn), conn.Close())
	})
}

func localAddr(network, source string) net.Addr {
	address := netip.AddrPortFrom(netip.MustParseAddr(source), 0)
	if network == "udp" {
		return net.UDPAddrFromAddrPort(address)
	}
	return net.TCPAddrFromAddrPort(address)
}
