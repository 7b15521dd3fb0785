package config

import (
	"fmt"
	"path"
)

// Defaults for what archives of older servers do not have.
const defaultServiceNetwork = "10.10.10.0/24"

// eapolKeys are the keys of a section eapol, in the order of the server.
var eapolKeys = []string{"identity", "password", "anon_identity", "ca_cert", "client_cert", "client_key", "client_key_password"}

// migrate brings an archive of any age up to date and says what it did. The
// oldest form is handled first, so that each step meets what the server of
// its time wrote.
func (a *Archive) migrate() (notes []string) {
	note := func(format string, args ...any) { notes = append(notes, fmt.Sprintf(format, args...)) }
	if a.doc.find("services") != nil {
		a.leaveOldest()
		note("section services, and what belongs to its age, removed")
	}
	if a.doc.find("eapol") == nil {
		a.addEAPOL()
		note("section eapol added; values that are the text None are unset")
	}
	if a.doc.lookup("general", "service_network") == nil {
		network := defaultServiceNetwork
		a.doc.set("general", "service_network", &network)
		note("general.service_network set to %s", network)
	}
	for _, key := range [][2]string{{"network", "dhcp_hostname"}, {"general", "secret"}} {
		if a.doc.lookup(key[0], key[1]) == nil {
			a.doc.set(key[0], key[1], nil)
			note("%s.%s added, unset", key[0], key[1])
		}
	}
	for _, key := range []string{"certfile", "keyfile"} {
		if a.doc.lookup("general", key) != nil {
			a.retire(key)
			note("general.%s removed: client certificates are retired", key)
		}
	}
	return notes
}

// leaveOldest handles the archives that had a section for services: they name
// files by their path on the sensor.
func (a *Archive) leaveOldest() {
	for _, key := range [][2]string{{"server", "certfile"}, {"general", "certfile"}, {"general", "keyfile"}} {
		if i := a.doc.lookup(key[0], key[1]); i != nil && i.value != nil && *i.value != "" {
			base := path.Base(*i.value)
			i.value = &base
		}
	}
	a.doc.remove("general", "sw_version")
	a.doc.remove("network", "interface")
	a.doc.removeSection("services")
}

// addEAPOL adds the section. Servers before it wrote unset values as None.
func (a *Archive) addEAPOL() {
	for s := range a.doc.sections {
		for i := range a.doc.sections[s].items {
			if value := a.doc.sections[s].items[i].value; value != nil && *value == "None" {
				a.doc.sections[s].items[i].value = nil
			}
		}
	}
	off := "0"
	a.doc.set("eapol", "mode", &off)
	for _, key := range eapolKeys {
		a.doc.set("eapol", key, nil)
	}
}

// retire removes a key of the section general with the file that it names,
// unless the file serves another purpose too.
func (a *Archive) retire(key string) {
	i := a.doc.lookup("general", key)
	value := i.value
	a.doc.remove("general", key)
	if value == nil || *value == "" || *value == configName {
		return
	}
	if server := a.doc.lookup("server", "certfile"); server != nil && server.value != nil && *server.value == *value {
		return
	}
	a.setFile(*value, nil)
}
