package confarchive

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"

	"honeysens.org/dockersensor/packaging/lab/admin"
	"honeysens.org/dockersensor/packaging/lab/server/internal/wanted"
)

func raw(t *testing.T, values map[string]any) map[string]json.RawMessage {
	t.Helper()
	out := map[string]json.RawMessage{}
	for key, value := range values {
		text, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		out[key] = text
	}
	return out
}

func unpack(t *testing.T, data []byte) map[string]string {
	t.Helper()
	zip, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	members := map[string]string{}
	for in := tar.NewReader(zip); ; {
		m, err := in.Next()
		if errors.Is(err, io.EOF) {
			return members
		}
		if err != nil {
			t.Fatal(err)
		}
		if m.Mode != 0o644 {
			t.Errorf("%s has mode %o", m.Name, m.Mode)
		}
		text, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		members[m.Name] = string(text)
	}
}

// TestAsTheRealGenerator compares with archives that a real server wrote.
func TestAsTheRealGenerator(t *testing.T) {
	tests := map[string]map[string]any{
		"custom-endpoint": {"server_endpoint_host": "127.0.0.1", "server_endpoint_port_https": 8443},
		"dhcp":            {},
		"dhcp-hostname":   {"network_dhcp_hostname": "my-host.lan"},
		"eap-md5":         {"eapol_mode": 1, "eapol_identity": "id1", "eapol_password": "pw1"},
		"eap-tls":         {"eapol_mode": 2, "eapol_identity": "id2", "eapol_ca_cert": "CA", "eapol_client_cert": "CERT", "eapol_client_key": "KEY"},
		"mac":             {"network_mac_mode": 1, "network_mac_address": "02:11:22:33:44:55"},
		"proxy-auth":      {"proxy_mode": 1, "proxy_host": "10.0.0.9", "proxy_port": 3128, "proxy_user": "u ser", "proxy_password": "p:@ w=d;#x"},
		"proxy-pct2":      {"proxy_mode": 1, "proxy_host": "10.0.0.9", "proxy_port": 3128, "proxy_user": "u", "proxy_password": "50%%off"},
		"static-nogw":     {"network_ip_mode": 1, "network_ip_address": "10.1.2.3", "network_ip_netmask": "255.255.255.0"},
		"static": {"network_ip_mode": 1, "network_ip_address": "10.1.2.3", "network_ip_netmask": "255.255.255.0",
			"network_ip_gateway": "10.1.2.1", "network_ip_dns": "10.1.2.2"},
		"svcnet":       {"service_network": "10.20.30.0/24"},
		"unconfigured": {"network_ip_mode": 2},
	}
	server := wanted.Server{Name: "hs.example.test", Host: "hs.example.test", Port: 443, Interval: 1}
	for name, values := range tests {
		t.Run(name, func(t *testing.T) {
			want, err := os.ReadFile(filepath.Join("testdata", name+".honeysens.cfg"))
			if err != nil {
				t.Fatal(err)
			}
			sensor := admin.Sensor{ID: field(t, want, "sensor_id"), Secret: text(t, want, "secret"), Wanted: raw(t, values)}
			var out bytes.Buffer
			if err := Write(&out, server, sensor, "CHAIN"); err != nil {
				t.Fatal(err)
			}
			members := unpack(t, out.Bytes())
			if diff := cmp.Diff(string(want), members["honeysens.cfg"]); diff != "" {
				t.Error(diff)
			}
			if members["server-cert.pem"] != "CHAIN" {
				t.Errorf("server-cert.pem is %q", members["server-cert.pem"])
			}
			if name == "eap-tls" && (members["eapol_ca.crt"] != "CA" || members["eapol_client.crt"] != "CERT" || members["eapol_client.key"] != "KEY") {
				t.Errorf("certificates: %v", members)
			}
			if name != "eap-tls" && len(members) != 2 {
				t.Errorf("%d members", len(members))
			}
		})
	}
}

func text(t *testing.T, config []byte, key string) string {
	t.Helper()
	m := regexp.MustCompile(`(?m)^` + key + ` = (.*)$`).FindSubmatch(config)
	if m == nil {
		t.Fatalf("no %s", key)
	}
	return string(m[1])
}

func field(t *testing.T, config []byte, key string) int {
	t.Helper()
	n, err := strconv.Atoi(text(t, config, key))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestHardValues(t *testing.T) {
	sensor := admin.Sensor{ID: 1, Wanted: raw(t, map[string]any{"proxy_password": "a\nb", "proxy_user": "", "proxy_host": "ü%"})}
	var out bytes.Buffer
	if err := Write(&out, wanted.Server{}, sensor, ""); err != nil {
		t.Fatal(err)
	}
	config := unpack(t, out.Bytes())["honeysens.cfg"]
	for _, want := range []string{"password = a\n\tb\n", "user = \n", "host = ü%\n"} {
		if !bytes.Contains([]byte(config), []byte(want)) {
			t.Errorf("%q is missing in\n%s", want, config)
		}
	}
}
