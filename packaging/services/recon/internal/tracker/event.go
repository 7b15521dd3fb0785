package tracker

import (
	"encoding/base64"
	"net/netip"

	"honeysens.org/dockersensor/shared/event"
)

func (s *source) event(from netip.Addr, summary string) event.Event {
	packets := make([]event.Packet, 0, len(s.probes))
	for _, p := range s.probes {
		packets = append(packets, p.packet())
	}
	return event.Event{
		Timestamp: s.first.Unix(),
		Service:   event.ServiceRecon,
		Source:    from.String(),
		Summary:   summary,
		Details:   []event.Detail{},
		Packets:   packets,
	}
}

func (p Probe) packet() event.Packet {
	packet := event.Packet{
		Timestamp: p.Time.Unix(),
		Protocol:  p.Protocol,
		Port:      int(p.DstPort),
		Headers:   []map[string]any{},
	}
	if p.Protocol == event.ProtocolTCP {
		packet.Headers = append(packet.Headers, map[string]any{"flags": int(p.Flags)})
	}
	if len(p.Payload) > 0 {
		text := base64.StdEncoding.EncodeToString(p.Payload)
		packet.Payload = &text
	}
	return packet
}
