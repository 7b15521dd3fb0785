package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

// maxAnswer bounds an answer, in bytes.
const maxAnswer = 256 << 20

// Client speaks to the development server.
type Client struct {
	base string
	http *http.Client
}

// New returns a client for "host:port" or "unix:/path/of/a/socket".
func New(addr string) *Client {
	transport := &http.Transport{}
	base := "http://" + addr
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		base = "http://lab"
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			var dialer net.Dialer
			return dialer.DialContext(ctx, "unix", path)
		}
	}
	return &Client{base: base, http: &http.Client{Transport: transport}}
}

// Error is an answer of the server that is no success.
type Error struct {
	Status int    `json:"-"`
	Text   string `json:"error"`
}

func (e *Error) Error() string {
	return fmt.Sprintf("server answers %d: %s", e.Status, e.Text)
}

// do makes one request; body is JSON unless it is an io.Reader.
func (c *Client) do(ctx context.Context, method, path string, body, answer any) error {
	var reader io.Reader
	switch b := body.(type) {
	case nil:
	case io.Reader:
		reader = b
	default:
		text, err := json.Marshal(b)
		if err != nil {
			return fmt.Errorf("%s %s: %w", method, path, err)
		}
		reader = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, reader)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	if err := decode(resp.StatusCode, text, answer); err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	return nil
}

func decode(status int, text []byte, answer any) error {
	if status/100 != 2 {
		e := &Error{Status: status}
		if json.Unmarshal(text, e) != nil {
			e.Text = string(text[:min(len(text), 200)])
		}
		return e
	}
	switch a := answer.(type) {
	case nil:
		return nil
	case *[]byte:
		*a = text
		return nil
	}
	return json.Unmarshal(text, answer)
}

// call is do with an answer.
func call[T any](ctx context.Context, c *Client, method, path string, body any) (T, error) {
	var answer T
	err := c.do(ctx, method, path, body, &answer)
	return answer, err
}

