package main

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"honeysens.org/dockersensor/packaging/lab/admin"
	"honeysens.org/dockersensor/packaging/lab/browser"
	"honeysens.org/dockersensor/shared/event"
	"honeysens.org/dockersensor/shared/nettest"
)

// markup is what an attacker would have the page do.
const markup = `<img src=x onerror="document.title='taken over'"><script>document.title='taken over'</script>`

// TestNetnsPage has a browser, which reaches nothing but the server, show the
// page while a sensor reports: what is there, what arrives, and what an attacker
// put into it as the text that it is.
func TestNetnsPage(t *testing.T) {
	nettest.Need(t, "chromium")
	address := freePort(t)
	l := startAt(t, address)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	s := newReporter(t, l)
	s.poll(map[string]int{"1": 0, "2": 0, "3": 2})
	s.report(attacks()...)

	url := "http://" + address + "/"
	arguments := append(browser.Arguments(t.TempDir()), "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
	page, err := browser.Open(ctx, exec.Command("chromium", arguments...), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := page.Close(); err != nil {
			t.Errorf("close the browser: %v", err)
		}
	}()
	shows := func(texts ...string) {
		t.Helper()
		if err := page.Wait(ctx, texts...); err != nil {
			t.Fatal(err)
		}
	}
	shows("live", "1 office", "running", "recon: running", "cowrie: running", "dionaea: error", "192.0.2.20", "Scan", "SSH: root / 123456")
	picture(ctx, t, page)
	s.report(event.Event{Service: event.ServiceRecon, Source: "192.0.2.66", Summary: markup, Packets: []event.Packet{packet(event.ProtocolTCP, 8888, markup)}})
	shows("192.0.2.66", "TCP 8888 <img src=x onerror")

	for expression, want := range map[string]string{
		"document.title": "HoneySens development server",
		"document.querySelectorAll('#line rect').length > 0":   "true",
		"document.querySelectorAll('img, script[src]').length": "0",
		"document.querySelectorAll('#events tr').length":       fmt.Sprint(len(attacks()) + 1),
	} {
		if got, err := page.Text(ctx, expression); err != nil || got != want {
			t.Errorf("%s is %q, %v, want %q", expression, got, err, want)
		}
	}
	for _, request := range page.Requests() {
		if !strings.HasPrefix(request, url) {
			t.Errorf("the page asked for %s", request)
		}
	}
	for _, complaint := range page.Errors() {
		// Browsers ask for an icon, which there is none of.
		if !strings.Contains(complaint, "favicon.ico") {
			t.Errorf("the browser complains: %s", complaint)
		}
	}
}

// picture leaves one of the page in out/page.png.
func picture(ctx context.Context, t *testing.T, page *browser.Page) {
	t.Helper()
	png, err := page.Screenshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join("..", "..", "..", "out")
	if err := os.MkdirAll(out, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(out, "page.png"), png, 0o644); err != nil {
		t.Fatal(err)
	}
}

// attacks are what sensors report.
func attacks() []event.Event {
	login := "SSH: root / 123456"
	return []event.Event{
		{Service: event.ServiceRecon, Source: "198.51.100.23", Summary: "Einzelverbindung", Packets: []event.Packet{packet(event.ProtocolTCP, 8080, "GET / HTTP/1.1\r\n")}},
		{Service: event.ServiceRecon, Source: "198.51.100.23", Summary: "Einzelverbindung", Packets: []event.Packet{packet(event.ProtocolUDP, 161, "public")}},
		{Service: event.ServiceGeneric, Source: "203.0.113.7", Summary: "SSH login", Details: []event.Detail{{Type: 1, Data: login}}},
		{Service: event.ServiceRecon, Source: "2001:db8::66", Summary: "Einzelverbindung", Packets: []event.Packet{packet(event.ProtocolTCP, 3306, "hello")}},
		{Service: event.ServiceRecon, Source: "203.0.113.99", Summary: event.SummaryScan, Packets: scan()},
	}
}

func scan() (packets []event.Packet) {
	for _, port := range []int{21, 22, 23, 25, 80, 110, 143, 443, 445, 3389} {
		packets = append(packets, packet(event.ProtocolTCP, port, ""))
	}
	return packets
}

func packet(protocol, port int, payload string) event.Packet {
	text := base64.StdEncoding.EncodeToString([]byte(payload))
	return event.Packet{Protocol: protocol, Port: port, Payload: &text, Headers: []map[string]any{{"flags": 2}}}
}

// startAt starts a server whose administration is at a TCP address, too.
func startAt(t *testing.T, address string) *lab {
	t.Helper()
	l := &lab{data: t.TempDir(), sensors: freePort(t)}
	l.admin = admin.New(address)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() {
		done <- app().RunContext(ctx, []string{"server", "--data", l.data, "--name", "hs.lab", "--listen", l.sensors, "--admin", address, "--log-level", "error"})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("server ended with %v", err)
		}
	})
	ready, cancelReady := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancelReady()
	if err := l.admin.Wait(ready); err != nil {
		t.Fatal(err)
	}
	return l
}

