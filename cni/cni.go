// Package cni holds the network that services are attached to, as a CNI
// configuration list, and fills in what differs from sensor to sensor.
//
// The bridge and its gateway addresses are made beforehand: with isGateway the
// bridge plug-in would switch forwarding on for the whole host.
package cni

import (
	_ "embed" // the configuration list
	"encoding/json"
	"fmt"
	"net/netip"
)

// Names that the configuration list has.
const (
	// NetworkName is the list's name, under which leases and results are kept.
	NetworkName = "services"
	// IfName is the interface in a service's namespace.
	IfName = "eth0"
)

//go:embed services.conflist
var services []byte

// Network is what differs from sensor to sensor.
type Network struct {
	Bridge string
	MTU    int
	// V6 may be unset: then services have IPv4 only.
	V4, V6    netip.Prefix
	GatewayV4 netip.Addr
	GatewayV6 netip.Addr
	// LeaseDir is where host-local keeps its leases; it must not outlive the
	// namespaces, so it belongs on a tmpfs.
	LeaseDir string
}

// Plugins returns the programs that the list needs.
func Plugins() []string { return []string{"bridge", "host-local", "offload"} }

// Render returns the configuration list for the network.
func Render(n Network) ([]byte, error) {
	var list map[string]any
	if err := json.Unmarshal(services, &list); err != nil {
		return nil, fmt.Errorf("services.conflist: %w", err)
	}
	plugins, ok := list["plugins"].([]any)
	if !ok || len(plugins) == 0 {
		return nil, fmt.Errorf("services.conflist: no plug-ins")
	}
	bridge, ok := plugins[0].(map[string]any)
	if !ok {
		return nil, fmt.Errorf("services.conflist: no bridge")
	}
	ipam, ok := bridge["ipam"].(map[string]any)
	if !ok {
		return nil, fmt.Errorf("services.conflist: no address management")
	}
	bridge["bridge"], bridge["mtu"] = n.Bridge, n.MTU
	ipam["dataDir"] = n.LeaseDir
	ranges := [][]addressRange{{{n.V4, n.GatewayV4}}}
	routes := []route{{"0.0.0.0/0"}}
	if n.V6.IsValid() {
		ranges = append(ranges, []addressRange{{n.V6, n.GatewayV6}})
		routes = append(routes, route{"::/0"})
	}
	ipam["ranges"], ipam["routes"] = ranges, routes
	out, err := json.Marshal(list)
	if err != nil {
		return nil, fmt.Errorf("render services.conflist: %w", err)
	}
	return out, nil
}

type route struct {
	Dst string `json:"dst"`
}

type addressRange struct {
	Subnet  netip.Prefix `json:"subnet"`
	Gateway netip.Addr   `json:"gateway"`
}
