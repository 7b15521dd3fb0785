package adminapi

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"

	"honeysens.org/dockersensor/packaging/lab/admin"
	"honeysens.org/dockersensor/packaging/lab/server/internal/confarchive"
	"honeysens.org/dockersensor/packaging/lab/server/internal/state"
)

func (a *API) sensors(*http.Request) (any, error) { return a.store.Sensors(), nil }

func (a *API) register(r *http.Request) (any, error) {
	in, err := read[admin.NewSensor](r)
	if err != nil {
		return nil, err
	}
	key := make([]byte, 32)
	// crypto/rand never fails.
	_, _ = rand.Read(key)
	return a.store.AddSensor(admin.Sensor{Name: in.Name, Location: in.Location, Wanted: in.Wanted, Secret: hex.EncodeToString(key)})
}

func (a *API) sensor(r *http.Request) (any, error) {
	id, err := number(r, "id")
	if err != nil {
		return nil, err
	}
	return a.store.Sensor(id)
}

func (a *API) deleteSensor(r *http.Request) (any, error) {
	id, err := number(r, "id")
	if err != nil {
		return nil, err
	}
	return nil, a.store.DeleteSensor(id)
}

// change edits what is wanted of the sensor that a request names.
func (a *API) change(r *http.Request, edit func(*admin.Sensor) error) (any, error) {
	id, err := number(r, "id")
	if err != nil {
		return nil, err
	}
	return nil, a.store.Change(id, edit)
}

func (a *API) want(r *http.Request) (any, error) {
	values, err := read[map[string]json.RawMessage](r)
	if err != nil {
		return nil, err
	}
	return a.change(r, func(s *admin.Sensor) error {
		if s.Wanted == nil {
			s.Wanted = map[string]json.RawMessage{}
		}
		maps.Copy(s.Wanted, values)
		return nil
	})
}

func (a *API) wantDefaults(r *http.Request) (any, error) {
	return a.change(r, func(s *admin.Sensor) error {
		s.Wanted = nil
		return nil
	})
}

func (a *API) archive(r *http.Request) (any, error) {
	id, err := number(r, "id")
	if err != nil {
		return nil, err
	}
	sensor, err := a.store.Sensor(id)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := confarchive.Write(&out, a.server, sensor, a.certs.Chain()); err != nil {
		return nil, err
	}
	return blob{name: fmt.Sprintf("s%d.tar.gz", id), kind: "application/gzip", data: out.Bytes()}, nil
}

func (a *API) assign(r *http.Request) (any, error) {
	assignment, err := read[admin.Assignment](r)
	if err != nil {
		return nil, err
	}
	if assignment.Service, err = number(r, "service"); err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(a.store.Services(), func(s admin.Service) bool { return s.ID == assignment.Service }) {
		return nil, fmt.Errorf("service %d: %w", assignment.Service, state.ErrNotFound)
	}
	return a.change(r, func(s *admin.Sensor) error {
		s.Services = slices.DeleteFunc(s.Services, func(x admin.Assignment) bool { return x.Service == assignment.Service })
		s.Services = append(s.Services, assignment)
		slices.SortFunc(s.Services, func(x, y admin.Assignment) int { return x.Service - y.Service })
		return nil
	})
}

func (a *API) unassign(r *http.Request) (any, error) {
	service, err := number(r, "service")
	if err != nil {
		return nil, err
	}
	return a.change(r, func(s *admin.Sensor) error {
		s.Services = slices.DeleteFunc(s.Services, func(x admin.Assignment) bool { return x.Service == service })
		return nil
	})
}

func (a *API) wantFirmware(r *http.Request) (any, error) {
	firmware, err := number(r, "firmware")
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(a.store.Firmware(), func(f admin.Firmware) bool { return f.ID == firmware }) {
		return nil, fmt.Errorf("firmware %d: %w", firmware, state.ErrNotFound)
	}
	return a.change(r, func(s *admin.Sensor) error {
		s.Firmware = firmware
		return nil
	})
}

func (a *API) wantNoFirmware(r *http.Request) (any, error) {
	return a.change(r, func(s *admin.Sensor) error {
		s.Firmware = 0
		return nil
	})
}
