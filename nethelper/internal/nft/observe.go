package nft

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"honeysens.org/dockersensor/nethelper/internal/ruleset"
	"honeysens.org/dockersensor/shared/helperapi"
)

// Observed is what the kernel tells about the table.
type Observed struct {
	// Services are the counts of each service, by its id.
	Services map[string]Service
	// Refused counts packets by which services tried what they may not.
	Refused helperapi.Counter
	// Conflicts are ports of the last hour, sorted.
	Conflicts []helperapi.Conflict
	// Published are assigned ports that somebody else's rules have led elsewhere
	// within the last minutes, sorted.
	Published []helperapi.Conflict
	Heals     uint64
	LastHeal  time.Time
}

// Service is what the kernel tells about one service.
type Service struct {
	// Redirected counts connections that were led to it, Refused packets by
	// which it tried what it may not, Forged frames under the address of somebody
	// else, Bounded what was above its bounds, in either direction.
	Redirected, Refused, Forged, Bounded helperapi.Counter
	// Tried are places where it wanted to go, sorted, helperapi.MaxTried at most.
	Tried []helperapi.Attempt
}

// Observe reads counters and conflicts. Before the first Apply all is zero. A
// table that is gone is put back first.
func (t *Table) Observe(ctx context.Context) (Observed, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	o := Observed{Services: map[string]Service{}, Heals: t.heals, LastHeal: t.lastHeal}
	if err := ctx.Err(); err != nil {
		return o, err
	}
	if t.want == nil {
		return o, nil
	}
	there, err := t.complete()
	if err == nil && !there {
		err = t.heal()
		o.Heals, o.LastHeal = t.heals, t.lastHeal
	}
	if err != nil {
		return o, err
	}
	return o, errors.Join(t.observeServices(&o), t.observeRefused(&o),
		t.observeConflicts(&o.Conflicts, ruleset.Kept, func(p helperapi.Port) (helperapi.Conflict, bool) { return t.want.Conflict(p, false) }),
		t.observeConflicts(&o.Conflicts, ruleset.Taken, func(p helperapi.Port) (helperapi.Conflict, bool) { return t.want.Conflict(p, true) }),
		t.observeConflicts(&o.Published, ruleset.Published, t.want.PublishedConflict))
}

// complete tells whether the kernel has the tables.
func (t *Table) complete() (bool, error) {
	for _, table := range t.want.All() {
		if there, err := t.exists(kernelTable(table)); err != nil || !there {
			return false, err
		}
	}
	return true, nil
}

func (t *Table) elements(table *ruleset.Table, set string) ([]nftables.SetElement, error) {
	list, err := t.reader.GetSetElements(&nftables.Set{Table: kernelTable(table), Name: set})
	if err != nil {
		return nil, fmt.Errorf("read set %s: %w", set, err)
	}
	return list, nil
}

// count is a set whose elements count something of services.
type count struct {
	set string
	of  func(*Service) *helperapi.Counter
}

// counts are those whose elements have addresses of services as keys, portCounts
// those with the names of ports.
func counts() []count {
	redirected := func(s *Service) *helperapi.Counter { return &s.Redirected }
	refused := func(s *Service) *helperapi.Counter { return &s.Refused }
	bounded := func(s *Service) *helperapi.Counter { return &s.Bounded }
	return []count{
		{ruleset.Redirected4, redirected}, {ruleset.Redirected6, redirected}, {ruleset.Refused4, refused}, {ruleset.Refused6, refused},
		{ruleset.Bounded4, bounded}, {ruleset.Bounded6, bounded},
	}
}

func portCounts() []count {
	return []count{
		{ruleset.Forged, func(s *Service) *helperapi.Counter { return &s.Forged }},
		{ruleset.Flooded, func(s *Service) *helperapi.Counter { return &s.Bounded }},
	}
}

