package config

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestTakeWayIsAllButTheRest(t *testing.T) {
	for _, into := range fixtures(t) {
		for _, from := range fixtures(t) {
			t.Run(filepath.Base(into)+" from "+filepath.Base(from), func(t *testing.T) {
				a, b := opened(t, into), opened(t, from)
				before := a.Clone()
				was, err := a.Settings()
				if err != nil {
					return // nothing is configured there: no way to compare with
				}
				target, err := b.Settings()
				if err != nil {
					return
				}
				a.TakeWay(b)
				got, err := a.Settings()
				if err != nil {
					t.Fatal(err)
				}
				if !got.Way().Equal(target.Way()) {
					t.Errorf("way %+v, want %+v", got.Way(), target.Way())
				}
				if got.Server.Interval != was.Server.Interval || got.Sensor.ID != was.Sensor.ID || a.Fingerprints().Server != before.Fingerprints().Server {
					t.Error("more than the way was taken")
				}
				// And back again, without a trace.
				a.TakeWay(before)
				if !a.Same(before) {
					t.Errorf("after the way back:\n%s\nwas:\n%s", a.Text(), before.Text())
				}
			})
		}
	}
}

func opened(t *testing.T, path string) *Archive {
	t.Helper()
	a, _, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestPackUnpack(t *testing.T) {
	for _, path := range fixtures(t) {
		a := opened(t, path)
		packed, err := a.Pack()
		if err != nil {
			t.Fatal(err)
		}
		if b, err := Unpack(packed); err != nil || !a.Same(b) {
			t.Errorf("%s: %v", path, err)
		}
		if _, err := Unpack(packed[:len(packed)-3]); err == nil {
			t.Errorf("%s: half an archive was unpacked", path)
		}
	}
	if _, err := Unpack(make([]byte, maxPacked+1)); err == nil {
		t.Error("a giant was unpacked")
	}
}

func TestDescribeAWay(t *testing.T) {
	tests := []struct {
		name   string
		values []Value
		want   string
	}{
		{"nothing", nil, ""},
		{"no effect", []Value{{"proxy", "host", ptr("x")}}, ""},
		{"server", []Value{{"server", "host", ptr("2001:db8::1")}, {"server", "port_https", ptr("8443")}}, "server [2001:db8::1]:8443 (NAME)"},
		{"service network", []Value{{"general", "service_network", ptr("10.7.0.0/24")}}, "service network 10.7.0.0/24"},
		{"address", []Value{{"network", "address", ptr("10.1.2.9")}, {"network", "gateway", ptr("10.1.2.1")}, {"network", "dns", ptr("10.1.2.2")}},
			"address 10.1.2.9/24, gateway 10.1.2.1, DNS server 10.1.2.2"},
		{"mode", []Value{{"network", "mode", ptr("0")}}, "interface by dhcp"},
		{"hardware address", []Value{{"mac", "mode", ptr("1")}, {"mac", "address", ptr("02:00:00:00:00:01")}}, "hardware address 02:00:00:00:00:01"},
		{"proxy", []Value{{"proxy", "mode", ptr("1")}, {"proxy", "host", ptr("p")}, {"proxy", "port", ptr("1")}, {"proxy", "user", ptr("u")}, {"proxy", "password", ptr("hidden")}}, "proxy p:1 as u"},
		{"802.1X", []Value{{"eapol", "mode", ptr("1")}, {"eapol", "identity", ptr("i")}, {"eapol", "password", ptr("hidden")}}, "802.1X as i"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			a, _ := open(t, "static")
			before, err := a.Settings()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := a.Update(Changes{Values: test.values}); err != nil {
				t.Fatal(err)
			}
			after, err := a.Settings()
			if err != nil {
				t.Fatal(err)
			}
			got := strings.Join(after.Way().Describe(before.Way()), "; ")
			if want := strings.ReplaceAll(test.want, "NAME", before.Server.Name); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
			if (got == "") != after.Way().Equal(before.Way()) {
				t.Errorf("%q, equal %v", got, after.Way().Equal(before.Way()))
			}
			if strings.Contains(got, "hidden") {
				t.Error("a secret shows")
			}
			wantSame := test.name == "nothing" || test.name == "no effect" || test.name == "server" || test.name == "proxy"
			if after.Way().SameNetwork(before.Way()) != wantSame {
				t.Errorf("same network: %v", !wantSame)
			}
		})
	}
}

// What the server serves stays trusted, whatever it announces meanwhile.
func TestAnnouncedCertificates(t *testing.T) {
	certs := [][]byte{nil, newCert(t), newCert(t), newCert(t)}
	first := func(n int, a *Archive) string {
		if n == 0 {
			return a.Fingerprints().Server
		}
		parsed, err := parseCerts(certs[n])
		if err != nil {
			t.Fatal(err)
		}
		return Fingerprint(parsed[0])
	}
	tests := []struct {
		name string
		// served is what each announcement came with, by number; the nth
		// announces certificate n.
		served []int
	}{
		{"at once", []int{0}},
		{"three before the first is served", []int{0, 0, 0}},
		{"served, then the next", []int{0, 1, 2}},
		{"one left out", []int{0, 0, 2}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			a, _ := open(t, "dhcp")
			original := a.Clone()
			for n, served := range test.served {
				fingerprint := first(served, original)
				if changed, err := a.Update(Changes{ServerChain: File{true, certs[n+1]}, Served: fingerprint}); !changed || err != nil {
					t.Fatal(changed, err)
				}
				s, err := a.Settings()
				if err != nil {
					t.Fatal(err)
				}
				trusted := map[string]bool{}
				for _, cert := range s.Server.Trust() {
					trusted[Fingerprint(cert)] = true
				}
				if !trusted[fingerprint] || !trusted[first(n+1, original)] {
					t.Errorf("announcement %d: what is served is trusted: %v, what is announced: %v", n+1, trusted[fingerprint], trusted[first(n+1, original)])
				}
			}
		})
	}
}

func TestUnknownServedCertificateKeepsAll(t *testing.T) {
	a, _ := open(t, "dhcp")
	for n := range 20 {
		if changed, err := a.Update(Changes{ServerChain: File{true, newCert(t)}}); !changed || err != nil {
			t.Fatal(changed, err)
		}
		s, err := a.Settings()
		if err != nil || len(s.Server.Previous) < min(2+n, maxChain) {
			t.Fatalf("announcement %d: %d certificates before, %v", n+1, len(s.Server.Previous), err)
		}
	}
}
