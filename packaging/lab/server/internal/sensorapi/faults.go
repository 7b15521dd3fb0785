package sensorapi

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"honeysens.org/dockersensor/packaging/lab/admin"
	"honeysens.org/dockersensor/shared/event"
)

// faults are what goes wrong on purpose, in the order in which it was asked for.
type faults struct {
	mu   sync.Mutex
	list []admin.Fault
}

// AddFault makes something go wrong from now on.
func (a *API) AddFault(f admin.Fault) {
	a.faults.mu.Lock()
	defer a.faults.mu.Unlock()
	a.faults.list = append(a.faults.list, f)
}

// Faults returns those in force.
func (a *API) Faults() []admin.Fault {
	a.faults.mu.Lock()
	defer a.faults.mu.Unlock()
	return slices.Clone(a.faults.list)
}

// ClearFaults ends all faults.
func (a *API) ClearFaults() {
	a.faults.mu.Lock()
	defer a.faults.mu.Unlock()
	a.faults.list = nil
}

// struck is the fault of one request; its zero value is none.
type struck admin.Fault

// strike takes the first fault that fits a request.
func (f *faults) strike(path, sensor string) struck {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, fault := range f.list {
		if fault.Kind == admin.FaultPoison || (fault.Path != admin.PathAny && fault.Path != path) || (fault.Sensor != 0 && strconv.Itoa(fault.Sensor) != sensor) {
			continue
		}
		switch fault.Count {
		case 0:
		case 1:
			f.list = slices.Delete(f.list, i, i+1)
		default:
			f.list[i].Count--
		}
		return struck(fault)
	}
	return struck{}
}

// poisoned tells whether an event of a batch is one that must be refused.
func (f *faults) poisoned(batch []event.Event) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.ContainsFunc(f.list, func(fault admin.Fault) bool {
		return fault.Kind == admin.FaultPoison && slices.ContainsFunc(batch, func(e event.Event) bool { return e.Summary == fault.Text })
	})
}

// before does what happens instead of an answer, and tells whether it did.
func (s struck) before(w http.ResponseWriter) bool {
	switch s.Kind {
	case admin.FaultDrop:
		panic(http.ErrAbortHandler)
	case admin.FaultDelay:
		time.Sleep(time.Duration(s.DelayMS) * time.Millisecond)
		return false
	case admin.FaultGarbage:
		w.Header().Set("Content-Type", "text/html; charset=UTF-8")
		_, _ = w.Write([]byte("<html>Under maintenance</html>"))
		return true
	}
	status, err := strconv.Atoi(s.Kind)
	if err != nil {
		return false
	}
	w.Header().Set("Content-Type", "text/html; charset=UTF-8")
	w.WriteHeader(status)
	if status < http.StatusInternalServerError {
		_, _ = w.Write(codeZero)
	}
	return true
}

// spoil does what happens to an answer.
func (s struck) spoil(w http.ResponseWriter) http.ResponseWriter {
	switch s.Kind {
	case admin.FaultAfter, admin.FaultCut, admin.FaultWrongMAC, admin.FaultNoMAC:
		return &spoiler{ResponseWriter: w, kind: s.Kind}
	}
	return w
}

type spoiler struct {
	http.ResponseWriter
	kind string
}

func (s *spoiler) WriteHeader(status int) {
	h := s.Header()
	switch s.kind {
	case admin.FaultAfter:
		panic(http.ErrAbortHandler)
	case admin.FaultWrongMAC:
		h.Set("x-hs-auth", strings.Repeat("0", 64))
	case admin.FaultNoMAC:
		for _, name := range []string{"x-hs-auth", "x-hs-type", "x-hs-ts"} {
			h.Del(name)
		}
	}
	s.ResponseWriter.WriteHeader(status)
}

func (s *spoiler) Write(data []byte) (int, error) {
	if s.kind == admin.FaultCut {
		_, _ = s.ResponseWriter.Write(data[:len(data)/2])
		_ = http.NewResponseController(s.ResponseWriter).Flush()
		panic(http.ErrAbortHandler)
	}
	return s.ResponseWriter.Write(data)
}

// Unwrap is for http.ResponseController.
func (s *spoiler) Unwrap() http.ResponseWriter { return s.ResponseWriter }
