package ruleset

import (
	"fmt"
	"net/netip"
	"regexp"
	"time"

	"honeysens.org/dockersensor/shared/helperapi"
)

// validate refuses what cannot be translated. Whether the sensor may have it is
// policy's question.
func (c *Config) validate() error {
	for _, check := range []func() error{c.validateInterfaces, c.validateNetworks, c.validateChoices, c.validateProtected, c.validateBounds, c.validateServices} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (c *Config) validateInterfaces() error {
	for _, n := range []string{c.Iface, c.Bridge} {
		if err := validateName(n); err != nil {
			return err
		}
	}
	if c.Iface == c.Bridge {
		return fmt.Errorf("interface %s cannot be the services bridge as well", c.Iface)
	}
	return nil
}

// validateName: the kernel allows more; these need no quoting and are no pattern
// for nft.
func validateName(name string) error {
	if !regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z_.:@-]{0,14}$`).MatchString(name) {
		return fmt.Errorf("interface name %.40q: want up to 15 letters, digits and _ . : @ -", name)
	}
	return nil
}

func (c *Config) validateNetworks() error {
	if !c.V4.IsValid() || !c.V4.Addr().Is4() {
		return fmt.Errorf("services network %s: want an IPv4 prefix", c.V4)
	}
	if c.V6.IsValid() && (!c.V6.Addr().Is6() || c.V6.Addr().Is4In6()) {
		return fmt.Errorf("services network %s: want an IPv6 prefix", c.V6)
	}
	if !c.V4.Contains(c.GatewayV4) {
		return fmt.Errorf("gateway %s is not in %s", c.GatewayV4, c.V4)
	}
	if c.V6.IsValid() != c.GatewayV6.IsValid() || c.V6.IsValid() && !c.V6.Contains(c.GatewayV6) {
		return fmt.Errorf("gateway %s is not in %s", c.GatewayV6, c.V6)
	}
	return nil
}

func (c *Config) validateChoices() error {
	switch c.HostPorts {
	case helperapi.HostPortsProtect, helperapi.HostPortsAssigned:
	default:
		return fmt.Errorf("host ports %.40q: want protect or assigned", c.HostPorts)
	}
	switch c.Egress {
	case helperapi.EgressDeny, helperapi.EgressInternet, helperapi.EgressAll:
	default:
		return fmt.Errorf("egress %.40q: want deny, internet or all", c.Egress)
	}
	if c.CollectorPort == 0 {
		return fmt.Errorf("collector port 0: want 1 to 65535")
	}
	if c.Heartbeat < time.Second {
		return fmt.Errorf("heartbeat %s: want a second or more", c.Heartbeat)
	}
	return nil
}

func (c *Config) validateProtected() error {
	for _, p := range c.Protected {
		if err := validatePort(p); err != nil {
			return fmt.Errorf("protected port: %w", err)
		}
	}
	return nil
}

func validatePort(p helperapi.Port) error {
	if p.Protocol != helperapi.TCP && p.Protocol != helperapi.UDP {
		return fmt.Errorf("protocol %.40q: want tcp or udp", p.Protocol)
	}
	if p.Number == 0 {
		return fmt.Errorf("port 0/%s: want 1 to 65535", p.Protocol)
	}
	return nil
}

func (c *Config) validateServices() error {
	if len(c.Services) > helperapi.MaxServices {
		return fmt.Errorf("%d services: want up to %d", len(c.Services), helperapi.MaxServices)
	}
	v := serviceValidator{cfg: c, ids: map[string]bool{}, addrs: map[netip.Addr]string{}, ports: map[helperapi.Port]string{}, behind: map[string]string{}}
	for _, svc := range c.Services {
		if err := v.check(svc); err != nil {
			return fmt.Errorf("service %.64q: %w", svc.ID, err)
		}
	}
	if len(v.ports) > helperapi.MaxPorts {
		return fmt.Errorf("%d assigned ports: want up to %d", len(v.ports), helperapi.MaxPorts)
	}
	return nil
}

// serviceValidator remembers what earlier services have.
type serviceValidator struct {
	cfg      *Config
	ids      map[string]bool
	addrs    map[netip.Addr]string
	ports    map[helperapi.Port]string
	behind   map[string]string
	catchAll string
}

func (v *serviceValidator) check(svc Service) error {
	if !regexp.MustCompile(`^[0-9A-Za-z_-]{1,64}$`).MatchString(svc.ID) {
		return fmt.Errorf("id: want 1 to 64 letters, digits, _ and -")
	}
	if v.ids[svc.ID] {
		return fmt.Errorf("is there twice")
	}
	v.ids[svc.ID] = true
	if err := v.checkAddresses(svc); err != nil {
		return err
	}
	if err := v.checkPlace(svc); err != nil {
		return err
	}
	if svc.CatchAll && v.catchAll != "" {
		return fmt.Errorf("catch-all: %q has it already", v.catchAll)
	}
	if svc.CatchAll {
		v.catchAll = svc.ID
	}
	return v.checkPorts(svc)
}

func (v *serviceValidator) checkAddresses(svc Service) error {
	if !svc.V4.IsValid() && !svc.V6.IsValid() {
		return fmt.Errorf("has no address")
	}
	for _, a := range []struct {
		addr, gateway netip.Addr
		network       netip.Prefix
	}{{svc.V4, v.cfg.GatewayV4, v.cfg.V4}, {svc.V6, v.cfg.GatewayV6, v.cfg.V6}} {
		if !a.addr.IsValid() {
			continue
		}
		if !a.network.Contains(a.addr) || a.addr == a.gateway {
			return fmt.Errorf("address %s: want one of %s that is not the gateway's", a.addr, a.network)
		}
		if other, ok := v.addrs[a.addr]; ok {
			return fmt.Errorf("address %s: %q has it already", a.addr, other)
		}
		v.addrs[a.addr] = svc.ID
	}
	return nil
}

// checkPlace is about the port of the bridge.
func (v *serviceValidator) checkPlace(svc Service) error {
	if svc.Port == "" {
		return nil
	}
	if err := validateName(svc.Port); err != nil {
		return err
	}
	if svc.Port == v.cfg.Iface || svc.Port == v.cfg.Bridge {
		return fmt.Errorf("port %s: is no port of the bridge", svc.Port)
	}
	if len(svc.MAC) != 6 {
		return fmt.Errorf("port %s: hardware address %q: want 6 bytes", svc.Port, svc.MAC)
	}
	if other, ok := v.behind[svc.Port]; ok {
		return fmt.Errorf("port %s: %q has it already", svc.Port, other)
	}
	v.behind[svc.Port] = svc.ID
	return nil
}

func (v *serviceValidator) checkPorts(svc Service) error {
	for _, a := range svc.Ports {
		if err := validatePort(a.Port); err != nil {
			return err
		}
		if a.To == 0 {
			return fmt.Errorf("port %d/%s: leads to port 0", a.Port.Number, a.Port.Protocol)
		}
		if other, ok := v.ports[a.Port]; ok {
			return fmt.Errorf("port %d/%s: %q has it already", a.Port.Number, a.Port.Protocol, other)
		}
		v.ports[a.Port] = svc.ID
	}
	return nil
}
