package control

import (
	"context"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"honeysens.org/dockersensor/shared/helperapi"
)

var metricLine = regexp.MustCompile(`^[a-z_]+(\{[a-z]+="([^"\\\n]|\\[\\"n])*"(,[a-z]+="([^"\\\n]|\\[\\"n])*")*\})? -?[0-9.e+-]+$`)

func TestMetrics(t *testing.T) {
	status := Status{
		Version: "1.2", Hostname: "s\"1\\\n", Started: time.Unix(100, 0),
		Events:   EventsState{Waiting: 3, Lost: 4},
		Services: []ServiceState{{ID: "1", Label: "ssh", State: "running"}, {ID: "2", Label: "web", State: "error"}},
	}
	status.Network.Observed.Services = []helperapi.ServiceObserved{{ID: "1", Redirected: helperapi.Counter{Packets: 5},
		Refused: helperapi.Counter{Packets: 6}, Forged: helperapi.Counter{Packets: 7}, Bounded: helperapi.Counter{Packets: 8}}}
	var text strings.Builder
	if err := status.WriteMetrics(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"# TYPE honeysens_events_waiting gauge\nhoneysens_events_waiting 3\n", "honeysens_events_lost_total 4\n",
		"honeysens_start_time_seconds 100\n", `hostname="s\"1\\\n"`, "honeysens_healthy 0\n",
		`honeysens_service_up{service="1",label="ssh",state="running"} 1`, `honeysens_service_up{service="2",label="web",state="error"} 0`,
		`honeysens_service_connections_total{service="1"} 5`, `honeysens_service_refused_packets_total{service="1"} 6`,
		`honeysens_service_forged_frames_total{service="1"} 7`, `honeysens_service_bounded_packets_total{service="1"} 8`,
	} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %q in\n%s", want, text.String())
		}
	}
	if n := strings.Count(text.String(), "# TYPE honeysens_service_up "); n != 1 {
		t.Errorf("%d types of one metric", n)
	}
	for line := range strings.Lines(text.String()) {
		if line = strings.TrimSuffix(line, "\n"); !strings.HasPrefix(line, "# ") && !metricLine.MatchString(line) {
			t.Errorf("not in the format: %q", line)
		}
	}
}

// TestMetricsByTCP wants the metrics at a TCP address, and nothing else.
func TestMetricsByTCP(t *testing.T) {
	free, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	_ = free.Close()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		done <- NewServer(&fixed{}, zap.NewAtomicLevel(), zaptest.NewLogger(t)).ServeMetrics(ctx, address)
	}()
	for path, want := range map[string]int{pathMetrics: http.StatusOK, pathStatus: http.StatusNotFound, pathEvents: http.StatusNotFound} {
		if got, body := eventuallyGet(t, "http://"+address+path); got != want || want == http.StatusOK && !strings.Contains(body, "honeysens_sensor_info") {
			t.Errorf("%s: %d, want %d\n%s", path, got, want, body)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// eventuallyGet asks until somebody listens.
func eventuallyGet(t *testing.T, url string) (int, string) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); time.Since(began) < 20*time.Second; <-tick.C {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			continue
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	t.Fatal("nobody listens")
	return 0, ""
}
