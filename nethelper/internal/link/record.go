package link

import (
	"fmt"
	"strings"

	"honeysens.org/dockersensor/shared/helperapi"
)

// aliasPrefix starts the alias of every bridge that is ours.
const aliasPrefix = "honeysens "

// record is what was before the first sensor came. It is kept in the bridge's
// alias (at most 255 bytes), as "honeysens 0123456789ab if=eth0 v4=0 all4=0 v6=force:0".
type record struct {
	sensor string // the first characters of the container id
	iface  string
	// v4 and all4 are net.ipv4.conf.{IFACE,all}.forwarding.
	v4, all4 string
	// v6 is the switch that was used, and its value before.
	v6      v6Switch
	v6Value string
}

// v6Switch is how IPv6 forwarding was switched on.
type v6Switch string

const (
	// v6Force is net.ipv6.conf.IFACE.force_forwarding, of kernel 6.17 and newer.
	v6Force v6Switch = "force"
	// v6All is net.ipv6.conf.all.forwarding, all that older kernels have.
	v6All v6Switch = "all"
	// v6None: the kernel has no IPv6.
	v6None v6Switch = "none"
)

func (r record) String() string {
	return fmt.Sprintf("%s%s if=%s v4=%s all4=%s v6=%s:%s", aliasPrefix, r.sensor, r.iface, r.v4, r.all4, r.v6, r.v6Value)
}

// parseRecord reads an alias; false means that it is not one of ours.
func parseRecord(alias string) (record, bool) {
	rest, ours := strings.CutPrefix(alias, aliasPrefix)
	if !ours {
		return record{}, false
	}
	fields := strings.Fields(rest)
	if len(fields) != 5 {
		return record{}, false
	}
	values := map[string]string{}
	for _, field := range fields[1:] {
		key, value, ok := strings.Cut(field, "=")
		if !ok {
			return record{}, false
		}
		values[key] = value
	}
	kind, before, _ := strings.Cut(values["v6"], ":")
	r := record{
		sensor: fields[0], iface: values["if"], v4: values["v4"], all4: values["all4"],
		v6: v6Switch(kind), v6Value: before,
	}
	return r, r.valid()
}

func (r record) valid() bool {
	if len(r.sensor) != sensorIDLen || !helperapi.ValidInterfaceName(r.iface) || !isSwitch(r.v4) || !isSwitch(r.all4) {
		return false
	}
	switch r.v6 {
	case v6None:
		return r.v6Value == "0"
	case v6Force, v6All:
		return isSwitch(r.v6Value)
	}
	return false
}

func isSwitch(value string) bool { return value == "0" || value == "1" }
