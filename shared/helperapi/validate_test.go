package helperapi

import (
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func sample() Network {
	return Network{
		Interface: Interface{Name: "eth0", Mode: ModeNone},
		Bridge:    Bridge{V4: netip.MustParsePrefix("10.10.10.0/24"), CollectorPort: 5556},
		Services: []Service{
			{
				ID: "1", Sandbox: Sandbox{ContainerID: strings.Repeat("a", 64), PID: 100},
				Ports: []Assignment{{Port: Port{TCP, 22}, To: 2222}, {Port: Port{UDP, 161}, To: 161}},
			},
			{ID: "2", Sandbox: Sandbox{ContainerID: strings.Repeat("b", 64), PID: 101}, CatchAll: true},
		},
		Egress:         EgressDeny,
		ProtectedPorts: []Port{{TCP, 8080}},
	}
}

func TestDecodeNetworkReadsWhatWasWritten(t *testing.T) {
	want := sample()
	body, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeNetwork(body)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Prefix{}, netip.Addr{})); diff != "" {
		t.Error(diff)
	}
}

func TestDecodeNetworkIsStrict(t *testing.T) {
	good, err := json.Marshal(sample())
	if err != nil {
		t.Fatal(err)
	}
	cases := map[string]string{
		"empty":         "",
		"not json":      "rules",
		"trailing":      string(good) + "{}",
		"trailing junk": string(good) + "x",
		"unknown field": strings.Replace(string(good), `"egress"`, `"rule":"accept","egress"`, 1),
		"number text":   strings.Replace(string(good), `"to":2222`, `"to":"2222"`, 1),
		"port overflow": strings.Replace(string(good), `"number":22}`, `"number":65558}`, 1),
		"huge":          `{"egress":"` + strings.Repeat("x", MaxBody) + `"}`,
		"null":          "null",
	}
	for name, body := range cases {
		t.Run(name, func(t *testing.T) {
			if body == string(good) {
				t.Fatal("the case changes nothing")
			}
			wantInvalid(t, func() error { _, err := DecodeNetwork([]byte(body)); return err }())
		})
	}
}

func wantInvalid(t *testing.T, err error) {
	t.Helper()
	var apiErr *Error
	if !errors.As(err, &apiErr) || apiErr.Kind != KindInvalid {
		t.Errorf("got %v, want an error of kind invalid", err)
	}
}

