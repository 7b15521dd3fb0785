// Package wanted knows what an operator can set for a sensor: the names and the
// defaults of the values that go into poll answers and configuration archives.
package wanted

import (
	"encoding/json"
	"maps"
	"strconv"

	"honeysens.org/dockersensor/packaging/lab/admin"
)

// Server is what all sensors have in common.
type Server struct {
	// Name is that of the certificate, Host where sensors connect to.
	Name, Host string
	Port       int
	// Interval is the time between two polls, in minutes.
	Interval int
	Division int
}

// Values are wanted values by their names in the poll answer.
type Values map[string]json.RawMessage

// Certificates, which are announced only when a sensor has others.
const (
	EAPOLCA        = "eapol_ca_cert"
	EAPOLClient    = "eapol_client_cert"
	EAPOLClientKey = "eapol_client_key"
)

var null = json.RawMessage("null")

// Of returns the values of a sensor: the defaults, with what is set for it.
// Global values are text, as the server has them.
func Of(server Server, sensor admin.Sensor) Values {
	v := Values{
		"server_endpoint_mode":       number(0),
		"server_endpoint_host":       quoted(server.Host),
		"server_endpoint_port_https": quoted(strconv.Itoa(server.Port)),
		"update_interval":            quoted(strconv.Itoa(server.Interval)),
		"service_network":            quoted("10.10.10.0/24"),
		"network_ip_mode":            number(0),
		"network_mac_mode":           number(0),
		"proxy_mode":                 number(0),
		"eapol_mode":                 number(0),
	}
	for _, key := range []string{
		"network_ip_address", "network_ip_netmask", "network_ip_gateway", "network_ip_dns", "network_dhcp_hostname", "network_mac_address",
		"proxy_host", "proxy_port", "proxy_user", "proxy_password",
		"eapol_identity", "eapol_anon_identity", "eapol_password", "eapol_client_key_password",
		EAPOLCA, EAPOLClient, EAPOLClientKey,
	} {
		v[key] = null
	}
	maps.Copy(v, sensor.Wanted)
	return v
}

// Text returns a value as text, whether it is a string or a number; false for
// null.
func (v Values) Text(key string) (string, bool) {
	raw := v[key]
	if len(raw) == 0 || string(raw) == "null" {
		return "", false
	}
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return text, true
	}
	return string(raw), true
}

func number(n int) json.RawMessage { return json.RawMessage(strconv.Itoa(n)) }

func quoted(text string) json.RawMessage {
	out, err := json.Marshal(text)
	if err != nil {
		// A string always has a form in JSON.
		panic(err)
	}
	return out
}