// Wait waits until the server answers.
func (c *Client) Wait(ctx context.Context) error {
	for {
		err := c.do(ctx, http.MethodGet, "/api/health", nil, nil)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("development server is not there: %w", err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Register makes a sensor.
func (c *Client) Register(ctx context.Context, s NewSensor) (Sensor, error) {
	return call[Sensor](ctx, c, http.MethodPost, "/api/sensors", s)
}

// Sensors lists all sensors.
func (c *Client) Sensors(ctx context.Context) ([]Sensor, error) {
	return call[[]Sensor](ctx, c, http.MethodGet, "/api/sensors", nil)
}

// Sensor returns one sensor.
func (c *Client) Sensor(ctx context.Context, id int) (Sensor, error) {
	return call[Sensor](ctx, c, http.MethodGet, sensorPath(id, ""), nil)
}

// WaitSensor waits until a sensor is as wanted.
func (c *Client) WaitSensor(ctx context.Context, id int, wanted func(Sensor) bool) (Sensor, error) {
	for {
		sensor, err := c.Sensor(ctx, id)
		if err != nil || wanted(sensor) {
			return sensor, err
		}
		select {
		case <-ctx.Done():
			return sensor, fmt.Errorf("wait for sensor %d: %w", id, ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// Delete removes a sensor.
func (c *Client) Delete(ctx context.Context, id int) error {
	return c.do(ctx, http.MethodDelete, sensorPath(id, ""), nil, nil)
}

// Want sets values of a sensor's poll answer, verbatim.
func (c *Client) Want(ctx context.Context, id int, values map[string]any) error {
	return c.do(ctx, http.MethodPatch, sensorPath(id, ""), values, nil)
}

// WantDefaults takes back what Want and Register have set.
func (c *Client) WantDefaults(ctx context.Context, id int) error {
	return c.do(ctx, http.MethodDelete, sensorPath(id, "/wanted"), nil, nil)
}

// Archive returns the configuration archive of a sensor, to be named
// s<id>.tar.gz.
func (c *Client) Archive(ctx context.Context, id int) ([]byte, error) {
	return call[[]byte](ctx, c, http.MethodGet, sensorPath(id, "/archive"), nil)
}

// Assign makes a sensor run a service.
func (c *Client) Assign(ctx context.Context, id int, a Assignment) error {
	return c.do(ctx, http.MethodPut, sensorPath(id, "/services/"+strconv.Itoa(a.Service)), a, nil)
}

// Unassign takes a service from a sensor.
func (c *Client) Unassign(ctx context.Context, id, service int) error {
	return c.do(ctx, http.MethodDelete, sensorPath(id, "/services/"+strconv.Itoa(service)), nil, nil)
}

// Services lists all services.
func (c *Client) Services(ctx context.Context) ([]Service, error) {
	return call[[]Service](ctx, c, http.MethodGet, "/api/services", nil)
}

// UploadService offers the service of an archive.
func (c *Client) UploadService(ctx context.Context, path string) (Service, error) {
	return upload[Service](ctx, c, "/api/services", path)
}

// DefineService offers a service whose image is in the registry already, or is
// not at all.
func (c *Client) DefineService(ctx context.Context, s Service) (Service, error) {
	return call[Service](ctx, c, http.MethodPost, "/api/services/define", s)
}

// Firmware lists all firmware.
func (c *Client) Firmware(ctx context.Context) ([]Firmware, error) {
	return call[[]Firmware](ctx, c, http.MethodGet, "/api/firmware", nil)
}

// UploadFirmware offers the firmware of an archive.
func (c *Client) UploadFirmware(ctx context.Context, path string) (Firmware, error) {
	return upload[Firmware](ctx, c, "/api/firmware", path)
}

func upload[T any](ctx context.Context, c *Client, to, path string) (T, error) {
	file, err := os.Open(path)
	if err != nil {
		var none T
		return none, err
	}
	defer func() { _ = file.Close() }()
	return call[T](ctx, c, http.MethodPost, to, file)
}

// WantFirmware says which firmware a sensor should have; 0 for none.
func (c *Client) WantFirmware(ctx context.Context, id, firmware int) error {
	if firmware == 0 {
		return c.do(ctx, http.MethodDelete, sensorPath(id, "/firmware"), nil, nil)
	}
	return c.do(ctx, http.MethodPut, sensorPath(id, "/firmware/"+strconv.Itoa(firmware)), nil, nil)
}

// Events returns events with an id above since. It waits up to wait for the
// first.
func (c *Client) Events(ctx context.Context, since int64, wait time.Duration) ([]Event, error) {
	query := url.Values{"since": {strconv.FormatInt(since, 10)}, "wait": {wait.String()}}
	return call[[]Event](ctx, c, http.MethodGet, "/api/events?"+query.Encode(), nil)
}

// WaitEvent waits for an event with an id above since that is as wanted.
func (c *Client) WaitEvent(ctx context.Context, since int64, wanted func(Event) bool) (Event, error) {
	for {
		events, err := c.Events(ctx, since, 5*time.Second)
		if err != nil {
			return Event{}, err
		}
		for _, e := range events {
			if since = max(since, e.ID); wanted(e) {
				return e, nil
			}
		}
		if err := ctx.Err(); err != nil {
			return Event{}, fmt.Errorf("wait for an event: %w", err)
		}
	}
}

// ClearEvents forgets all events. Ids go on.
func (c *Client) ClearEvents(ctx context.Context) error {
	return c.do(ctx, http.MethodDelete, "/api/events", nil, nil)
}

// AddFault makes something go wrong.
func (c *Client) AddFault(ctx context.Context, f Fault) error {
	return c.do(ctx, http.MethodPost, "/api/faults", f, nil)
}

// ClearFaults ends all faults.
func (c *Client) ClearFaults(ctx context.Context) error {
	return c.do(ctx, http.MethodDelete, "/api/faults", nil, nil)
}

// RenewCertificate makes the server announce another certificate, while it
// serves the old one, and returns both fingerprints.
func (c *Client) RenewCertificate(ctx context.Context, newAuthority bool) (Certificate, error) {
	return call[Certificate](ctx, c, http.MethodPost, "/api/certificate", map[string]bool{"newAuthority": newAuthority})
}

// ServeCertificate makes the server use the certificate that it announces.
func (c *Client) ServeCertificate(ctx context.Context) (Certificate, error) {
	return call[Certificate](ctx, c, http.MethodPost, "/api/certificate/serve", nil)
}

func sensorPath(id int, rest string) string {
	return "/api/sensors/" + strconv.Itoa(id) + rest
}
