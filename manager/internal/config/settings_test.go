package config

import (
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"honeysens.org/dockersensor/shared/helperapi"
)

var netipValues = cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})

// open reads a fixture and checks its settings.
func open(t *testing.T, name string) (*Archive, Settings) {
	t.Helper()
	a, _, err := Open(filepath.Join("testdata", name+".tar.gz"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := a.Settings()
	if err != nil {
		t.Fatal(err)
	}
	return a, s
}

func TestSettingsOfServers(t *testing.T) {
	_, s := open(t, "custom-endpoint")
	if s.Server.Host != "127.0.0.1" || s.Server.Name != "hs.example.test" || s.Server.Port != 8443 || s.Server.Interval != time.Minute {
		t.Errorf("server %+v", s.Server)
	}
	if len(s.Server.Chain) != 2 || s.Server.Chain[0].Subject.CommonName != "hs.example.test" || s.Server.Previous != nil {
		t.Errorf("chain of %d certificates", len(s.Server.Chain))
	}
	want := Sensor{ID: "14", Hostname: "s14", Secret: "b838e1a4a91d2f0b055a5a8e98b2fdca2f0ef6af2612cf2d3226a50baf6575f2",
		ServiceNetwork: netip.MustParsePrefix("10.10.10.0/24")}
	if s.Sensor != want {
		t.Errorf("sensor %+v, want %+v", s.Sensor, want)
	}
	if s.Proxy != nil || s.EAPOL != nil {
		t.Errorf("proxy %v, eapol %v", s.Proxy, s.EAPOL)
	}
}

func TestSettingsOfInterfaces(t *testing.T) {
	static := helperapi.Interface{Mode: helperapi.ModeStatic, Address: netip.MustParsePrefix("10.1.2.3/24")}
	full := static
	full.Gateway, full.DNS = netip.MustParseAddr("10.1.2.1"), []netip.Addr{netip.MustParseAddr("10.1.2.2")}
	tests := map[string]helperapi.Interface{
		"dhcp":          {Mode: helperapi.ModeDHCP},
		"dhcp-hostname": {Mode: helperapi.ModeDHCP, Hostname: "my-host.lan"},
		"unconfigured":  {Mode: helperapi.ModeNone},
		"mac":           {Mode: helperapi.ModeDHCP, MAC: "02:11:22:33:44:55"},
		"static-nogw":   static,
		"static":        full,
	}
	for name, want := range tests {
		t.Run(name, func(t *testing.T) {
			_, s := open(t, name)
			if diff := cmp.Diff(want, s.Interface, netipValues); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestSettingsOfTheRest(t *testing.T) {
	_, s := open(t, "proxy-auth")
	if want := (Proxy{Host: "10.0.0.9", Port: 3128, User: "u ser", Password: "p:@ w=d;#x"}); *s.Proxy != want {
		t.Errorf("proxy %+v", *s.Proxy)
	}
	_, s = open(t, "proxy-pct2")
	if s.Proxy.Password != "50%%off" {
		t.Errorf("password %q", string(s.Proxy.Password))
	}
	_, s = open(t, "svcnet")
	if s.Sensor.ServiceNetwork != netip.MustParsePrefix("10.20.30.0/24") {
		t.Errorf("service network %v", s.Sensor.ServiceNetwork)
	}
	_, s = open(t, "eap-md5")
	if diff := cmp.Diff(&EAPOL{Mode: EAPOLMD5, Identity: "id1", Password: "pw1"}, s.EAPOL); diff != "" {
		t.Errorf("eapol (-want +got):\n%s", diff)
	}
	_, s = open(t, "eap-tls")
	if s.EAPOL.Mode != EAPOLTLS || s.EAPOL.CA == nil || s.EAPOL.ClientCert == nil || s.EAPOL.ClientKey == nil {
		t.Errorf("eapol %+v", s.EAPOL)
	}
}

func TestFingerprints(t *testing.T) {
	a, s := open(t, "eap-tls")
	got := a.Fingerprints()
	if got.Server != Fingerprint(s.Server.Chain[0]) || len(got.EAPOLCA) != 64 || len(got.EAPOLClient) != 64 {
		t.Errorf("got %+v", got)
	}
	// As openssl x509 -fingerprint -sha256 says.
	if want := "42b919ca73cdb4a1c196318279060f66ed3a3d8b91321fb9e05f0323e90d3868"; got.Server != want {
		t.Errorf("server's fingerprint %s, want %s", got.Server, want)
	}
	b, _ := open(t, "dhcp")
	if b.Fingerprints().EAPOLCA != "" || b.Fingerprints().EAPOLClient != "" {
		t.Errorf("fingerprints of no files: %+v", b.Fingerprints())
	}
}

func TestWrongValues(t *testing.T) {
	tests := []struct {
		section, key string
		value        any // nil unset, false missing
		want         string
	}{
		{"server", "host", nil, "server.host is unset"},
		{"server", "host", false, "server.host is missing"},
		{"server", "host", "a b", `server.host is "a b"`},
		{"server", "host", "192.0.2.300", `server.host is "192.0.2.300"`},
		{"server", "host", "fe80::1%eth0", "server.host is"},
		{"server", "name", "x\ny", "server.name is"},
		{"server", "port_https", "0", `server.port_https is "0": want a port from 1 to 65535`},
		{"server", "port_https", "70000", "server.port_https is"},
		{"server", "interval", "soon", "server.interval is"},
		{"server", "certfile", "gone.pem", `server.certfile is "gone.pem": want the name of a file in the archive`},
		{"general", "sensor_id", "../1", "general.sensor_id is"},
		{"general", "secret", nil, "general.secret is unset"},
		{"general", "secret", "tell nobody", `general.secret is "[secret]"`},
		{"general", "service_network", "8.8.8.0/24", "general.service_network is"},
		{"general", "service_network", "10.0.0.0/8", "general.service_network is"},
		{"general", "service_network", "fd00::/64", "general.service_network is"},
		{"network", "mode", "3", `network.mode is "3": want a number from 0 to 2`},
		{"network", "mode", nil, "network.mode is unset"},
		{"network", "address", nil, "network.address is unset"},
		{"network", "address", "10.1.2.0", "10.1.2.0/24 is not the address of a host"},
		{"network", "netmask", "255.0.255.0", "network.netmask is"},
		{"network", "netmask", "0.0.0.0", "network.netmask is"},
		{"network", "netmask", "33", "network.netmask is"},
		{"network", "gateway", "10.9.9.9", "cannot be reached"},
		{"network", "dns", "8.8.8.8, x", "network.dns is"},
		{"mac", "mode", "x", "mac.mode is"},
		{"mac", "address", "01:00:5e:00:00:01", "mac.address is"},
		{"mac", "address", "zz", "mac.address is"},
		{"proxy", "port", "None", "proxy.port is"},
		{"proxy", "host", nil, "proxy.host is unset"},
		{"eapol", "mode", "5", "eapol.mode is"},
		{"eapol", "identity", nil, "eapol.identity is unset"},
		{"eapol", "identity", "x\nnetwork={", "eapol.identity has control characters"},
		{"eapol", "client_key", "eapol_ca.crt", "eapol.client_key is"},
		{"eapol", "client_cert", nil, "eapol.client_cert is unset"},
		{"eapol", "ca_cert", "eapol_client.key", "eapol.ca_cert: eapol_client.key: a PEM block"},
	}
	for _, test := range tests {
		t.Run(fmt.Sprint(test.section, ".", test.key, " ", test.value), func(t *testing.T) {
			a := everything(t)
			switch value := test.value.(type) {
			case nil:
				a.doc.set(test.section, test.key, nil)
			case string:
				a.doc.set(test.section, test.key, &value)
			default:
				a.doc.remove(test.section, test.key)
			}
			_, err := a.Settings()
			if !matches(err, test.want) || !matches(err, "at the server") {
				t.Errorf("got %v, want %q", err, test.want)
			}
			if err != nil && strings.Contains(err.Error(), "tell nobody") {
				t.Errorf("the secret shows: %v", err)
			}
		})
	}
}

// everything is an archive that uses all there is.
func everything(t *testing.T) *Archive {
	t.Helper()
	a, _ := open(t, "eap-tls")
	for key, text := range map[string]string{
		"network.mode": "1", "network.address": "10.1.2.3", "network.netmask": "255.255.255.0",
		"mac.mode": "1", "mac.address": "02-11-22-33-44-55", "proxy.mode": "1", "proxy.host": "proxy", "proxy.port": "8080",
	} {
		section, name, _ := strings.Cut(key, ".")
		a.doc.set(section, name, &text)
	}
	if _, err := a.Settings(); err != nil {
		t.Fatal(err)
	}
	return a
}

func TestIntervalIsBroughtBetweenItsLimits(t *testing.T) {
	for text, want := range map[string]time.Duration{"0": MinInterval, "-5": MinInterval, "7": 7 * time.Minute, "2000000000": MaxInterval} {
		a, _ := open(t, "dhcp")
		a.doc.set("server", "interval", &text)
		s, err := a.Settings()
		if err != nil || s.Server.Interval != want {
			t.Errorf("%s: %v, %v", text, s.Server.Interval, err)
		}
	}
}

func TestSecretsDoNotShow(t *testing.T) {
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		if got := fmt.Sprintf(format, Sensor{Secret: "hush"}); strings.Contains(got, "hush") {
			t.Errorf("%s shows %s", format, got)
		}
	}
	if got := slog.AnyValue(Secret("hush")).Resolve().String(); strings.Contains(got, "hush") {
		t.Errorf("slog shows %s", got)
	}
}

func TestMigrate(t *testing.T) {
	const base = "[server]\nhost = h\nname = n\nport_https = 443\ninterval = 5\ncertfile = server-cert.pem\n"
	const eapol = "[eapol]\nmode = 0\n"
	files := []member{{"server-cert.pem", []byte("chain")}, {"s1.crt", []byte("c")}, {"s1.key", []byte("k")}, {"notes", []byte("n")}}
	tests := []struct {
		name, cfg string
		want      map[string]*string // nil: unset
		gone      []string
		files     string
	}{
		{
			name:  "no service network",
			cfg:   base + "[general]\nsecret = s\n[network]\ndhcp_hostname = x\n" + eapol,
			want:  map[string]*string{"general.service_network": ptr("10.10.10.0/24"), "general.secret": ptr("s"), "network.dhcp_hostname": ptr("x")},
			files: "server-cert.pem s1.crt s1.key notes",
		},
		{
			name: "no eapol",
			cfg:  base + "[general]\nsecret = None\nservice_network = 10.1.0.0/24\n[network]\naddress = None\ndhcp_hostname = None\n[proxy]\nport = None\n",
			want: map[string]*string{"eapol.mode": ptr("0"), "eapol.identity": nil, "eapol.client_key_password": nil,
				"network.address": nil, "proxy.port": nil, "general.secret": nil, "general.service_network": ptr("10.1.0.0/24")},
			files: "server-cert.pem s1.crt s1.key notes",
		},
		{
			name:  "None stays text where eapol is known",
			cfg:   base + "[general]\nhostname = None\n[network]\n" + eapol,
			want:  map[string]*string{"general.hostname": ptr("None"), "general.secret": nil, "network.dhcp_hostname": nil},
			files: "server-cert.pem s1.crt s1.key notes",
		},
		{
			name:  "client certificates",
			cfg:   base + "[general]\ncertfile = s1.crt\nkeyfile = s1.key\n[network]\n" + eapol,
			gone:  []string{"general.certfile", "general.keyfile"},
			files: "server-cert.pem notes",
		},
		{
			name: "oldest",
			cfg: strings.Replace(base, "server-cert.pem", "/etc/manager/server-cert.pem", 1) +
				"[general]\nsensor_id = 1\ncertfile = /etc/manager/s1.crt\nkeyfile = /etc/manager/s1.key\nsw_version = 0.1\n" +
				"[network]\ninterface = eth0\nmode = 0\n[services]\nkippo = 1\n",
			want: map[string]*string{"server.certfile": ptr("server-cert.pem"), "network.mode": ptr("0"), "general.sensor_id": ptr("1"),
				"general.service_network": ptr("10.10.10.0/24"), "eapol.mode": ptr("0")},
			gone:  []string{"general.certfile", "general.keyfile", "general.sw_version", "network.interface", "services.kippo"},
			files: "server-cert.pem notes",
		},
		{
			name:  "client certificate that is the server's too",
			cfg:   base + "[general]\ncertfile = server-cert.pem\nkeyfile\n[network]\n" + eapol,
			gone:  []string{"general.certfile", "general.keyfile"},
			files: "server-cert.pem s1.crt s1.key notes",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			a := build(t, test.cfg, files...)
			if notes := a.migrate(); len(notes) == 0 {
				t.Error("no notes")
			}
			for key, want := range test.want {
				section, name, _ := strings.Cut(key, ".")
				got := a.doc.lookup(section, name)
				if got == nil || !cmp.Equal(want, got.value) {
					t.Errorf("%s: got %v, want %v", key, got, want)
				}
			}
			for _, key := range test.gone {
				section, name, _ := strings.Cut(key, ".")
				if a.doc.lookup(section, name) != nil {
					t.Errorf("%s is still there", key)
				}
			}
			var names []string
			for _, m := range a.members {
				names = append(names, m.name)
			}
			if got := strings.Join(names, " "); got != test.files {
				t.Errorf("files %s, want %s", got, test.files)
			}
			if notes := a.migrate(); len(notes) != 0 {
				t.Errorf("migrated twice: %v", notes)
			}
		})
	}
}

func ptr(text string) *string { return &text }
