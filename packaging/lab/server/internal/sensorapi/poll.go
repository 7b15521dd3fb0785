package sensorapi

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"

	"honeysens.org/dockersensor/packaging/lab/admin"
	"honeysens.org/dockersensor/packaging/lab/server/internal/pki"
	"honeysens.org/dockersensor/packaging/lab/server/internal/wanted"
	"honeysens.org/dockersensor/packaging/lab/server/internal/wire"
)

// maxAge is how old a status may be, in seconds.
const maxAge = 120

// poll stores the status of a sensor and tells what is wanted of it.
func (a *API) poll(sensor admin.Sensor, body []byte) answer {
	poll, err := wire.ParsePoll(body)
	if err == nil {
		err = a.checkTime(sensor, poll.Status.Timestamp)
	}
	if err == nil {
		err = wire.CheckStore(poll.Status)
	}
	if err != nil {
		return a.refusal(err)
	}
	err = a.store.Note(sensor.ID, func(s *admin.Sensor) error {
		s.Status = follow(s.Status, poll.Status, a.now().UTC())
		s.Polls++
		sensor = *s
		return nil
	})
	if err != nil {
		return invalid
	}
	text, err := wire.Encode(a.wantedOf(sensor, poll))
	if err != nil {
		return failure(err.Error())
	}
	return answer{status: http.StatusOK, body: text, sensor: &sensor}
}

// follow is the status of a sensor after another one. When no service is
// reported, the server keeps what was reported last.
func follow(last *admin.Status, status admin.Status, received time.Time) *admin.Status {
	status.Received, status.Since = received, status.Timestamp
	if last != nil && last.Status == status.Status {
		status.Since = last.Since
	}
	status.Told = status.ServiceStatus
	if last != nil && wire.EmptyStatus(status.ServiceStatus) {
		status.ServiceStatus = last.ServiceStatus
	}
	return &status
}

func (a *API) checkTime(sensor admin.Sensor, timestamp int64) error {
	if timestamp < a.now().Unix()-maxAge {
		return fmt.Errorf("%w: timestamp is too old", wire.ErrInvalid)
	}
	if sensor.Status != nil && timestamp < sensor.Status.Timestamp {
		return fmt.Errorf("%w: timestamp is older than the last one", wire.ErrInvalid)
	}
	return nil
}

// wantedOf is the answer to a poll, with its keys in the server's order.
func (a *API) wantedOf(sensor admin.Sensor, poll wire.Poll) wire.Object {
	v := wanted.Of(a.cfg.Server, sensor)
	out := builder{values: v}
	out.set("id", sensor.ID)
	out.set("hostname", fmt.Sprintf("s%d", sensor.ID))
	out.set("name", sensor.Name)
	out.set("location", sensor.Location)
	out.set("division", a.cfg.Server.Division)
	out.wanted("eapol_mode", "eapol_identity", "eapol_anon_identity")
	differs(&out, wanted.EAPOLCA, poll.EAPOLCAFP)
	client := differs(&out, wanted.EAPOLClient, poll.EAPOLClientFP)
	out.status(*sensor.Status)
	out.wanted("server_endpoint_mode", "server_endpoint_host", "server_endpoint_port_https",
		"network_ip_mode", "network_ip_address", "network_ip_netmask", "network_ip_gateway", "network_ip_dns",
		"network_mac_mode", "network_mac_address", "network_dhcp_hostname",
		"proxy_mode", "proxy_host", "proxy_port", "proxy_user", "update_interval")
	out.set("firmware", a.firmwareOf(sensor))
	out.set("services", a.servicesOf(sensor))
	out.wanted("service_network")
	out.set("new_events", 0)
	out.wanted("proxy_password", "eapol_password", "eapol_client_key_password")
	out.set("unhandledEvents", sensor.Events > 0)
	if chain := a.certs.Chain(); poll.ServerFP != nil && *poll.ServerFP != pki.Fingerprint(chain) {
		out.set("server_crt", chain)
	}
	if client {
		out.wanted(wanted.EAPOLClientKey)
	}
	out.rest(sensor.Wanted)
	return out.object
}

