package iface

import (
	"encoding/base64"
	"fmt"
	"net"
	"net/netip"
	"strings"
)

const (
	// recordPrefix starts the alias of every interface that was changed.
	recordPrefix = "honeysens "
	// maxAlias is what the kernel keeps, in bytes (IFALIASZ without its end).
	maxAlias = 255
	// sensorIDLen is how much of its container id a sensor is known by.
	sensorIDLen = 12
)

// record is what a sensor changed at an interface, and what was before. It is
// kept in the interface's alias, as
// "honeysens 0123456789ab up=1 eap=0 mac=02:…:01 set=02:…:02 addr=192.0.2.1/24 was=".
type record struct {
	sensor string
	// wasUp tells whether the interface was up.
	wasUp bool
	// mac is the hardware address that was there before, and set the one that
	// is to be there now; both nil when it was not changed.
	mac, set net.HardwareAddr
	// claimed is true for an interface that the sensor uses 802.1X at. Nothing is
	// to be undone for it; it keeps another sensor from doing the same.
	claimed bool
	// address is the one that the sensor gave, if valid.
	address netip.Prefix
	// alias is what the operator wrote.
	alias string
}

// changed tells whether anything is to be undone.
func (r record) changed() bool {
	return !r.wasUp || r.claimed || r.mac != nil || r.address.IsValid()
}

func (r record) String() string {
	address := ""
	if r.address.IsValid() {
		address = r.address.String()
	}
	return fmt.Sprintf("%s%s up=%s eap=%s mac=%s set=%s addr=%s was=%s", recordPrefix, r.sensor, bit(r.wasUp), bit(r.claimed), r.mac, r.set, address,
		base64.RawURLEncoding.EncodeToString([]byte(r.alias)))
}

func bit(on bool) string {
	if on {
		return "1"
	}
	return "0"
}

// parseRecord reads an alias; false means that it is not one of ours.
func parseRecord(alias string) (record, bool) {
	rest, ours := strings.CutPrefix(alias, recordPrefix)
	if !ours {
		return record{}, false
	}
	fields := strings.Split(rest, " ")
	keys := []string{"up=", "eap=", "mac=", "set=", "addr=", "was="}
	if len(fields) != 1+len(keys) || len(fields[0]) != sensorIDLen {
		return record{}, false
	}
	values := make([]string, len(keys))
	for i, key := range keys {
		value, ok := strings.CutPrefix(fields[1+i], key)
		if !ok {
			return record{}, false
		}
		values[i] = value
	}
	r := record{sensor: fields[0], wasUp: values[0] == bit(true), claimed: values[1] == bit(true)}
	return r, bit(r.wasUp) == values[0] && bit(r.claimed) == values[1] && r.parse(values[2:])
}

func (r *record) parse(values []string) bool {
	var errs [4]error
	if values[0] != "" || values[1] != "" {
		r.mac, errs[0] = net.ParseMAC(values[0])
		r.set, errs[1] = net.ParseMAC(values[1])
	}
	if values[2] != "" {
		r.address, errs[2] = netip.ParsePrefix(values[2])
	}
	was, err := base64.RawURLEncoding.DecodeString(values[3])
	r.alias, errs[3] = string(was), err
	for _, err := range errs {
		if err != nil {
			return false
		}
	}
	return true
}
