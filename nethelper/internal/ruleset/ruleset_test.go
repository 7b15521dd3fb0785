package ruleset

import (
	"flag"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"honeysens.org/dockersensor/shared/helperapi"
)

var update = flag.Bool("update", false, "write the golden files")

// example uses everything that a config can have.
func example() Config {
	return Config{
		SensorID: "0123456789abcdef0123456789abcdef", Iface: "eth0", Bridge: "hs-0123456789",
		V4: netip.MustParsePrefix("10.10.10.0/24"), V6: netip.MustParsePrefix("fd12:3456:789a:1::/64"),
		GatewayV4: netip.MustParseAddr("10.10.10.1"), GatewayV6: netip.MustParseAddr("fd12:3456:789a:1::1"),
		CollectorPort: 5556, HostPorts: helperapi.HostPortsProtect, Egress: helperapi.EgressDeny,
		Protected:          []helperapi.Port{{Protocol: helperapi.TCP, Number: 2222}, {Protocol: helperapi.TCP, Number: 2222}},
		ForwardingWasOffV4: true, ForwardingWasOffV6: true, ForwardingAllV6: true,
		Services: []Service{
			{ID: "1", V4: netip.MustParseAddr("10.10.10.2"), V6: netip.MustParseAddr("fd12:3456:789a:1::2"), Port: "veth1", MAC: mac(2), Ports: []helperapi.Assignment{
				{Port: helperapi.Port{Protocol: helperapi.TCP, Number: 22}, To: 2222},
				{Port: helperapi.Port{Protocol: helperapi.UDP, Number: 161}, To: 161},
			}},
			{ID: "recon", V4: netip.MustParseAddr("10.10.10.3"), V6: netip.MustParseAddr("fd12:3456:789a:1::3"), Port: "veth2", MAC: mac(3), CatchAll: true},
		},
	}
}

func mac(last byte) net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, 0, last} }

