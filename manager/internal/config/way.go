package config

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"strconv"

	"honeysens.org/dockersensor/shared/helperapi"
)

// Way is all that decides whether the sensor reaches its server: a mistake in
// it cuts the sensor off. The server's certificate is no part of it, since the
// one before stays trusted until the new one was seen.
type Way struct {
	Host, Name string
	Port       uint16
	// ServiceNetwork is here because it can cover the server's own network.
	ServiceNetwork netip.Prefix
	Interface      helperapi.Interface
	Proxy          *Proxy
	EAPOL          *EAPOL
}

// wayKeys are the keys that a way is made of, by section.
var wayKeys = []struct {
	section string
	keys    []string
}{
	{"server", []string{"host", "name", "port_https"}},
	{"general", []string{"service_network"}},
	{"network", []string{"mode", "address", "netmask", "gateway", "dns", "dhcp_hostname"}},
	{"mac", []string{"mode", "address"}},
	{"proxy", []string{"mode", "host", "port", "user", "password"}},
	{"eapol", append([]string{"mode"}, eapolKeys...)},
}

// eapolFileKeys are those that name a file of the archive.
var eapolFileKeys = []string{"ca_cert", "client_cert", "client_key"}

// Way returns the part of the settings that leads to the server.
func (s *Settings) Way() Way {
	return Way{Host: s.Server.Host, Name: s.Server.Name, Port: s.Server.Port, ServiceNetwork: s.Sensor.ServiceNetwork,
		Interface: s.Interface, Proxy: s.Proxy, EAPOL: s.EAPOL}
}

// Equal tells whether both have the same effect.
func (w Way) Equal(other Way) bool { return reflect.DeepEqual(w, other) }

// SameNetwork tells whether both want the same of the host's network.
func (w Way) SameNetwork(other Way) bool {
	w.Host, w.Name, w.Port, w.Proxy = other.Host, other.Name, other.Port, other.Proxy
	return w.Equal(other)
}

// Describe says in plain words, without secrets, what differs from another way.
func (w Way) Describe(from Way) []string {
	var words []string
	add := func(differs bool, format string, args ...any) {
		if differs {
			words = append(words, fmt.Sprintf(format, args...))
		}
	}
	add(w.Host != from.Host || w.Name != from.Name || w.Port != from.Port, "server %s (%s)", hostPort(w.Host, w.Port), w.Name)
	add(w.ServiceNetwork != from.ServiceNetwork, "service network %s", w.ServiceNetwork)
	mac, fromMAC := w.Interface.MAC, from.Interface.MAC
	w.Interface.MAC, from.Interface.MAC = "", ""
	add(!reflect.DeepEqual(w.Interface, from.Interface), "%s", describeInterface(w.Interface))
	add(mac != fromMAC && mac == "", "the card's own hardware address")
	add(mac != fromMAC && mac != "", "hardware address %s", mac)
	add(!reflect.DeepEqual(w.Proxy, from.Proxy), "%s", w.Proxy.describe())
	add(!reflect.DeepEqual(w.EAPOL, from.EAPOL), "%s", w.EAPOL.describe())
	return words
}

func hostPort(host string, port uint16) string {
	return net.JoinHostPort(host, strconv.Itoa(int(port)))
}

func describeInterface(i helperapi.Interface) string {
	if i.Mode != helperapi.ModeStatic {
		return fmt.Sprintf("interface by %s", i.Mode)
	}
	text := fmt.Sprintf("address %s", i.Address)
	if i.Gateway.IsValid() {
		text += fmt.Sprintf(", gateway %s", i.Gateway)
	}
	for _, server := range i.DNS {
		text += fmt.Sprintf(", DNS server %s", server)
	}
	return text
}

func (p *Proxy) describe() string {
	switch {
	case p == nil:
		return "no proxy"
	case p.User != "":
		return fmt.Sprintf("proxy %s as %s", hostPort(p.Host, p.Port), p.User)
	}
	return "proxy " + hostPort(p.Host, p.Port)
}

func (e *EAPOL) describe() string {
	if e == nil {
		return "no 802.1X"
	}
	return fmt.Sprintf("802.1X as %s", e.Identity)
}

// TakeWay gives the archive the way of another one; all else stays.
func (a *Archive) TakeWay(from *Archive) {
	for _, key := range eapolFileKeys {
		if name := a.text("eapol", key); name != "" && name != a.text("server", "certfile") {
			a.setFile(name, nil)
		}
	}
	for _, part := range wayKeys {
		for _, key := range part.keys {
			i := from.doc.lookup(part.section, key)
			if i == nil {
				a.doc.remove(part.section, key)
				continue
			}
			a.doc.set(part.section, key, i.value)
		}
	}
	for _, key := range eapolFileKeys {
		if name := from.text("eapol", key); name != "" && name != a.text("server", "certfile") {
			a.setFile(name, from.file(name))
		}
	}
}

// Same tells whether both archives hold the same.
func (a *Archive) Same(other *Archive) bool {
	if a.Text() != other.Text() || len(a.members) != len(other.members) {
		return false
	}
	for _, m := range a.members {
		if data := other.file(m.name); data == nil || !bytes.Equal(m.data, data) {
			return false
		}
	}
	return true
}
