package main

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReadConfig(t *testing.T) {
	tests := []struct {
		name    string
		env     map[string]string
		want    config
		address string
		bad     bool
	}{
		{name: "own namespace", env: map[string]string{"COLLECTOR_HOST": "10.10.10.1", "COLLECTOR_PORT": "5556"},
			want: config{collector: netip.MustParseAddr("10.10.10.1"), collectorPort: 5556, iface: "eth0"}, address: "10.10.10.1:5556"},
		{name: "raw, IPv6", env: map[string]string{"COLLECTOR_HOST": "fd00::1", "COLLECTOR_PORT": "5556", "INTERFACE": "ens3"},
			want: config{collector: netip.MustParseAddr("fd00::1"), collectorPort: 5556, iface: "ens3", raw: true}, address: "[fd00::1]:5556"},
		{name: "no collector", env: map[string]string{"COLLECTOR_PORT": "5556"}, bad: true},
		{name: "port zero", env: map[string]string{"COLLECTOR_HOST": "10.10.10.1", "COLLECTOR_PORT": "0"}, bad: true},
		{name: "port too big", env: map[string]string{"COLLECTOR_HOST": "10.10.10.1", "COLLECTOR_PORT": "65536"}, bad: true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := readConfig(func(name string) string { return test.env[name] })
			if (err != nil) != test.bad {
				t.Fatalf("error %v", err)
			}
			if test.bad {
				return
			}
			if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(config{}), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
				t.Error(diff)
			}
			if got.address() != test.address {
				t.Errorf("address %s", got.address())
			}
		})
	}
}
