package wire

import (
	"unicode/utf8"

	"honeysens.org/dockersensor/shared/event"
)

// maxEvents is about where the server runs out of memory.
const maxEvents = 8000

// ErrMemory is a request that is too big for the server: 500 without a text.
var ErrMemory = &StoreError{}

// ParseEvents reads the body of a post of events. One bad event refuses all.
func ParseEvents(body []byte) ([]event.Event, error) {
	_, _, inner, err := envelope(body, "events")
	if err != nil {
		return nil, err
	}
	list, ok := inner.([]any)
	if !ok {
		return nil, invalid("events is not a list")
	}
	if len(list) > maxEvents {
		return nil, ErrMemory
	}
	events := make([]event.Event, 0, len(list))
	for _, item := range list {
		e, err := readEvent(item)
		if err != nil {
			return nil, err
		}
		events = append(events, e)
	}
	for i := range events {
		if err := storeEvent(&events[i]); err != nil {
			return nil, err
		}
	}
	return events, nil
}

func readEvent(item any) (event.Event, error) {
	fields, ok := item.(map[string]any)
	if !ok {
		return event.Event{}, invalid("event is not an object")
	}
	o := object(fields)
	var e event.Event
	var err error
	if e.Timestamp, err = o.integer("timestamp"); err != nil {
		return e, err
	}
	service, err := o.integer("service")
	if err != nil {
		return e, err
	}
	e.Service = int(service)
	if e.Source, err = o.text("source"); err != nil {
		return e, err
	}
	if e.Summary, err = o.text("summary"); err != nil {
		return e, err
	}
	if e.Details, err = readList(o, "details", readDetail); err != nil {
		return e, err
	}
	e.Packets, err = readList(o, "packets", readPacket)
	return e, err
}

func readList[T any](o object, key string, read func(object) (T, error)) ([]T, error) {
	list, err := o.list(key)
	if err != nil {
		return nil, err
	}
	out := make([]T, 0, len(list))
	for _, item := range list {
		fields, ok := item.(map[string]any)
		if !ok {
			return nil, invalid("an item of %s is not an object", key)
		}
		value, err := read(fields)
		if err != nil {
			return nil, err
		}
		out = append(out, value)
	}
	return out, nil
}

func readDetail(o object) (event.Detail, error) {
	var d event.Detail
	var err error
	if d.Timestamp, err = o.integer("timestamp"); err != nil {
		return d, err
	}
	kind, err := o.integer("type")
	if err != nil {
		return d, err
	}
	d.Type = int(kind)
	d.Data, err = o.text("data")
	return d, err
}

func readPacket(o object) (event.Packet, error) {
	var p event.Packet
	var err error
	if p.Timestamp, err = o.integer("timestamp"); err != nil {
		return p, err
	}
	protocol, err := o.integer("protocol")
	if err != nil {
		return p, err
	}
	port, err := o.integer("port")
	if err != nil {
		return p, err
	}
	if port < 0 || port > 65535 {
		return p, invalid("port %d", port)
	}
	p.Protocol, p.Port = int(protocol), int(port)
	if _, there := o["payload"]; !there {
		return p, invalid("payload is missing")
	}
	if p.Payload, err = o.optionalText("payload"); err != nil {
		return p, err
	}
	p.Headers, err = readList(o, "headers", func(header object) (map[string]any, error) { return header, nil })
	return p, err
}

// storeEvent does what the database does: it refuses, and it cuts.
func storeEvent(e *event.Event) error {
	if err := enum("EventService", int64(e.Service), event.ServiceDionaea); err != nil {
		return err
	}
	if err := column("source", e.Source); err != nil {
		return err
	}
	if err := column("summary", e.Summary); err != nil {
		return err
	}
	for i := range e.Details {
		if err := storeDetail(&e.Details[i]); err != nil {
			return err
		}
	}
	for i := range e.Packets {
		if err := storePacket(&e.Packets[i]); err != nil {
			return err
		}
	}
	return nil
}

func storeDetail(d *event.Detail) error {
	if err := enum("EventDetailType", int64(d.Type), event.DetailInteraction); err != nil {
		return err
	}
	if len(d.Data) > maxColumn {
		d.Data = d.Data[:maxColumn]
		if !utf8.ValidString(d.Data) {
			return &StoreError{Text: "SQLSTATE[HY000]: General error: 1366 Incorrect string value for column 'data' at row 1"}
		}
	}
	return column("data", d.Data)
}

func storePacket(p *event.Packet) error {
	if err := enum("EventPacketProtocol", int64(p.Protocol), event.ProtocolUDP); err != nil {
		return err
	}
	if p.Payload != nil {
		if runes := []rune(*p.Payload); len(runes) > maxColumn {
			cut := string(runes[:maxColumn])
			p.Payload = &cut
		}
		if err := column("payload", *p.Payload); err != nil {
			return err
		}
	}
	headers, err := Encode(p.Headers)
	if err != nil {
		return err
	}
	return column("headers", string(headers))
}
