package adminapi

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"

	"go.uber.org/zap"

	"honeysens.org/dockersensor/packaging/lab/admin"
	"honeysens.org/dockersensor/packaging/lab/server/internal/pki"
	"honeysens.org/dockersensor/packaging/lab/server/internal/state"
	"honeysens.org/dockersensor/packaging/lab/server/internal/wanted"
)

const (
	// maxJSON bounds a request that is no archive, in bytes.
	maxJSON = 4 << 20
	// maxWait bounds how long a request for events is held.
	maxWait = time.Minute
)

//go:embed page.html
var page []byte

// Faults makes things go wrong.
type Faults interface {
	AddFault(admin.Fault)
	Faults() []admin.Fault
	ClearFaults()
}

// API is the administration.
type API struct {
	server   wanted.Server
	registry string
	store    *state.Store
	certs    *pki.Store
	faults   Faults
	log      *zap.Logger
}

// New returns the administration. registry is host:port of the registry that
// images go to; "" for none.
func New(server wanted.Server, registry string, store *state.Store, certs *pki.Store, faults Faults, log *zap.Logger) *API {
	return &API{server: server, registry: registry, store: store, certs: certs, faults: faults, log: log}
}

// handler returns what to answer as JSON: a value, nil, or an error.
type handler func(r *http.Request) (any, error)

// blob is an answer that is no JSON.
type blob struct {
	name, kind string
	data       []byte
}

// errBad is a request that makes no sense.
var errBad = errors.New("bad request")

// Handler is the API and the page.
func (a *API) Handler() http.Handler {
	mux := http.NewServeMux()
	for pattern, h := range map[string]handler{
		"GET /{$}":                                    a.page,
		"GET /api/health":                             a.health,
		"GET /api/sensors":                            a.sensors,
		"POST /api/sensors":                           a.register,
		"GET /api/sensors/{id}":                       a.sensor,
		"DELETE /api/sensors/{id}":                    a.deleteSensor,
		"PATCH /api/sensors/{id}":                     a.want,
		"DELETE /api/sensors/{id}/wanted":             a.wantDefaults,
		"GET /api/sensors/{id}/archive":               a.archive,
		"PUT /api/sensors/{id}/services/{service}":    a.assign,
		"DELETE /api/sensors/{id}/services/{service}": a.unassign,
		"PUT /api/sensors/{id}/firmware/{firmware}":   a.wantFirmware,
		"DELETE /api/sensors/{id}/firmware":           a.wantNoFirmware,
		"GET /api/services":                           a.services,
		"POST /api/services":                          a.uploadService,
		"POST /api/services/define":                   a.defineService,
		"GET /api/firmware":                           a.firmware,
		"POST /api/firmware":                          a.uploadFirmware,
		"GET /api/events":                             a.events,
		"DELETE /api/events":                          a.clearEvents,
		"GET /api/faults":                             a.listFaults,
		"POST /api/faults":                            a.addFault,
		"DELETE /api/faults":                          a.clearFaults,
		"POST /api/certificate":                       a.renewCertificate,
		"POST /api/certificate/serve":                 a.serveCertificate,
	} {
		mux.HandleFunc(pattern, a.serve(h))
	}
	return mux
}

func (a *API) serve(h handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		value, err := h(r)
		if err != nil {
			status := statusOf(err)
			a.log.Info("administration refused", zap.String("path", r.URL.Path), zap.Int("status", status), zap.Error(err))
			a.write(w, status, map[string]string{"error": err.Error()})
			return
		}
		if b, ok := value.(blob); ok {
			w.Header().Set("Content-Type", b.kind)
			if b.name != "" {
				w.Header().Set("Content-Disposition", "attachment; filename="+b.name)
			}
			_, _ = w.Write(b.data)
			return
		}
		if value == nil {
			value = struct{}{}
		}
		a.write(w, http.StatusOK, value)
	}
}

func statusOf(err error) int {
	switch {
	case errors.Is(err, state.ErrNotFound):
		return http.StatusNotFound
	case errors.Is(err, state.ErrConflict):
		return http.StatusConflict
	case errors.Is(err, errBad):
		return http.StatusBadRequest
	}
	return http.StatusInternalServerError
}

