package control

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"honeysens.org/dockersensor/shared/helperapi"
)

// Status is all that a running manager tells about the sensor.
type Status struct {
	Version  string    `json:"version"`
	Platform string    `json:"platform"`
	Started  time.Time `json:"started"`
	Hostname string    `json:"hostname"`
	SensorID string    `json:"sensor_id"`

	Server    ServerState    `json:"server"`
	Settings  SettingsState  `json:"settings,omitzero"`
	Update    UpdateState    `json:"update,omitzero"`
	Network   NetworkState   `json:"network"`
	Engine    EngineState    `json:"engine"`
	Collector CollectorState `json:"collector"`
	Services  []ServiceState `json:"services"`
	Events    EventsState    `json:"events"`
}

// ServerState is the HoneySens server and how it is reached.
type ServerState struct {
	Address string `json:"address"`
	Name    string `json:"name"`
	// Route is "direct" or the proxy's address.
	Route string `json:"route"`
	// LastPoll is the last one that the server accepted.
	LastPoll time.Time `json:"last_poll,omitzero"`
	// Error is why the newest poll was not accepted, or "".
	Error string `json:"error,omitempty"`
	// ErrorClass is name, route, tls, clock, auth, proxy, server and the like.
	ErrorClass string `json:"error_class,omitempty"`
	// ClockOffset is the server's clock minus this host's, in seconds.
	ClockOffset float64 `json:"clock_offset_seconds"`
}

// NetworkState is what the helper says, or why it says nothing.
type NetworkState struct {
	Error    string             `json:"error,omitempty"`
	Observed helperapi.Observed `json:"observed"`
}

// EngineState is the nested Docker engine.
type EngineState struct {
	Error string `json:"error,omitempty"`
}

// CollectorState is the intake for honeypots.
type CollectorState struct {
	// Listening are addresses with their port.
	Listening   []string `json:"listening"`
	Error       string   `json:"error,omitempty"`
	Connections int      `json:"connections"`
	Accepted    uint64   `json:"accepted"`
	Refused     uint64   `json:"refused"`
}

// ServiceState is one honeypot.
type ServiceState struct {
	ID     string `json:"id"`
	Label  string `json:"label"`
	Image  string `json:"image,omitempty"`
	Digest string `json:"digest,omitempty"`
	// State is running, scheduled or error.
	State     string   `json:"state"`
	Reason    string   `json:"reason,omitempty"`
	Addresses []string `json:"addresses,omitempty"`
	Ports     []string `json:"ports,omitempty"`
	CatchAll  bool     `json:"catch_all,omitempty"`
	// Raw services share the sensor's own network stack.
	Raw bool `json:"raw_network_access,omitempty"`
}

// EventsState counts what honeypots reported.
type EventsState struct {
	Waiting      int       `json:"waiting"`
	WaitingBytes int64     `json:"waiting_bytes"`
	Sent         uint64    `json:"sent"`
	Quarantined  int       `json:"quarantined"`
	Lost         uint64    `json:"lost"`
	LastSent     time.Time `json:"last_sent,omitzero"`
	Error        string    `json:"error,omitempty"`
}

// Healthy tells whether nothing in the status needs a person.
func (s *Status) Healthy() bool {
	for _, service := range s.Services {
		if service.State == "error" {
			return false
		}
	}
	return s.Server.Error == "" && s.Settings.State != "refused" && s.Update.Refused == "" && s.Network.Error == "" && s.Engine.Error == "" &&
		s.Collector.Error == "" && s.Events.Error == "" && s.Network.Observed.Interface.Problem == ""
}

// WriteText writes the status for a person in a terminal.
func (s *Status) WriteText(out io.Writer, now time.Time) error {
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	line := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%s\t%s\n", name, printable(fmt.Sprintf(format, args...)))
	}
	line("Sensor", "%s (id %s), version %s, %s, up %s", s.Hostname, s.SensorID, s.Version, s.Platform, ago(now, s.Started))
	s.writeServer(line, now)
	if text := s.Update.text(now); text != "" {
		line("Update", "%s", text)
	}
	if s.Settings.State != "" {
		line("Settings", "%s", s.Settings.text(now))
	}
	s.writeNetwork(line, now)
	if s.Engine.Error != "" {
		line("Engine", "problem: %s", s.Engine.Error)
	}
	line("Collector", "%s", s.Collector.text())
	line("Events", "%s", s.Events.text(now))
	if len(s.Services) == 0 {
		line("Services", "none assigned")
	}
	for i, service := range s.Services {
		name := ""
		if i == 0 {
			name = "Services"
		}
		line(name, "%s%s", service.text(), s.counted(service.ID))
	}
	return w.Flush()
}

// counted tells how many connections were led to a service, and what it was kept
// from.
func (s *Status) counted(id string) string {
	text := ""
	for _, observed := range s.Network.Observed.Services {
		if observed.ID != id {
			continue
		}
		for _, c := range []struct {
			format string
			count  helperapi.Counter
		}{
			{", %d connections", observed.Redirected}, {", %d packets to where it may not go", observed.Refused},
			{", %d frames in somebody else's name", observed.Forged}, {", %d packets above its bounds", observed.Bounded},
		} {
			if c.count.Packets > 0 {
				text += fmt.Sprintf(c.format, c.count.Packets)
			}
		}
	}
	return text
}

