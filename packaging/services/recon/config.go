package main

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
)

// sandboxInterface is the interface of a service in its own namespace.
const sandboxInterface = "eth0"

// config is what the sensor tells a service by its environment.
type config struct {
	// collector is where events go.
	collector     netip.Addr
	collectorPort uint16
	// iface is where attackers come in.
	iface string
	// raw means that the namespace is the sensor's own: look, but touch nothing.
	raw bool
}

// readConfig reads the environment by means of getenv.
func readConfig(getenv func(string) string) (config, error) {
	host := getenv("COLLECTOR_HOST")
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return config{}, fmt.Errorf("COLLECTOR_HOST is %q: want the IP address of the collector", host)
	}
	port, err := strconv.ParseUint(getenv("COLLECTOR_PORT"), 10, 16)
	if err != nil || port == 0 {
		return config{}, fmt.Errorf("COLLECTOR_PORT is %q: want a port, such as 5556", getenv("COLLECTOR_PORT"))
	}
	cfg := config{collector: addr.Unmap(), collectorPort: uint16(port), iface: sandboxInterface}
	if name := getenv("INTERFACE"); name != "" {
		cfg.iface, cfg.raw = name, true
	}
	return cfg, nil
}

// address is that of the collector, as net.Dial has it.
func (c config) address() string {
	return net.JoinHostPort(c.collector.String(), strconv.Itoa(int(c.collectorPort)))
}
