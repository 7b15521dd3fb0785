package doctor

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"honeysens.org/dockersensor/shared/helperapi"
	"honeysens.org/dockersensor/shared/version"
)

// maxShown is how many ports, conflicts or names are told one by one.
const maxShown = 20

// link is an interface of this network stack.
type link struct {
	name         string
	up, loopback bool
	addresses    []netip.Prefix
}

func (d *Doctor) examineInterface(context.Context) {
	name := d.cfg.Interface
	if name == "" && d.running != nil {
		name = d.running.Interface
	}
	links, err := interfaces()
	if err != nil {
		d.skip("interface", "%v", err)
		return
	}
	managed := d.settings != nil && d.settings.Interface.Mode != helperapi.ModeNone
	d.findings = append(d.findings, judgeInterface(name, links, managed && d.cfg.Before))
}

func interfaces() ([]link, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	var links []link
	for _, i := range all {
		l := link{name: i.Name, up: i.Flags&net.FlagUp != 0, loopback: i.Flags&net.FlagLoopback != 0}
		addresses, err := i.Addrs()
		if err != nil {
			return nil, fmt.Errorf("addresses of %s: %w", i.Name, err)
		}
		for _, address := range addresses {
			if prefix, err := netip.ParsePrefix(address.String()); err == nil {
				l.addresses = append(l.addresses, prefix)
			}
		}
		links = append(links, l)
	}
	return links, nil
}

// judgeInterface looks at the one with the name. Where the sensor brings it up
// itself, it may still be without an address.
func judgeInterface(name string, links []link, later bool) Finding {
	const check = "interface"
	advice := "set IFACE in docker-compose.yml to the one that attackers reach: " + names(links)
	at := slices.IndexFunc(links, func(l link) bool { return l.name == name })
	switch {
	case name == "":
		return Finding{check, Problem, "no interface is named", advice}
	case at < 0:
		return Finding{check, Problem, fmt.Sprintf("there is no interface %.40q", name), advice}
	case links[at].loopback:
		return Finding{check, Problem, name + " is reached by this host alone", advice}
	}
	found := links[at]
	reached := slices.DeleteFunc(slices.Clone(found.addresses), func(p netip.Prefix) bool { return p.Addr().IsLinkLocalUnicast() })
	switch {
	case len(reached) > 0 && found.up:
		return Finding{check, OK, fmt.Sprintf("%s has %s", name, list(reached)), ""}
	case later:
		return Finding{check, Note, name + " has no address yet; the configuration tells the sensor to give it one", ""}
	case !found.up:
		return Finding{check, Problem, name + " is down", "switch it on (ip link set dev " + name + " up), or check why the network's configuration does not"}
	}
	return Finding{check, Problem, name + " has no address that others reach", "give it one, or have the server configure the sensor's interface"}
}

func names(links []link) string {
	var names []string
	for _, l := range links {
		if !l.loopback {
			names = append(names, l.name)
		}
	}
	if len(names) == 0 {
		return "there is none yet"
	}
	return strings.Join(names, ", ")
}

// list joins what can be many.
func list[T fmt.Stringer](all []T) string {
	var shown []string
	for _, one := range all[:min(len(all), maxShown)] {
		shown = append(shown, one.String())
	}
	if more := len(all) - len(shown); more > 0 {
		shown = append(shown, fmt.Sprintf("%d more", more))
	}
	return strings.Join(shown, ", ")
}

// examinePorts tells which ports the host itself uses before the helper does.
func (d *Doctor) examinePorts(context.Context) {
	if !d.cfg.Before {
		return // The helper knows which of them matter.
	}
	ports, err := d.listeners()
	switch {
	case err != nil:
		d.skip("ports", "%v", err)
	case len(ports) == 0:
		d.ok("ports", "no program of the host listens for others")
	default:
		d.note("ports", "these stay with the host, and are no honeypots, unless HOST_PORTS is `assigned` and the server assigns one",
			"programs of the host listen on %s", list(ports))
	}
}

// listeners returns the ports on which somebody listens but at the loopback
// addresses, as proc_net(5) tells.
func (d *Doctor) listeners() ([]helperapi.Port, error) {
	found := map[helperapi.Port]bool{}
	for _, table := range []struct {
		file, state string
		protocol    helperapi.Protocol
	}{
		{"tcp", "0A", helperapi.TCP}, {"tcp6", "0A", helperapi.TCP},
		{"udp", "07", helperapi.UDP}, {"udp6", "07", helperapi.UDP},
	} {
		text, err := os.ReadFile(d.path("proc/net", table.file))
		if errors.Is(err, os.ErrNotExist) {
			continue // a host without IPv6
		}
		if err != nil {
			return nil, fmt.Errorf("ports of the host: %w", err)
		}
		for line := range strings.Lines(string(text)) {
			if port, ok := listener(line, table.state); ok {
				found[helperapi.Port{Protocol: table.protocol, Number: port}] = true
			}
		}
	}
	ports := make([]helperapi.Port, 0, len(found))
	for port := range found {
		ports = append(ports, port)
	}
	slices.SortFunc(ports, func(a, b helperapi.Port) int {
		if a.Protocol != b.Protocol {
			return strings.Compare(string(a.Protocol), string(b.Protocol))
		}
		return int(a.Number) - int(b.Number)
	})
	return ports, nil
}

