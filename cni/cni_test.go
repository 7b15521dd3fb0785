package cni

import (
	"net/netip"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/google/go-cmp/cmp"
)

func TestRenderIsAValidListOfTheNamedPlugins(t *testing.T) {
	raw, err := Render(Network{
		Bridge: "services-abcdef", MTU: 1400, LeaseDir: "/run/x",
		V4: netip.MustParsePrefix("10.1.0.0/16"), GatewayV4: netip.MustParseAddr("10.1.0.1"),
		V6: netip.MustParsePrefix("fd12::/64"), GatewayV6: netip.MustParseAddr("fd12::1"),
	})
	if err != nil {
		t.Fatal(err)
	}
	list, err := libcni.NetworkConfFromBytes(raw)
	if err != nil {
		t.Fatal(err)
	}
	got := []string{list.Plugins[0].Network.Type, list.Plugins[0].Network.IPAM.Type}
	for _, p := range list.Plugins[1:] {
		got = append(got, p.Network.Type)
	}
	if diff := cmp.Diff(Plugins(), got); diff != "" {
		t.Error(diff)
	}
	if list.Name != NetworkName || list.CNIVersion != "1.1.0" {
		t.Errorf("name %q, version %q", list.Name, list.CNIVersion)
	}
	want := `{"bridge":"services-abcdef","hairpinMode":false,"ipMasq":false,"ipam":{"dataDir":"/run/x",` +
		`"ranges":[[{"gateway":"10.1.0.1","subnet":"10.1.0.0/16"}],[{"gateway":"fd12::1","subnet":"fd12::/64"}]],` +
		`"routes":[{"dst":"0.0.0.0/0"},{"dst":"::/0"}],"type":"host-local"},` +
		`"isGateway":false,"mtu":1400,"portIsolation":true,"type":"bridge"}`
	if diff := cmp.Diff(want, string(list.Plugins[0].Bytes)); diff != "" {
		t.Error(diff)
	}
}