func TestTextIsGolden(t *testing.T) {
	for name, change := range variants() {
		t.Run(name, func(t *testing.T) {
			cfg := example()
			change(&cfg)
			table, err := New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			path := "testdata/" + name + ".nft"
			if *update {
				if err := os.WriteFile(path, []byte(table.Text()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), table.Text()); diff != "" {
				t.Errorf("text (-want +got), -update writes it:\n%s", diff)
			}
		})
	}
}

func variants() map[string]func(*Config) {
	return map[string]func(*Config){
		"protect": func(*Config) {},
		"assigned-internet": func(c *Config) {
			c.HostPorts, c.Egress = helperapi.HostPortsAssigned, helperapi.EgressInternet
		},
		"v4-all": func(c *Config) {
			c.Bounds, c.Lacks.Tracked = Bounds{Opened: 1, Begun: 2, Packets: 3}, true
			c.V6, c.GatewayV6, c.Egress = netip.Prefix{}, netip.Addr{}, helperapi.EgressAll
			c.ForwardingWasOffV4, c.ForwardingWasOffV6 = false, false
			for i := range c.Services {
				c.Services[i].V6 = netip.Addr{}
			}
		},
	}
}

func TestRulesDoNotGrow(t *testing.T) {
	count := func(cfg Config) int {
		table, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, one := range table.All() {
			for _, c := range one.Chains {
				n += len(c.Rules)
			}
		}
		return n
	}
	none, many := example(), example()
	none.Services = nil
	for i := range 1000 {
		many.Services[0].Ports = append(many.Services[0].Ports, helperapi.Assignment{Port: helperapi.Port{Protocol: helperapi.TCP, Number: uint16(1000 + i)}, To: 1})
	}
	if a, b := count(none), count(many); a != b {
		t.Errorf("%d rules without services, %d with 1000 ports", a, b)
	}
}

func TestEveryRuleSaysWhy(t *testing.T) {
	for name, change := range variants() {
		cfg := example()
		change(&cfg)
		table, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range slices.Concat(table.Chains, table.Ports.Chains) {
			for _, r := range c.Rules {
				// nft refuses longer comments.
				if r.Comment == "" || len(r.Comment) > 127 {
					t.Errorf("%s, chain %s: rule %q has comment %q", name, c.Name, r.Text, r.Comment)
				}
			}
		}
	}
}

func TestNewRefuses(t *testing.T) {
	ssh := helperapi.Port{Protocol: helperapi.TCP, Number: 22}
	tests := map[string]struct {
		change func(*Config)
		want   string
	}{
		"id too short":          {func(c *Config) { c.SensorID = "abc" }, "is not a container id"},
		"id not hex":            {func(c *Config) { c.SensorID = "0123456789ab; drop" }, "is not a container id"},
		"interface with quote":  {func(c *Config) { c.Iface = `e" drop` }, "interface name"},
		"interface is pattern":  {func(c *Config) { c.Iface = "eth*" }, "interface name"},
		"bridge is interface":   {func(c *Config) { c.Bridge = c.Iface }, "as well"},
		"no network":            {func(c *Config) { c.V4 = netip.Prefix{} }, "want an IPv4 prefix"},
		"families exchanged":    {func(c *Config) { c.V6 = c.V4 }, "want an IPv6 prefix"},
		"gateway elsewhere":     {func(c *Config) { c.GatewayV4 = netip.MustParseAddr("192.0.2.1") }, "is not in"},
		"gateway without net":   {func(c *Config) { c.V6 = netip.Prefix{} }, "is not in"},
		"host ports":            {func(c *Config) { c.HostPorts = "both" }, "host ports"},
		"egress":                {func(c *Config) { c.Egress = "" }, "egress"},
		"no collector":          {func(c *Config) { c.CollectorPort = 0 }, "collector port"},
		"heartbeat":             {func(c *Config) { c.Heartbeat = 1 }, "heartbeat"},
		"protected protocol":    {func(c *Config) { c.Protected[0].Protocol = "sctp" }, "want tcp or udp"},
		"protected port":        {func(c *Config) { c.Protected[0].Number = 0 }, "want 1 to 65535"},
		"service id":            {func(c *Config) { c.Services[0].ID = "a b" }, "id: want"},
		"service twice":         {func(c *Config) { c.Services[0].ID = "recon" }, "is there twice"},
		"service with gateway":  {func(c *Config) { c.Services[0].V4 = c.GatewayV4 }, "not the gateway's"},
		"service elsewhere":     {func(c *Config) { c.Services[0].V4 = netip.MustParseAddr("10.0.0.1") }, "want one of"},
		"families of a service": {func(c *Config) { c.Services[0].V4 = netip.MustParseAddr("::ffff:10.10.10.9") }, "want one of"},
		"address twice":         {func(c *Config) { c.Services[1].V6 = c.Services[0].V6 }, "has it already"},
		"no hardware address":   {func(c *Config) { c.Services[0].MAC = nil }, "want 6 bytes"},
		"port is a pattern":     {func(c *Config) { c.Services[0].Port = "veth*" }, "interface name"},
		"port is the bridge":    {func(c *Config) { c.Services[0].Port = c.Bridge }, "no port of the bridge"},
		"bridge port twice":     {func(c *Config) { c.Services[1].Port = c.Services[0].Port }, "has it already"},
		"bound too large":       {func(c *Config) { c.Bounds.Packets = 1 << 31 }, "bound of"},
		"no address":            {func(c *Config) { c.Services[0].V4, c.Services[0].V6 = netip.Addr{}, netip.Addr{} }, "has no address"},
		"two catch-alls":        {func(c *Config) { c.Services[0].CatchAll = true }, "catch-all"},
		"port twice":            {func(c *Config) { c.Services[1].Ports = []helperapi.Assignment{{Port: ssh, To: 1}} }, "has it already"},
		"leads nowhere":         {func(c *Config) { c.Services[0].Ports[0].To = 0 }, "leads to port 0"},
		"too many services":     {func(c *Config) { c.Services = make([]Service, helperapi.MaxServices+1) }, "services: want up to"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			cfg := example()
			test.change(&cfg)
			_, err := New(cfg)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
}

func TestConflict(t *testing.T) {
	cfg := example()
	table, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		port       helperapi.Port
		serviceWon bool
		service    string
		winner     string
	}{
		"assigned, host keeps":   {helperapi.Port{Protocol: helperapi.TCP, Number: 22}, false, "1", "host"},
		"assigned, service took": {helperapi.Port{Protocol: helperapi.TCP, Number: 22}, true, "1", "service"},
		"catch-all, host keeps":  {helperapi.Port{Protocol: helperapi.TCP, Number: 80}, false, "recon", "host"},
		"no longer assigned":     {helperapi.Port{Protocol: helperapi.TCP, Number: 80}, true, "", ""},
		"protected":              {helperapi.Port{Protocol: helperapi.TCP, Number: 2222}, false, "", ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, ok := table.Conflict(test.port, test.serviceWon)
			if ok != (test.service != "") || got.Service != test.service || got.Winner != test.winner {
				t.Errorf("got %+v, %v", got, ok)
			}
		})
	}
}

func TestShare(t *testing.T) {
	for table, want := range map[uint32]uint32{0: DefaultTracked, 3: 1, 800: 100, 262144: DefaultTracked} {
		if got := Share(table); got != want {
			t.Errorf("of %d: %d, want %d", table, got, want)
		}
	}
}

func TestTableNames(t *testing.T) {
	name, err := TableName("0123456789abcdef")
	if err != nil || name != "honeysens-0123456789ab" || !IsTableName(name) {
		t.Errorf("got %q, %v", name, err)
	}
	for _, other := range []string{"honeysens-", "honeysens-0123456789abc", "honeysens-0123456789aB", "filter", "xhoneysens-0123456789ab"} {
		if IsTableName(other) {
			t.Errorf("%q is taken for a table of a sensor", other)
		}
	}
}