// listener reads a line such as "0: 00000000:0016 00000000:0000 0A ...".
func listener(line, state string) (uint16, bool) {
	fields := strings.Fields(line)
	if len(fields) < 4 || fields[3] != state {
		return 0, false
	}
	host, text, _ := strings.Cut(fields[1], ":")
	address, err := kernelAddress(host)
	if err != nil || address.IsLoopback() {
		return 0, false
	}
	port, err := strconv.ParseUint(text, 16, 16)
	return uint16(port), err == nil && port != 0
}

// kernelAddress reads an address as one or four hexadecimal words, each in the
// machine's own byte order.
func kernelAddress(text string) (netip.Addr, error) {
	raw, err := hex.DecodeString(text)
	if err != nil {
		return netip.Addr{}, err
	}
	if binary.NativeEndian.Uint16([]byte{1, 0}) == 1 && len(raw)%4 == 0 {
		for word := range slices.Chunk(raw, 4) {
			slices.Reverse(word)
		}
	}
	address, ok := netip.AddrFromSlice(raw)
	if !ok {
		return netip.Addr{}, fmt.Errorf("address of %d bytes", len(raw))
	}
	return address.Unmap(), nil
}

// examineHelper asks the helper for its state and for what it found.
func (d *Doctor) examineHelper(ctx context.Context) {
	if d.notYet("helper") {
		d.skip("firewall", "the helper looks for one when it runs: it passes those of Docker, ufw and firewalld by itself, and tells of others")
		return
	}
	health, err := d.helper.Health(ctx)
	if err != nil {
		d.problem("helper", "look for nethelper in the log (docker compose logs sensor); without it no attacker reaches a honeypot", "%v", err)
		return
	}
	if health.Version != version.Revision {
		d.note("helper", "restart the container: one of the two was exchanged while it ran", "its version is %.40q, and this is %s", health.Version, version.Revision)
	} else {
		d.ok("helper", "it answers")
	}
	observed, err := d.helper.Observe(ctx)
	if err != nil {
		d.problem("network", "look for nethelper in the log (docker compose logs sensor)", "%v", err)
		return
	}
	d.judgeNetwork(observed)
	d.judgeServices(observed)
	d.judgeFirewalls(observed.Firewalls)
	d.judgeConflicts(observed.Conflicts)
}

func (d *Doctor) judgeNetwork(observed helperapi.Observed) {
	const check = "network"
	switch {
	case observed.Interface.Problem != "":
		d.problem(check, "check the interface, its cable and the network's settings at the server", "%s: %s", observed.Interface.Name, observed.Interface.Problem)
	case d.running != nil && d.running.NetworkError != "":
		d.problem(check, "look for nethelper in the log (docker compose logs sensor)", "it is not as the server wants it: %s", d.running.NetworkError)
	case !observed.Applied:
		d.problem(check, "look into the log (docker compose logs sensor); a moment after the start this is normal", "no rules are in force")
	default:
		d.ok(check, "rules are in force, %d services are attached", len(observed.Services))
	}
	if observed.Heals > 0 {
		d.note(check, "find out which program changes rules that are not its own", "rules were repaired %d times after somebody else changed them", observed.Heals)
	}
}

// judgeServices is about what honeypots are kept from.
func (d *Doctor) judgeServices(observed helperapi.Observed) {
	const check = "containment"
	for _, lack := range observed.Lacks {
		d.note(check, "run the sensor on a kernel of a distribution", "%s", lack)
	}
	for _, s := range observed.Services {
		if refused := s.Refused.Packets + s.Forged.Packets; refused > 0 {
			d.note(check, "when its software does not do that by itself, somebody has taken it over: restart the honeypot and look at its events",
				"service %s was stopped %d times where it may not go, or in somebody else's name", s.ID, refused)
		}
		if s.Bounded.Packets > 0 {
			d.note(check, "look at its events for somebody who floods it", "%d packets to and from service %s were above its bounds", s.Bounded.Packets, s.ID)
		}
	}
}

func (d *Doctor) judgeFirewalls(firewalls []helperapi.Firewall) {
	const check = "firewall"
	for _, f := range firewalls {
		if f.Problem != "" || f.Passage == "" {
			d.problem(check, "let the host forward connections that arrive at the sensor's interface to the services bridge",
				"%s keeps attackers from honeypots: %s", f.Kind, f.Problem)
			continue
		}
		d.ok(check, "%s drops forwarded traffic, and is passed by %s", f.Kind, f.Passage)
	}
	if len(firewalls) == 0 {
		d.ok(check, "none of the host's drops forwarded traffic")
	}
}

func (d *Doctor) judgeConflicts(conflicts []helperapi.Conflict) {
	const check = "ports"
	for _, c := range conflicts[:min(len(conflicts), maxShown)] {
		d.note(check, "", "%s wanted by service %s goes to the %s: %s", c.Port, c.Service, c.Winner, c.Reason)
	}
	if more := len(conflicts) - maxShown; more > 0 {
		d.note(check, "", "%d more ports are wanted by a service and used by the host", more)
	}
	if len(conflicts) == 0 {
		d.ok(check, "no service wants a port that the host uses")
	}
}