// WriteServices writes the services as a table for a terminal.
func (s *Status) WriteServices(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tLABEL\tSTATE\tADDRESSES\tPORTS\tIMAGE\tREASON")
	for _, service := range s.Services {
		ports := service.Ports
		if service.CatchAll {
			ports = append(ports, "catch-all")
		}
		if service.Raw {
			ports = append(ports, "RISK: raw network access")
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", service.ID, printable(service.Label), service.State,
			strings.Join(service.Addresses, " "), strings.Join(ports, ", "), printable(service.Image), printable(service.Reason))
	}
	return w.Flush()
}

type lineFunc func(name, format string, args ...any)

func (s *Status) writeServer(line lineFunc, now time.Time) {
	last := "never reached"
	if !s.Server.LastPoll.IsZero() {
		last = "last poll " + ago(now, s.Server.LastPoll) + " ago"
	}
	line("Server", "%s (%s), %s, %s", s.Server.Address, s.Server.Name, s.Server.Route, last)
	if s.Server.Error != "" {
		line("", "problem (%s): %s", s.Server.ErrorClass, s.Server.Error)
	}
	if off := s.Server.ClockOffset; off >= 2 || off <= -2 {
		line("", "the server's clock differs by %+.0f s", off)
	}
}

func (s *Status) writeNetwork(line lineFunc, now time.Time) {
	if s.Network.Error != "" {
		line("Network", "problem: %s", s.Network.Error)
		return
	}
	observed := s.Network.Observed
	addresses := make([]string, len(observed.Interface.Addresses))
	for i, address := range observed.Interface.Addresses {
		addresses[i] = address.String()
	}
	line("Network", "%s %s", observed.Interface.Name, strings.Join(addresses, ", "))
	if observed.Interface.Problem != "" {
		line("", "problem: %s", observed.Interface.Problem)
	}
	if observed.Interface.Note != "" {
		line("", "%s", observed.Interface.Note)
	}
	for _, conflict := range observed.Conflicts {
		line("", "port %d/%s wanted by service %s goes to the %s: %s",
			conflict.Port.Number, conflict.Port.Protocol, conflict.Service, conflict.Winner, conflict.Reason)
	}
	for _, firewall := range observed.Firewalls {
		if firewall.Problem != "" {
			line("", "firewall %s: %s", firewall.Kind, firewall.Problem)
			continue
		}
		line("", "firewall %s: passed by %s", firewall.Kind, firewall.Passage)
	}
	if observed.Refused.Packets > 0 {
		line("", "%d packets of services to where they may not go", observed.Refused.Packets)
	}
	for _, lack := range observed.Lacks {
		line("", "note: %s", lack)
	}
	if observed.Heals > 0 {
		line("", "repaired %d times after somebody else changed it, last %s ago", observed.Heals, ago(now, observed.LastHeal))
	}
}

func (c *CollectorState) text() string {
	if c.Error != "" {
		return "problem: " + c.Error
	}
	if len(c.Listening) == 0 {
		return "waits for the services network"
	}
	return fmt.Sprintf("%s, %d connections, %d events taken, %d refused", strings.Join(c.Listening, ", "), c.Connections, c.Accepted, c.Refused)
}

func (e *EventsState) text(now time.Time) string {
	text := fmt.Sprintf("%d waiting%s, %d sent, %d quarantined%s, %d lost", e.Waiting, size(e.WaitingBytes), e.Sent,
		e.Quarantined, hint(e.Quarantined), e.Lost)
	if !e.LastSent.IsZero() {
		text += ", last sent " + ago(now, e.LastSent) + " ago"
	}
	if e.Error != "" {
		text += "; problem: " + e.Error
	}
	return text
}

func size(bytes int64) string {
	switch {
	case bytes >= 1<<20:
		return fmt.Sprintf(" (%d MiB)", bytes>>20)
	case bytes > 0:
		return fmt.Sprintf(" (%d KiB)", (bytes+1023)>>10)
	}
	return ""
}

func hint(quarantined int) string {
	if quarantined == 0 {
		return ""
	}
	return " (listed by `manager events`)"
}

// RawRisk says what a service with raw network access may do.
const RawRisk = "RISK: raw network access: it sees and forges all traffic of the sensor's network, and can change its addresses and firewall"

func (s *ServiceState) text() string {
	parts := []string{fmt.Sprintf("%s %s: %s", s.ID, s.Label, s.State)}
	if s.Reason != "" {
		parts = append(parts, s.Reason)
	}
	parts = append(parts, s.Addresses...)
	parts = append(parts, s.Ports...)
	if s.CatchAll {
		parts = append(parts, "catch-all")
	}
	if s.Raw {
		parts = append(parts, RawRisk)
	}
	return strings.Join(parts, ", ")
}

// ago tells how long ago something was, as a person would.
func ago(now, then time.Time) string {
	if d := now.Sub(then); d > time.Minute {
		return d.Round(time.Minute).String()
	}
	return now.Sub(then).Round(time.Second).String()
}
