package core

import (
	"slices"

	"honeysens.org/dockersensor/nethelper/internal/attach"
	"honeysens.org/dockersensor/nethelper/internal/link"
	"honeysens.org/dockersensor/nethelper/internal/ruleset"
	"honeysens.org/dockersensor/shared/helperapi"
)

// Rules describes the state to the ruleset.
func Rules(cfg Config, want helperapi.Network, layout link.Layout, standing link.Forwarding, attached []attach.Attachment) ruleset.Config {
	rules := ruleset.Config{
		SensorID: cfg.SensorID, Iface: cfg.Rights.Iface, Bridge: layout.Name,
		V4: layout.V4, V6: layout.V6, GatewayV4: layout.GatewayV4, GatewayV6: layout.GatewayV6,
		CollectorPort: want.Bridge.CollectorPort, HostPorts: cfg.HostPorts, Egress: want.Egress,
		Protected:          unique(cfg.Protected, want.ProtectedPorts),
		ForwardingWasOffV4: standing.WasOffV4, ForwardingWasOffV6: standing.WasOffV6,
		ForwardingAllV6: standing.AllV6, TTL: standing.TTL, HopLimit: standing.HopLimit,
	}
	for i, service := range want.Services {
		rules.Services = append(rules.Services, ruleset.Service{
			ID: service.ID, V4: attached[i].V4, V6: attached[i].V6, Port: attached[i].Port, MAC: attached[i].MAC,
			Ports: service.Ports, CatchAll: service.CatchAll,
		})
	}
	return rules
}

func unique(lists ...[]helperapi.Port) []helperapi.Port {
	var all []helperapi.Port
	seen := map[helperapi.Port]bool{}
	for _, port := range slices.Concat(lists...) {
		if !seen[port] {
			seen[port] = true
			all = append(all, port)
		}
	}
	return all
}
