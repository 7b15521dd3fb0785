package control

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"honeysens.org/dockersensor/shared/helperapi"
)

const (
	pathMetrics = "/metrics"
	// contentMetrics is the text format of Prometheus, version 0.0.4.
	contentMetrics = "text/plain; version=0.0.4; charset=utf-8"
)

// metric is one value with its labels, as name and value in turn.
type metric struct {
	name, kind, help string
	value            float64
	labels           []string
}

// WriteMetrics writes the status as metrics, in the text format of Prometheus.
func (s *Status) WriteMetrics(out io.Writer) error {
	last := ""
	for _, m := range s.metrics() {
		if m.name != last {
			if _, err := fmt.Fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", m.name, m.help, m.name, m.kind); err != nil {
				return err
			}
			last = m.name
		}
		if _, err := fmt.Fprintf(out, "%s%s %s\n", m.name, labelText(m.labels), strconv.FormatFloat(m.value, 'g', -1, 64)); err != nil {
			return err
		}
	}
	return nil
}

func (s *Status) metrics() []metric {
	const gauge, counter = "gauge", "counter"
	all := []metric{
		{"honeysens_sensor_info", gauge, "The sensor, always 1.", 1, []string{"version", s.Version, "platform", s.Platform, "hostname", s.Hostname, "sensor", s.SensorID}},
		{"honeysens_healthy", gauge, "Whether nothing needs a person.", truth(s.Healthy()), nil},
		{"honeysens_start_time_seconds", gauge, "Start of the manager, in Unix time.", unix(s.Started), nil},
		{"honeysens_server_last_poll_time_seconds", gauge, "Last poll that the server accepted, in Unix time; 0 for none.", unix(s.Server.LastPoll), nil},
		{"honeysens_server_reached", gauge, "Whether the newest poll was accepted.", truth(s.Server.Error == "" && !s.Server.LastPoll.IsZero()), nil},
		{"honeysens_server_clock_offset_seconds", gauge, "The server's clock minus this host's.", s.Server.ClockOffset, nil},
		{"honeysens_settings_refused", gauge, "Whether a change of the server does not work.", truth(s.Settings.State == "refused"), nil},
		{"honeysens_events_waiting", gauge, "Events that wait for the server.", float64(s.Events.Waiting), nil},
		{"honeysens_events_waiting_bytes", gauge, "Size of the events that wait for the server.", float64(s.Events.WaitingBytes), nil},
		{"honeysens_events_quarantined", gauge, "Events that the server refused.", float64(s.Events.Quarantined), nil},
		{"honeysens_events_sent_total", counter, "Events that the server took since the start.", float64(s.Events.Sent), nil},
		{"honeysens_events_lost_total", counter, "Events lost over the life of the spool.", float64(s.Events.Lost), nil},
		{"honeysens_events_last_sent_time_seconds", gauge, "When the server last took events, in Unix time; 0 for never.", unix(s.Events.LastSent), nil},
		{"honeysens_collector_listening", gauge, "Whether honeypots can report.", truth(len(s.Collector.Listening) > 0), nil},
		{"honeysens_collector_connections", gauge, "Connections of honeypots.", float64(s.Collector.Connections), nil},
		{"honeysens_collector_accepted_total", counter, "Events taken since the start.", float64(s.Collector.Accepted), nil},
		{"honeysens_collector_refused_total", counter, "Connections and events refused since the start.", float64(s.Collector.Refused), nil},
		{"honeysens_network_in_force", gauge, "Whether the host's network is as wanted.", truth(s.Network.Error == ""), nil},
		{"honeysens_network_heals_total", counter, "Repairs of what somebody else changed.", float64(s.Network.Observed.Heals), nil},
		{"honeysens_network_conflicts", gauge, "Ports that the host keeps.", float64(len(s.Network.Observed.Conflicts)), nil},
		{"honeysens_network_refused_packets_total", counter, "Packets of services to where they may not go.", float64(s.Network.Observed.Refused.Packets), nil},
		{"honeysens_engine_up", gauge, "Whether the nested engine answers.", truth(s.Engine.Error == ""), nil},
	}
	for _, service := range s.Services {
		all = append(all, metric{"honeysens_service_up", gauge, "Whether a service runs.", truth(service.State == "running"),
			[]string{"service", service.ID, "label", service.Label, "state", service.State}})
	}
	for _, c := range counts() {
		for _, service := range s.Network.Observed.Services {
			all = append(all, metric{c.name, counter, c.help, float64(c.of(service).Packets), []string{"service", service.ID}})
		}
	}
	return all
}

// count is one that the helper has for each service.
type count struct {
	name, help string
	of         func(helperapi.ServiceObserved) helperapi.Counter
}

func counts() []count {
	return []count{
		{"honeysens_service_connections_total", "Connections led to a service.",
			func(s helperapi.ServiceObserved) helperapi.Counter { return s.Redirected }},
		{"honeysens_service_refused_packets_total", "Packets of a service to where it may not go.",
			func(s helperapi.ServiceObserved) helperapi.Counter { return s.Refused }},
		{"honeysens_service_forged_frames_total", "Frames of a service in somebody else's name.",
			func(s helperapi.ServiceObserved) helperapi.Counter { return s.Forged }},
		{"honeysens_service_bounded_packets_total", "Packets to a service and from it that were above its bounds.",
			func(s helperapi.ServiceObserved) helperapi.Counter { return s.Bounded }},
	}
}

func truth(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

func unix(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}

// labelText escapes values as the format has it; names come from this file.
func labelText(labels []string) string {
	if len(labels) == 0 {
		return ""
	}
	escape := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)
	var parts []string
	for i := 0; i+1 < len(labels); i += 2 {
		parts = append(parts, labels[i]+`="`+escape.Replace(strings.ToValidUTF8(labels[i+1], "?"))+`"`)
	}
	return "{" + strings.Join(parts, ",") + "}"
}

func (s *Server) metrics(w http.ResponseWriter, r *http.Request) {
	status := s.sensor.Status(r.Context())
	w.Header().Set("Content-Type", contentMetrics)
	if err := status.WriteMetrics(w); err != nil {
		s.log.Debug("metrics were not taken", zap.Error(err))
	}
}

// ServeMetrics answers GET /metrics, and nothing else, to everybody who reaches
// a TCP address, until ctx ends.
func (s *Server) ServeMetrics(ctx context.Context, address string) error {
	var cfg net.ListenConfig
	// Landlock has no rules for MPTCP.
	cfg.SetMultipathTCP(false)
	listener, err := cfg.Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+pathMetrics, s.metrics)
	return s.serve(ctx, listener, &http.Server{Handler: mux, ReadHeaderTimeout: timeout})
}

// Metrics returns the running manager's metrics as text.
func (c *Client) Metrics(ctx context.Context) ([]byte, error) {
	return c.do(ctx, http.MethodGet, pathMetrics, nil)
}
