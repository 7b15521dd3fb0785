package sensorapi

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"honeysens.org/dockersensor/packaging/lab/admin"
	"honeysens.org/dockersensor/packaging/lab/server/internal/state"
	"honeysens.org/dockersensor/packaging/lab/server/internal/wanted"
	"honeysens.org/dockersensor/packaging/lab/server/internal/wire"
)

// maxBody is where the server runs out of memory, in bytes.
const maxBody = 32 << 20

// Certificates is what the API must know of the server's own.
type Certificates interface {
	// Chain is what is announced to the sensors, in PEM.
	Chain() string
}

// Config says who the server is.
type Config struct {
	Server wanted.Server
	// Registry is the base URL of the Docker registry; nil for none.
	Registry *url.URL
	// Now is the server's clock; time.Now when nil.
	Now func() time.Time
}

// API serves the sensors.
type API struct {
	cfg    Config
	store  *state.Store
	certs  Certificates
	log    *zap.Logger
	now    func() time.Time
	proxy  http.Handler
	faults faults
}

// New returns the API over a state.
func New(cfg Config, store *state.Store, certs Certificates, log *zap.Logger) *API {
	a := &API{cfg: cfg, store: store, certs: certs, log: log, now: cfg.Now}
	if a.now == nil {
		a.now = time.Now
	}
	if cfg.Registry != nil {
		a.proxy = &httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) { p.SetURL(cfg.Registry) }, ErrorLog: zap.NewStdLog(log)}
	}
	return a
}

// answer is what a call has made of a request.
type answer struct {
	status int
	body   []byte
	// sensor signs the answer when it is there.
	sensor *admin.Sensor
}

var (
	codeZero = []byte(`{"code":0}`)
	invalid  = answer{status: http.StatusBadRequest, body: codeZero}
)

// ServeHTTP implements http.Handler.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	common(w.Header())
	path := kind(r)
	fault := a.faults.strike(path, r.Header.Get("X-HS-Sensor"))
	if fault.before(w) {
		return
	}
	w = fault.spoil(w)
	if path == admin.PathRegistry {
		a.registry(w, r)
		return
	}
	private(w.Header(), a.now())
	body, err := readBody(r)
	if err != nil {
		// More than the server can hold.
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	switch path {
	case admin.PathPoll:
		a.reply(w, r, a.call(r, body, a.poll))
	case admin.PathEvents:
		a.reply(w, r, a.call(r, body, a.events))
	case admin.PathFirmware:
		a.firmware(w, r, body)
	default:
		a.reply(w, r, failure("Unable to find a route for the request"))
	}
}

// kind sorts a request by route and method.
func kind(r *http.Request) string {
	path := r.URL.Path
	switch {
	case path == "/api/sensors/status" && r.Method == http.MethodPost:
		return admin.PathPoll
	case path == "/api/events" && r.Method == http.MethodPost:
		return admin.PathEvents
	case strings.HasPrefix(path, "/api/platforms/firmware/") && strings.HasSuffix(path, "/raw") && r.Method == http.MethodGet:
		return admin.PathFirmware
	case path == "/v2" || strings.HasPrefix(path, "/v2/"):
		return admin.PathRegistry
	}
	return ""
}

// readBody returns what the server takes for the body: nothing of a form, and a
// compressed one as it is, so that its MAC is wrong.
func readBody(r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if err != nil {
		return nil, err
	}
	if len(body) > maxBody {
		return nil, errors.New("body is too big")
	}
	media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if media == "multipart/form-data" {
		return nil, nil
	}
	if encoding := r.Header.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		return []byte("compressed"), nil
	}
	return body, nil
}

// call authenticates a request and counts what is refused.
func (a *API) call(r *http.Request, body []byte, do func(admin.Sensor, []byte) answer) answer {
	sensor, status := a.authenticate(r, body)
	out := answer{status: status, body: codeZero}
	if status == http.StatusOK {
		out = do(sensor, body)
	}
	if out.status/100 != 2 && sensor.ID != 0 {
		a.log.Info("request refused", zap.Int("sensor", sensor.ID), zap.String("path", r.URL.Path), zap.Int("status", out.status), zap.ByteString("answer", out.body))
		a.count(sensor.ID, func(s *admin.Sensor) { s.Refused++ })
	}
	return out
}

// count edits a counter of a sensor, which may have gone meanwhile.
func (a *API) count(id int, edit func(*admin.Sensor)) {
	err := a.store.Note(id, func(s *admin.Sensor) error {
		edit(s)
		return nil
	})
	if err != nil {
		a.log.Debug("sensor is gone", zap.Int("sensor", id))
	}
}

// refusal turns an error of package wire into an answer.
func (a *API) refusal(err error) answer {
	var store *wire.StoreError
	switch {
	case errors.Is(err, wire.ErrInvalid):
		a.log.Info("validation failed", zap.Error(err))
		return invalid
	case errors.As(err, &store) && store.Text == "":
		return answer{status: http.StatusInternalServerError}
	}
	return failure(err.Error())
}

// failure is a 500 as an exception of the server makes it.
func failure(text string) answer {
	body, err := wire.Encode(map[string]string{"error": text})
	if err != nil {
		body = []byte(`{"error":""}`)
	}
	return answer{status: http.StatusInternalServerError, body: body}
}

func (a *API) reply(w http.ResponseWriter, r *http.Request, out answer) {
	if out.sensor != nil {
		sign(w.Header(), a.now(), out.sensor.Secret, r.Method, out.body)
	}
	body := out.body
	if out.status == http.StatusOK && len(body) > 0 {
		w.Header().Set("Vary", "Accept-Encoding")
		if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
			w.Header().Set("Content-Encoding", "gzip")
			body = compressed(body)
		}
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(out.status)
	if _, err := w.Write(body); err != nil {
		a.log.Debug("answer not sent", zap.Error(err))
	}
}

func compressed(body []byte) []byte {
	var out bytes.Buffer
	zip := gzip.NewWriter(&out)
	// A buffer takes everything.
	_, _ = zip.Write(body)
	_ = zip.Close()
	return out.Bytes()
}

// common are the headers of every answer.
func common(h http.Header) {
	h.Set("Server", "Apache")
	h.Set("Strict-Transport-Security", "max-age=63072000; includeSubDomains")
	h.Set("Content-Security-Policy", "frame-ancestors none;")
}

// private are those of every answer but the registry's. The content is JSON, and
// is called something else.
func private(h http.Header, now time.Time) {
	h.Set("Date", now.UTC().Format(http.TimeFormat))
	h.Set("Set-Cookie", "PHPSESSID=lab; path=/; secure")
	h.Set("Expires", "Thu, 19 Nov 1981 08:52:00 GMT")
	h.Set("Cache-Control", "no-store")
	h.Set("Pragma", "no-cache")
	h.Set("Content-Type", "text/html; charset=UTF-8")
}

// registry lets reads through.
func (a *API) registry(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		http.Error(w, "Forbidden", http.StatusForbidden)
		return
	}
	if a.proxy == nil {
		http.Error(w, "Service Unavailable", http.StatusServiceUnavailable)
		return
	}
	a.proxy.ServeHTTP(w, r)
}
