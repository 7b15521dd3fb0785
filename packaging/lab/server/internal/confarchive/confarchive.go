// Package confarchive writes configuration archives, byte for byte as a
// HoneySens server 2.9.0 does: s<id>.tar.gz with honeysens.cfg, whose form is
// that of Python's configparser, and certificates beside it.
package confarchive

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"honeysens.org/dockersensor/packaging/lab/admin"
	"honeysens.org/dockersensor/packaging/lab/server/internal/wanted"
)

// Names of the members.
const (
	serverCert = "server-cert.pem"
	configName = "honeysens.cfg"
	eapolCA    = "eapol_ca.crt"
	eapolCert  = "eapol_client.crt"
	eapolKey   = "eapol_client.key"
)

// Write writes the archive of a sensor. chain is the server's certificate and
// its authority, in PEM.
func Write(w io.Writer, server wanted.Server, sensor admin.Sensor, chain string) error {
	values := wanted.Of(server, sensor)
	zip := gzip.NewWriter(w)
	out := tar.NewWriter(zip)
	members := []struct{ name, text string }{
		{serverCert, chain}, {configName, config(server, sensor, values)},
	}
	for _, cert := range certificates {
		if text, ok := values.Text(cert.key); ok {
			members = append(members, struct{ name, text string }{cert.file, text})
		}
	}
	for _, m := range members {
		header := &tar.Header{
			Typeflag: tar.TypeReg, Name: m.name, Size: int64(len(m.text)), Mode: 0o644,
			Uname: "root", Gname: "root", ModTime: time.Now().Truncate(time.Second),
		}
		if err := out.WriteHeader(header); err != nil {
			return fmt.Errorf("write configuration archive: %w", err)
		}
		if _, err := io.WriteString(out, m.text); err != nil {
			return fmt.Errorf("write configuration archive: %w", err)
		}
	}
	if err := errors.Join(out.Close(), zip.Close()); err != nil {
		return fmt.Errorf("write configuration archive: %w", err)
	}
	return nil
}

var certificates = []struct{ key, file string }{
	{wanted.EAPOLCA, eapolCA}, {wanted.EAPOLClient, eapolCert}, {wanted.EAPOLClientKey, eapolKey},
}

// config is honeysens.cfg.
func config(server wanted.Server, sensor admin.Sensor, v wanted.Values) string {
	var out writer
	out.section("server")
	out.from(v, "host", "server_endpoint_host")
	out.set("name", server.Name)
	out.from(v, "port_https", "server_endpoint_port_https")
	out.from(v, "interval", "update_interval")
	out.set("certfile", serverCert)

	out.section("general")
	out.set("sensor_id", strconv.Itoa(sensor.ID))
	out.set("hostname", "s"+strconv.Itoa(sensor.ID))
	out.set("secret", sensor.Secret)
	out.from(v, "service_network", "service_network")

	out.section("network")
	out.from(v, "mode", "network_ip_mode")
	for _, key := range []string{"address", "netmask", "gateway", "dns"} {
		out.from(v, key, "network_ip_"+key)
	}
	out.from(v, "dhcp_hostname", "network_dhcp_hostname")

	out.section("mac")
	out.from(v, "mode", "network_mac_mode")
	out.from(v, "address", "network_mac_address")

	out.section("proxy")
	out.from(v, "mode", "proxy_mode")
	out.from(v, "host", "proxy_host")
	// The generator writes an unset port as Python's None.
	if port, ok := v.Text("proxy_port"); ok {
		out.set("port", port)
	} else {
		out.set("port", "None")
	}
	out.from(v, "user", "proxy_user")
	out.from(v, "password", "proxy_password")

	out.section("eapol")
	for _, key := range []string{"mode", "identity", "password", "anon_identity"} {
		out.from(v, key, "eapol_"+key)
	}
	out.file(v, "ca_cert", wanted.EAPOLCA, eapolCA)
	out.file(v, "client_cert", wanted.EAPOLClient, eapolCert)
	out.file(v, "client_key", wanted.EAPOLClientKey, eapolKey)
	out.from(v, "client_key_password", "eapol_client_key_password")
	return out.String() + "\n"
}

// writer writes as configparser with allow_no_value.
type writer struct {
	strings.Builder
}

func (w *writer) section(name string) {
	if w.Len() > 0 {
		w.WriteString("\n")
	}
	w.WriteString("[" + name + "]\n")
}

func (w *writer) set(key, value string) {
	w.WriteString(key + " = " + strings.ReplaceAll(value, "\n", "\n\t") + "\n")
}

// from sets a wanted value; an unset one is a bare key.
func (w *writer) from(v wanted.Values, key, name string) {
	value, ok := v.Text(name)
	if !ok {
		w.WriteString(key + "\n")
		return
	}
	w.set(key, value)
}

// file sets the name of a certificate's file when there is a certificate.
func (w *writer) file(v wanted.Values, key, name, file string) {
	if _, ok := v.Text(name); !ok {
		w.WriteString(key + "\n")
		return
	}
	w.set(key, file)
}