func (a *API) write(w http.ResponseWriter, status int, value any) {
	text, err := json.Marshal(value)
	if err != nil {
		a.log.Error("answer cannot be encoded", zap.Error(err))
		status, text = http.StatusInternalServerError, []byte(`{"error": "answer cannot be encoded"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(text, '\n'))
}

// read decodes a request strictly.
func read[T any](r *http.Request) (T, error) {
	var value T
	dec := json.NewDecoder(io.LimitReader(r.Body, maxJSON))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&value); err != nil {
		return value, fmt.Errorf("%w: %w", errBad, err)
	}
	return value, nil
}

func number(r *http.Request, name string) (int, error) {
	n, err := strconv.Atoi(r.PathValue(name))
	if err != nil {
		return 0, fmt.Errorf("%w: %s is no number", errBad, name)
	}
	return n, nil
}

func (a *API) page(*http.Request) (any, error) {
	return blob{kind: "text/html; charset=utf-8", data: page}, nil
}

func (a *API) health(*http.Request) (any, error) {
	return map[string]string{"status": "ok"}, nil
}

func (a *API) events(r *http.Request) (any, error) {
	query := r.URL.Query()
	since, err := strconv.ParseInt(defaulted(query.Get("since"), "0"), 10, 64)
	if err != nil {
		return nil, fmt.Errorf("%w: since: %w", errBad, err)
	}
	limit, err := strconv.Atoi(defaulted(query.Get("limit"), "0"))
	if err != nil {
		return nil, fmt.Errorf("%w: limit: %w", errBad, err)
	}
	wait, err := time.ParseDuration(defaulted(query.Get("wait"), "0s"))
	if err != nil {
		return nil, fmt.Errorf("%w: wait: %w", errBad, err)
	}
	ctx, cancel := context.WithTimeout(r.Context(), min(wait, maxWait))
	defer cancel()
	return a.store.WaitEvents(ctx, since, limit), nil
}

func defaulted(text, value string) string {
	if text == "" {
		return value
	}
	return text
}

func (a *API) clearEvents(*http.Request) (any, error) { return nil, a.store.ClearEvents() }

func (a *API) listFaults(*http.Request) (any, error) { return a.faults.Faults(), nil }

func (a *API) addFault(r *http.Request) (any, error) {
	fault, err := read[admin.Fault](r)
	if err != nil {
		return nil, err
	}
	paths := []string{admin.PathPoll, admin.PathEvents, admin.PathFirmware, admin.PathRegistry, admin.PathAny}
	kinds := []string{
		admin.FaultUnavailable, admin.FaultError, admin.FaultRejected, admin.FaultForbidden, admin.FaultDrop, admin.FaultCut,
		admin.FaultAfter, admin.FaultWrongMAC, admin.FaultNoMAC, admin.FaultGarbage, admin.FaultDelay, admin.FaultPoison,
	}
	if !slices.Contains(paths, fault.Path) || !slices.Contains(kinds, fault.Kind) {
		return nil, fmt.Errorf("%w: path is one of %v, kind one of %v", errBad, paths, kinds)
	}
	a.faults.AddFault(fault)
	return nil, nil
}

func (a *API) clearFaults(*http.Request) (any, error) {
	a.faults.ClearFaults()
	return nil, nil
}

func (a *API) renewCertificate(r *http.Request) (any, error) {
	in, err := read[struct {
		NewAuthority bool `json:"newAuthority"`
	}](r)
	if err != nil {
		return nil, err
	}
	if err := a.certs.Renew(in.NewAuthority); err != nil {
		return nil, err
	}
	return a.fingerprints(), nil
}

func (a *API) serveCertificate(*http.Request) (any, error) {
	if err := a.certs.Serve(); err != nil {
		return nil, err
	}
	return a.fingerprints(), nil
}

func (a *API) fingerprints() admin.Certificate {
	serving, announced := a.certs.Fingerprints()
	return admin.Certificate{Serving: serving, Announced: announced}
}
