package core

import (
	"cmp"
	"slices"

	"go.uber.org/zap"

	"honeysens.org/dockersensor/shared/helperapi"
)

// conflicts are ports that a service wants and the host uses now: those that
// packets have shown, and assigned ones that a program waits at on all
// addresses, before anybody has tried. Each names its program where it can be
// known.
func (c *Core) conflicts(force *state, shown []helperapi.Conflict) []helperapi.Conflict {
	listeners, err := c.parts.Host.Listeners()
	if err != nil {
		c.log.Warn("programs at ports are unknown", zap.Error(err))
		return shown
	}
	list := slices.Clone(shown)
	if force.table != nil {
		list = append(list, expected(force, c.cfg.HostPorts, listeners)...)
	}
	var kept []helperapi.Conflict
	var behind []Listener
	seen := map[helperapi.Port]bool{}
	for _, conflict := range list {
		l, there := listeners[conflict.Port]
		// Without a listener it was a conflict, up to an hour ago.
		if there && !seen[conflict.Port] {
			seen[conflict.Port] = true
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