type builder struct {
	values wanted.Values
	object wire.Object
}

// set sets a key; what an operator wants comes first.
func (b *builder) set(key string, value any) {
	if raw, ok := b.values[key]; ok {
		value = raw
	}
	b.object = append(b.object, wire.Member{Key: key, Value: value})
}

func (b *builder) wanted(keys ...string) {
	for _, key := range keys {
		b.set(key, json.RawMessage("null"))
	}
}

// rest adds what is wanted and has no place of its own.
func (b *builder) rest(values wanted.Values) {
	known := wanted.Of(wanted.Server{}, admin.Sensor{})
	for _, member := range b.object {
		known[member.Key] = nil
	}
	for _, key := range slices.Sorted(maps.Keys(values)) {
		if _, ok := known[key]; !ok {
			b.wanted(key)
		}
	}
}

func (b *builder) status(s admin.Status) {
	b.set("last_status", s.Status)
	// Times are text.
	b.set("last_status_ts", strconv.FormatInt(s.Timestamp, 10))
	b.set("last_status_since", strconv.FormatInt(s.Since, 10))
	if wire.EmptyStatus(s.ServiceStatus) {
		b.set("last_service_status", []int{})
	} else {
		b.set("last_service_status", s.ServiceStatus)
	}
	b.set("sw_version", s.SWVersion)
	b.set("last_ip", s.IP)
}

// differs adds a certificate when the sensor has another one, and tells so.
func differs(b *builder, key string, has *string) bool {
	text, _ := b.values.Text(key)
	fp := pki.Fingerprint(text)
	if (has == nil && fp == "") || (has != nil && *has == fp) {
		return false
	}
	b.wanted(key)
	return true
}

// firmwareOf is a list when it is empty and an object otherwise.
func (a *API) firmwareOf(sensor admin.Sensor) any {
	for _, firmware := range a.store.Firmware() {
		if firmware.ID == sensor.Firmware {
			return wire.Object{{Key: firmware.Platform, Value: wire.Object{
				{Key: "revision", Value: firmware.Revision},
				{Key: "uri", Value: fmt.Sprintf("api/platforms/firmware/%d/raw", firmware.ID)},
			}}}
		}
	}
	return []int{}
}

// servicesOf is always an object. A service whose revision is missing is an
// empty one in it.
func (a *API) servicesOf(sensor admin.Sensor) wire.Object {
	services := a.store.Services()
	out := wire.Object{}
	for _, assignment := range sensor.Services {
		i := slices.IndexFunc(services, func(s admin.Service) bool { return s.ID == assignment.Service })
		if i >= 0 {
			out = append(out, wire.Member{Key: strconv.Itoa(assignment.Service), Value: architectures(services[i], assignment)})
		}
	}
	return out
}

// architectures is one revision of a service for each architecture.
func architectures(service admin.Service, a admin.Assignment) wire.Object {
	out := wire.Object{}
	if len(service.Revisions) == 0 {
		return out
	}
	name := a.Revision
	if name == "" {
		name = service.Revisions[len(service.Revisions)-1].Revision
	}
	for _, r := range service.Revisions {
		if r.Revision == name {
			out = append(out, wire.Member{Key: r.Architecture, Value: wire.Object{
				{Key: "label", Value: service.Label},
				{Key: "uri", Value: r.URI},
				{Key: "rawNetworkAccess", Value: or(a.Raw, r.Raw)},
				{Key: "catchAll", Value: or(a.CatchAll, r.CatchAll)},
				{Key: "portAssignment", Value: or(a.PortAssignment, r.PortAssignment)},
			}})
		}
	}
	return out
}

func or[T any](override *T, value T) T {
	if override != nil {
		return *override
	}
	return value
}