func TestValidateRefuses(t *testing.T) {
	static := func(n *Network, address string) {
		n.Interface.Mode = ModeStatic
		n.Interface.Address = netip.MustParsePrefix(address)
	}
	cases := map[string]func(*Network){
		"no interface":              func(n *Network) { n.Interface.Name = "" },
		"interface path":            func(n *Network) { n.Interface.Name = "../all" },
		"interface all":             func(n *Network) { n.Interface.Name = "all" },
		"interface too long":        func(n *Network) { n.Interface.Name = "abcdefghijklmnop" },
		"interface quote":           func(n *Network) { n.Interface.Name = `e"0` },
		"mode":                      func(n *Network) { n.Interface.Mode = "magic" },
		"mac text":                  func(n *Network) { n.Interface.MAC = "bread" },
		"mac multicast":             func(n *Network) { n.Interface.MAC = "01:00:5e:00:00:01" },
		"mac zero":                  func(n *Network) { n.Interface.MAC = "00:00:00:00:00:00" },
		"mac infiniband":            func(n *Network) { n.Interface.MAC = "02:00:5e:10:00:00:00:01" },
		"hostname":                  func(n *Network) { n.Interface.Hostname = "a b" },
		"hostname newline":          func(n *Network) { n.Interface.Hostname = "a\nb" },
		"dns multicast":             func(n *Network) { n.Interface.DNS = []netip.Addr{netip.MustParseAddr("224.0.0.1")} },
		"dns zone":                  func(n *Network) { n.Interface.DNS = []netip.Addr{netip.MustParseAddr("fe80::1%eth0")} },
		"static without address":    func(n *Network) { n.Interface.Mode = ModeStatic },
		"static network address":    func(n *Network) { static(n, "192.0.2.0/24") },
		"static broadcast":          func(n *Network) { static(n, "192.0.2.255/24") },
		"static loopback":           func(n *Network) { static(n, "127.0.0.1/8") },
		"static multicast":          func(n *Network) { static(n, "224.0.0.5/24") },
		"static mapped":             func(n *Network) { static(n, "::ffff:192.0.2.1/120") },
		"gateway elsewhere":         func(n *Network) { static(n, "192.0.2.2/24"); n.Interface.Gateway = netip.MustParseAddr("198.51.100.1") },
		"gateway itself":            func(n *Network) { static(n, "192.0.2.2/24"); n.Interface.Gateway = netip.MustParseAddr("192.0.2.2") },
		"no service network":        func(n *Network) { n.Bridge.V4 = netip.Prefix{} },
		"service network with host": func(n *Network) { n.Bridge.V4 = netip.MustParsePrefix("10.10.10.1/24") },
		"service network v6 as v4":  func(n *Network) { n.Bridge.V4 = netip.MustParsePrefix("fd00::/64") },
		"service network v4 as v6":  func(n *Network) { n.Bridge.V6 = netip.MustParsePrefix("10.0.0.0/24") },
		"collector port":            func(n *Network) { n.Bridge.CollectorPort = 0 },
		"egress":                    func(n *Network) { n.Egress = "" },
		"protected port":            func(n *Network) { n.ProtectedPorts[0].Protocol = "sctp" },
		"service id":                func(n *Network) { n.Services[0].ID = "a/b" },
		"no service id":             func(n *Network) { n.Services[0].ID = "" },
		"same id":                   func(n *Network) { n.Services[1].ID = "1" },
		"same container":            func(n *Network) { n.Services[1].Sandbox.ContainerID = n.Services[0].Sandbox.ContainerID },
		"same pid":                  func(n *Network) { n.Services[1].Sandbox.PID = 100 },
		"short container id":        func(n *Network) { n.Services[0].Sandbox.ContainerID = "abc" },
		"path as container id":      func(n *Network) { n.Services[0].Sandbox.ContainerID = "../" + strings.Repeat("a", 61) },
		"upper-case container id":   func(n *Network) { n.Services[0].Sandbox.ContainerID = strings.Repeat("A", 64) },
		"pid of init":               func(n *Network) { n.Services[0].Sandbox.PID = 1 },
		"negative pid":              func(n *Network) { n.Services[0].Sandbox.PID = -1 },
		"huge pid":                  func(n *Network) { n.Services[0].Sandbox.PID = maxPID + 1 },
		"port 0":                    func(n *Network) { n.Services[0].Ports[0].Port.Number = 0 },
		"to port 0":                 func(n *Network) { n.Services[0].Ports[0].To = 0 },
		"protocol":                  func(n *Network) { n.Services[0].Ports[0].Port.Protocol = "icmp" },
		"port twice":                func(n *Network) { n.Services[1].Ports = n.Services[0].Ports },
		"two catch-alls":            func(n *Network) { n.Services[0].CatchAll = true },
		"too many services":         func(n *Network) { n.Services = make([]Service, MaxServices+1) },
		"too many ports":            func(n *Network) { n.Services[0].Ports = make([]Assignment, MaxPorts+1) },
	}
	for name, change := range cases {
		t.Run(name, func(t *testing.T) {
			n := sample()
			change(&n)
			wantInvalid(t, n.Validate())
		})
	}
}

func TestValidateAllows(t *testing.T) {
	cases := map[string]func(*Network){
		"sample":      func(*Network) {},
		"no services": func(n *Network) { n.Services = nil },
		"vlan":        func(n *Network) { n.Interface.Name = "eth0.100" },
		"static": func(n *Network) {
			n.Interface.Mode, n.Interface.Address = ModeStatic, netip.MustParsePrefix("192.0.2.2/24")
			n.Interface.Gateway = netip.MustParseAddr("192.0.2.1")
		},
		"static point to point": func(n *Network) {
			n.Interface.Mode, n.Interface.Address = ModeStatic, netip.MustParsePrefix("192.0.2.0/31")
		},
		"own v6": func(n *Network) { n.Bridge.V6 = netip.MustParsePrefix("fd12::/64") },
		"mac":    func(n *Network) { n.Interface.MAC = "02:00:00:00:00:01" },
		"same port, other protocol": func(n *Network) {
			n.Services[1].Ports = []Assignment{{Port: Port{UDP, 22}, To: 22}}
		},
	}
	for name, change := range cases {
		t.Run(name, func(t *testing.T) {
			n := sample()
			change(&n)
			if err := n.Validate(); err != nil {
				t.Error(err)
			}
		})
	}
}

func FuzzDecodeNetwork(f *testing.F) {
	good, err := json.Marshal(sample())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"interface":{"name":"eth0","mode":"none"}}`))
	f.Add([]byte(`{"bridge":{"v4":"::/0"}}`))
	f.Add([]byte("null"))
	f.Fuzz(func(t *testing.T, body []byte) {
		n, err := DecodeNetwork(body)
		if err != nil {
			wantInvalid(t, err)
			return
		}
		again, err := json.Marshal(n)
		if err != nil {
			t.Fatalf("encode what was decoded: %v", err)
		}
		if _, err := DecodeNetwork(again); len(again) <= MaxBody && err != nil {
			t.Fatalf("decode what was encoded: %v", err)
		}
	})
}
