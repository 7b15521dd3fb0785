package app

import (
	"net/netip"
	"strings"
	"testing"
)

func TestChoose(t *testing.T) {
	tests := []struct {
		name, addresses, want string
	}{
		{"IPv4 first", "2001:db8::1 192.0.2.1", "192.0.2.1"},
		{"global before link-local", "fe80::1 169.254.0.1 2001:db8::1", "2001:db8::1"},
		{"no zone", "fe80::1%eth0", "fe80::1"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var addresses []netip.Addr
			for text := range strings.FieldsSeq(test.addresses) {
				addresses = append(addresses, netip.MustParseAddr(text))
			}
			if got, ok := choose(addresses); !ok || got.String() != test.want {
				t.Errorf("chose %v, want %s", got, test.want)
			}
		})
	}
	if got, ok := choose(nil); ok {
		t.Errorf("chose %v from nothing", got)
	}
}

func TestParseFreeMemory(t *testing.T) {
	got, err := parseFreeMemory(strings.NewReader("MemTotal:       24600000 kB\nMemAvailable:    2048 kB\n"))
	if err != nil || got != 2 {
		t.Errorf("got %d MB, error %v", got, err)
	}
	for _, bad := range []string{"", "MemAvailable: much kB\n"} {
		if _, err := parseFreeMemory(strings.NewReader(bad)); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func TestDisk(t *testing.T) {
	used, total, err := disk(t.TempDir())
	if err != nil || used <= 0 || total < used {
		t.Errorf("used %d of %d MB, error %v", used, total, err)
	}
}
