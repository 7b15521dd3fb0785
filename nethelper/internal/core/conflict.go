package core

import (
	"cmp"
	"slices"

	"go.uber.org/zap"

	"honeysens.org/dockersensor/nethelper/internal/nft"
	"honeysens.org/dockersensor/shared/helperapi"
)

// conflicts are ports that a service wants and the host uses now: those that
// packets have shown, those that other rules lead elsewhere, and assigned ones
// that a program waits at on all addresses, before anybody has tried. Each names
// its program where it can be known.
func (c *Core) conflicts(force *state, seen nft.Observed) []helperapi.Conflict {
	listeners, err := c.parts.Host.Listeners()
	if err != nil {
		c.log.Warn("programs at ports are unknown", zap.Error(err))
		return slices.Concat(seen.Published, seen.Conflicts)
	}
	list := slices.Clone(seen.Conflicts)
	if force.table != nil {
		list = append(list, expected(force, c.cfg.HostPorts, listeners)...)
	}
	kept := slices.Clone(seen.Published)
	behind := make([]Listener, len(kept))
	known := map[helperapi.Port]bool{}
	for _, conflict := range kept {
		known[conflict.Port] = true
	}
	for _, conflict := range list {
		l, there := listeners[conflict.Port]
		// Without a listener it was a conflict, up to an hour ago.
		if there && !known[conflict.Port] {
			known[conflict.Port] = true
			kept, behind = append(kept, conflict), append(behind, l)
		}
	}
	if len(kept) == 0 {
		return nil
	}
	programs := c.parts.Host.Programs(behind)
	for i := range kept {
		if name := programs[behind[i]]; name != "" {
			kept[i].Reason += " The program is " + name + "."
		}
	}
	slices.SortFunc(kept, func(a, b helperapi.Conflict) int {
		return cmp.Or(cmp.Compare(a.Port.Number, b.Port.Number), cmp.Compare(a.Port.Protocol, b.Port.Protocol))
	})
	return kept
}

// expected are conflicts that the first attempt would show.
func expected(force *state, mode helperapi.HostPorts, listeners map[helperapi.Port]Listener) []helperapi.Conflict {
	var list []helperapi.Conflict
	for _, service := range force.want.Services {
		for _, a := range service.Ports {
			if !listeners[a.Port].Everywhere {
				continue
			}
			if conflict, ok := force.table.Conflict(a.Port, mode == helperapi.HostPortsAssigned); ok {
				list = append(list, conflict)
			}
		}
	}
	return list
}
