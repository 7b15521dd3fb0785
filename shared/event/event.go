package event

// Services that an event can name. Any other number is refused by the server.
const (
	ServiceRecon   = 0
	ServiceGeneric = 1
	ServiceDionaea = 2
)

// Protocols of a packet.
const (
	ProtocolUnknown = 0
	ProtocolTCP     = 1
	ProtocolUDP     = 2
)

// Types of a detail.
const (
	DetailGeneric     = 0
	DetailInteraction = 1
)

// SummaryScan is the one summary that the server shows as a port scan, for
// ServiceRecon.
const SummaryScan = "Scan"

// SummarySingle is what recon calls anything that is not a scan. The text is
// the one of the honeypots in the field.
const SummarySingle = "Einzelverbindung"

// Event is one thing that a honeypot saw.
type Event struct {
	// Timestamp is in seconds since 1970.
	Timestamp int64    `json:"timestamp"`
	Service   int      `json:"service"`
	Source    string   `json:"source"`
	Summary   string   `json:"summary"`
	Details   []Detail `json:"details"`
	Packets   []Packet `json:"packets"`
}

// Detail is a line of text about an event.
type Detail struct {
	Timestamp int64  `json:"timestamp"`
	Type      int    `json:"type"`
	Data      string `json:"data"`
}

// Packet is one packet, or the first bytes of a connection.
type Packet struct {
	Timestamp int64 `json:"timestamp"`
	Protocol  int   `json:"protocol"`
	Port      int   `json:"port"`
	// Payload is base64, or nil.
	Payload *string          `json:"payload"`
	Headers []map[string]any `json:"headers"`
}