// reporter is a sensor that says what the test wants.
type reporter struct {
	t      *testing.T
	l      *lab
	sensor admin.Sensor
	client *http.Client
}

func newReporter(t *testing.T, l *lab) *reporter {
	t.Helper()
	sensor, err := l.admin.Register(t.Context(), admin.NewSensor{Name: "office"})
	if err != nil {
		t.Fatal(err)
	}
	for _, label := range []string{"recon", "cowrie", "dionaea"} {
		service, err := l.admin.DefineService(t.Context(), admin.Service{Label: label, Repository: "honeysens/" + label, Revisions: []admin.Revision{
			{Revision: "1.0", Architecture: "amd64", PortAssignment: "{}", URI: "honeysens/" + label + ":amd64-1.0"},
		}})
		if err != nil {
			t.Fatal(err)
		}
		if err := l.admin.Assign(t.Context(), sensor.ID, admin.Assignment{Service: service.ID}); err != nil {
			t.Fatal(err)
		}
	}
	return &reporter{t: t, l: l, sensor: sensor, client: l.client(t, sensor.ID)}
}

func (r *reporter) poll(services map[string]int) {
	r.t.Helper()
	r.send("status", "status", map[string]any{
		"timestamp": time.Now().Unix(), "status": 1, "ip": "192.0.2.20", "free_mem": 1742, "disk_usage": 8120, "disk_total": 39940,
		"sw_version": "3.0.0", "service_status": services,
	})
}

func (r *reporter) report(events ...event.Event) {
	r.t.Helper()
	for i := range events {
		events[i].Timestamp = time.Now().Unix()
		if events[i].Details == nil {
			events[i].Details = []event.Detail{}
		}
		if events[i].Packets == nil {
			events[i].Packets = []event.Packet{}
		}
	}
	r.send("events", "events", events)
}

// send posts as a sensor does: base64 of JSON, with a MAC over the time, the word
// for the method and the body.
func (r *reporter) send(what, key string, value any) {
	r.t.Helper()
	inner, err := json.Marshal(value)
	if err != nil {
		r.t.Fatal(err)
	}
	body, err := json.Marshal(map[string]string{key: base64.StdEncoding.EncodeToString(inner)})
	if err != nil {
		r.t.Fatal(err)
	}
	path := map[string]string{"status": "/api/sensors/status", "events": "/api/events"}[what]
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodPost, "https://"+r.l.sensors+path, bytes.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	ts := strconv.FormatInt(time.Now().Unix(), 10)
	mac := hmac.New(sha256.New, []byte(r.sensor.Secret))
	fmt.Fprintf(mac, "%s create %s", ts, body)
	for name, value := range map[string]string{
		"X-HS-Type": "sha256", "X-HS-Sensor": fmt.Sprint(r.sensor.ID), "X-HS-TS": ts, "X-HS-Auth": hex.EncodeToString(mac.Sum(nil)),
	} {
		req.Header.Set(name, value)
	}
	resp, err := r.client.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		r.t.Fatalf("%s: %s", what, resp.Status)
	}
}