func (t *Table) observeServices(o *Observed) error {
	services := map[string]*Service{}
	for _, id := range t.want.Services() {
		services[id] = &Service{}
	}
	at := func(key []byte) *Service {
		addr, _ := netip.AddrFromSlice(key)
		return services[t.want.ServiceAt(addr)]
	}
	behind := func(key []byte) *Service {
		return services[t.want.ServiceBehind(strings.TrimRight(string(key), "\x00"))]
	}
	err := t.observeCounts(t.want, counts(), at)
	if t.want.Ports != nil {
		err = errors.Join(err, t.observeCounts(t.want.Ports, portCounts(), behind))
	}
	err = errors.Join(err, t.observeTried(ruleset.Tried4, 4, at), t.observeTried(ruleset.Tried6, 16, at))
	for id, service := range services {
		service.Tried = foremost(service.Tried)
		o.Services[id] = *service
	}
	return err
}

func (t *Table) observeCounts(table *ruleset.Table, list []count, owner func(key []byte) *Service) error {
	for _, c := range list {
		elements, err := t.elements(table, c.set)
		if err != nil {
			return err
		}
		for _, e := range elements {
			if service := owner(e.Key); service != nil && e.Counter != nil {
				counter := c.of(service)
				counter.Packets += e.Counter.Packets
				counter.Bytes += e.Counter.Bytes
			}
		}
	}
	return nil
}

// observeTried reads who wanted to go where: two addresses of that many bytes,
// protocol and port.
func (t *Table) observeTried(set string, length int, owner func(key []byte) *Service) error {
	elements, err := t.elements(t.want, set)
	if err != nil {
		return err
	}
	for _, e := range elements {
		if len(e.Key) != 2*length+8 {
			continue
		}
		service := owner(e.Key[:length])
		to, _ := netip.AddrFromSlice(e.Key[length : 2*length])
		if service == nil {
			continue
		}
		rest := e.Key[2*length:]
		service.Tried = append(service.Tried, helperapi.Attempt{To: to, Protocol: protocolName(rest[0]), Port: binary.BigEndian.Uint16(rest[4:])})
	}
	return nil
}

// foremost sorts attempts and leaves out what is too much for an answer.
func foremost(tried []helperapi.Attempt) []helperapi.Attempt {
	slices.SortFunc(tried, func(a, b helperapi.Attempt) int {
		return cmp.Or(a.To.Compare(b.To), cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Port, b.Port))
	})
	return tried[:min(len(tried), helperapi.MaxTried)]
}

// protocolName names a protocol as /etc/protocols does, or by its number.
func protocolName(number byte) string {
	switch number {
	case unix.IPPROTO_TCP:
		return "tcp"
	case unix.IPPROTO_UDP:
		return "udp"
	case unix.IPPROTO_ICMP:
		return "icmp"
	case unix.IPPROTO_ICMPV6:
		return "ipv6-icmp"
	default:
		return strconv.Itoa(int(number))
	}
}

func (t *Table) observeRefused(o *Observed) error {
	object, err := t.reader.GetObject(&nftables.CounterObj{Table: kernelTable(t.want), Name: ruleset.Refused})
	if err != nil {
		return fmt.Errorf("read counter %s: %w", ruleset.Refused, err)
	}
	if counter, ok := object.(*nftables.CounterObj); ok {
		o.Refused = helperapi.Counter{Packets: counter.Packets, Bytes: counter.Bytes}
	}
	return nil
}

// observeConflicts reads ports from a set and adds what describe says of them.
func (t *Table) observeConflicts(list *[]helperapi.Conflict, set string, describe func(helperapi.Port) (helperapi.Conflict, bool)) error {
	elements, err := t.elements(t.want, set)
	if err != nil {
		return err
	}
	for _, e := range elements {
		p, ok := portOf(e.Key)
		if !ok {
			continue
		}
		if c, ok := describe(p); ok {
			*list = append(*list, c)
		}
	}
	slices.SortFunc(*list, func(a, b helperapi.Conflict) int {
		return cmp.Or(cmp.Compare(a.Port.Number, b.Port.Number), cmp.Compare(a.Port.Protocol, b.Port.Protocol))
	})
	return nil
}

// portOf reads a key of protocol and port.
func portOf(key []byte) (helperapi.Port, bool) {
	if len(key) != 8 {
		return helperapi.Port{}, false
	}
	p := helperapi.Port{Number: binary.BigEndian.Uint16(key[4:])}
	switch key[0] {
	case unix.IPPROTO_TCP:
		p.Protocol = helperapi.TCP
	case unix.IPPROTO_UDP:
		p.Protocol = helperapi.UDP
	}
	return p, p.Protocol != ""
}
