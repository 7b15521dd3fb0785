package hsapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"honeysens.org/dockersensor/manager/internal/config"
)

// platform is what this sensor is called among firmware.
const platform = "docker_x86"

// Wanted is what the server wants of the sensor.
type Wanted struct {
	// Interval is the time between polls, or 0 when the answer has none.
	Interval time.Duration
	// Changes are the settings, to be taken over by the configuration
	// archive. It checks their values.
	Changes config.Changes
	// Firmware is the one that the sensor should have, or nil for any.
	Firmware *Firmware
	// Services are all that the server assigns, by id, those that cannot run
	// included.
	Services map[string]Service
	// UnhandledEvents tells that nobody has looked at some events yet.
	UnhandledEvents bool
	// Problems are what was left out of the answer, and why.
	Problems []string
}

// Firmware is a revision of the sensor and where to get it.
type Firmware struct {
	Revision string
	// URI is for GetFirmware.
	URI string
}

// settingsKeys leads keys of an answer to those of the configuration archive.
var settingsKeys = []struct{ answer, section, key string }{
	{"server_endpoint_host", "server", "host"},
	{"server_endpoint_port_https", "server", "port_https"},
	{"update_interval", "server", "interval"},
	{"service_network", "general", "service_network"},
	{"network_ip_mode", "network", "mode"},
	{"network_ip_address", "network", "address"},
	{"network_ip_netmask", "network", "netmask"},
	{"network_ip_gateway", "network", "gateway"},
	{"network_ip_dns", "network", "dns"},
	{"network_dhcp_hostname", "network", "dhcp_hostname"},
	{"network_mac_mode", "mac", "mode"},
	{"network_mac_address", "mac", "address"},
	{"proxy_mode", "proxy", "mode"},
	{"proxy_host", "proxy", "host"},
	{"proxy_port", "proxy", "port"},
	{"proxy_user", "proxy", "user"},
	{"proxy_password", "proxy", "password"},
	{"eapol_mode", "eapol", "mode"},
	{"eapol_identity", "eapol", "identity"},
	{"eapol_anon_identity", "eapol", "anon_identity"},
	{"eapol_password", "eapol", "password"},
	{"eapol_client_key_password", "eapol", "client_key_password"},
}

// decodeWanted reads an answer to a poll, for services of the architecture.
func decodeWanted(body []byte, arch string) (*Wanted, error) {
	if err := checkJSON(body); err != nil {
		return nil, err
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(body, &fields); err != nil || fields == nil {
		return nil, errors.New("not a JSON object")
	}
	w := &Wanted{}
	w.settings(fields)
	w.files(fields)
	w.firmware(fields["firmware"])
	var err error
	if w.UnhandledEvents, err = boolOf(fields, "unhandledEvents"); err != nil {
		w.problem("%v", err)
	}
	// An answer that does not say which services there are must not be taken
	// for one that says there are none.
	data, ok := fields["services"]
	if !ok {
		return nil, errors.New("no services")
	}
	services, problems, err := decodeServices(data, arch)
	if err != nil {
		return nil, fmt.Errorf("services: %w", err)
	}
	w.Services, w.Problems = services, append(w.Problems, problems...)
	return w, nil
}

func (w *Wanted) problem(format string, args ...any) {
	w.Problems = append(w.Problems, fmt.Sprintf(format, args...))
}

func (w *Wanted) settings(fields map[string]json.RawMessage) {
	for _, k := range settingsKeys {
		data, ok := fields[k.answer]
		if !ok {
			continue
		}
		text, err := scalar(data)
		if err != nil {
			// Not what it says: it may be a password.
			w.problem("%s: want text or a number", k.answer)
			continue
		}
		w.Changes.Values = append(w.Changes.Values, config.Value{Section: k.section, Key: k.key, Text: text})
		if k.answer != "update_interval" || text == nil {
			continue
		}
		if w.Interval, ok = config.ParseInterval(*text); !ok {
			w.problem("update_interval: %.40q: want a number of minutes", *text)
		}
	}
}

// files reads certificates and keys: absent means unchanged, null that the
// sensor's own shall go.
func (w *Wanted) files(fields map[string]json.RawMessage) {
	for _, f := range []struct {
		key string
		to  *config.File
	}{
		{"server_crt", &w.Changes.ServerChain},
		{"eapol_ca_cert", &w.Changes.EAPOLCA},
		{"eapol_client_cert", &w.Changes.EAPOLClientCert},
		{"eapol_client_key", &w.Changes.EAPOLClientKey},
	} {
		data, ok := fields[f.key]
		if !ok {
			continue
		}
		text, err := scalar(data)
		if err != nil {
			w.problem("%s: want a file in PEM form", f.key)
			continue
		}
		f.to.Present = true
		if text != nil && *text != "" {
			f.to.PEM = []byte(*text)
		}
	}
}

func (w *Wanted) firmware(data json.RawMessage) {
	if data == nil {
		return
	}
	firmware, err := decodeFirmware(data)
	if err != nil {
		w.problem("firmware: %v", err)
		return
	}
	w.Firmware = firmware
}

// decodeFirmware returns nil when there is none for this platform.
func decodeFirmware(data json.RawMessage) (*Firmware, error) {
	platforms, err := object(data)
	if err != nil {
		return nil, err
	}
	mine, ok := platforms[platform]
	if !ok {
		return nil, nil
	}
	fields, err := object(mine)
	if err != nil || len(fields) == 0 {
		return nil, err
	}
	revision, err1 := scalarOf(fields, "revision")
	uri, err2 := scalarOf(fields, "uri")
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	if revision == "" || !printable(revision, 255) {
		return nil, fmt.Errorf("revision %.60q", revision)
	}
	if !firmwareURI.MatchString(uri) {
		return nil, fmt.Errorf("address %.100q: want api/platforms/firmware/<id>/raw", uri)
	}
	return &Firmware{Revision: revision, URI: uri}, nil
}
