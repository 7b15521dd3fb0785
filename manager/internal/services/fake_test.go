package services

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"honeysens.org/dockersensor/shared/helperapi"
)

// world is an engine, a registry and a helper that only remember. It writes down
// what was done, in order.
type world struct {
	mu     sync.Mutex
	deeds  []string
	number int

	containers map[string]*Container
	names      map[string]string
	specs      map[string]Spec
	engineErr  error
	sandboxErr error
	// attempts counts the sandboxes that were asked for.
	attempts int
	// faults are errors for the calls of the engine to come, by number.
	calls  int
	faults map[int]error

	// mute are the images whose honeypots wait at no port.
	mute       map[string]bool
	unaccepted map[waiting]bool
	usage      map[string]Usage

	images   map[string]string
	registry map[string]error
	// slow images arrive when their channel is closed.
	slow map[string]chan struct{}

	network  []helperapi.Service
	applied  bool
	gateway  netip.Addr
	refuse   map[string]error
	applyErr error
}

func newWorld() *world {
	return &world{
		containers: map[string]*Container{}, names: map[string]string{}, specs: map[string]Spec{},
		images: map[string]string{}, registry: map[string]error{}, slow: map[string]chan struct{}{},
		mute:    map[string]bool{},
		gateway: netip.MustParseAddr("10.10.10.1"), refuse: map[string]error{}, faults: map[int]error{},
	}
}

func (w *world) did(format string, args ...any) {
	w.deeds = append(w.deeds, fmt.Sprintf(format, args...))
}

// take returns what was done since the last time.
func (w *world) take() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	deeds := w.deeds
	w.deeds = nil
	return deeds
}

// change changes the world while nothing else does.
func (w *world) change(do func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	do()
}

// fault returns the error that this call of the engine is to have.
func (w *world) fault() error {
	w.calls++
	if err := w.faults[w.calls]; err != nil {
		return err
	}
	return w.engineErr
}

func (w *world) Containers(context.Context) ([]Container, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.fault(); err != nil {
		return nil, err
	}
	var list []Container
	for _, c := range w.containers {
		list = append(list, *c)
	}
	slices.SortFunc(list, func(a, b Container) int { return strings.Compare(a.ID, b.ID) })
	return list, nil
}

func (w *world) Create(_ context.Context, spec Spec) (string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.fault(); err != nil {
		return "", err
	}
	if spec.Role == Sandbox {
		w.attempts++
		if w.sandboxErr != nil {
			return "", w.sandboxErr
		}
	}
	if w.names[spec.Name] != "" {
		return "", fmt.Errorf("name %s is taken", spec.Name)
	}
	w.number++
	id := fmt.Sprintf("%064x", w.number)
	w.names[spec.Name], w.specs[id] = id, spec
	c := &Container{ID: id, Name: spec.Name, Role: spec.Role, Service: spec.Service, Ref: spec.Ref, Config: spec.fingerprint(), Network: spec.Network}
	if len(spec.Env) > 0 {
		c.Collector = strings.TrimPrefix(spec.Env[0], envCollector)
	}
	w.containers[id] = c
	w.did("create %s", spec.Name)
	return id, nil
}

func (w *world) Start(_ context.Context, id string) (Container, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.fault(); err != nil {
		return Container{}, err
	}
	c := w.containers[id]
	if c == nil {
		return Container{}, errors.New("no such container")
	}
	if sandbox, joins := strings.CutPrefix(c.Network, "container:"); joins && (w.containers[sandbox] == nil || !w.containers[sandbox].Running) {
		return Container{}, errors.New("cannot join the namespace of a container that does not run")
	}
	w.number++
	c.Running, c.PID, c.Started = true, w.number, time.Now()
	w.did("start %s", c.Name)
	return *c, nil
}

func (w *world) Remove(_ context.Context, id string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.fault(); err != nil {
		return err
	}
	if w.containers[id] != nil {
		name := w.containers[id].Name
		delete(w.containers, id)
		delete(w.names, name)
		w.did("remove %s", name)
	}
	return nil
}

func (w *world) Rename(_ context.Context, id, name string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.fault(); err != nil {
		return err
	}
	c := w.containers[id]
	if c == nil {
		return errors.New("no such container")
	}
	if w.names[name] != "" {
		return fmt.Errorf("name %s is taken", name)
	}
	w.did("rename %s to %s", c.Name, name)
	delete(w.names, c.Name)
	c.Name, w.names[name] = name, id
	return nil
}

func (w *world) Usage(_ context.Context, id string, _ time.Time) (Usage, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.containers[id]
	if c == nil {
		return Usage{}, errors.New("no such container")
	}
	return w.usage[c.Ref], nil
}

// sockets finds somebody at every port of the honeypot in the process's network
// namespace, unless its image is mute.
func (w *world) sockets(pid int) (sockets, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	found := sockets{open: map[helperapi.Port]bool{}, unaccepted: w.unaccepted}
	for _, sandbox := range w.containers {
		for _, c := range w.containers {
			if sandbox.PID != pid || c.Network != "container:"+sandbox.ID || !c.Running || w.mute[c.Ref] {
				continue
			}
			for _, number := range []uint16{80, 2222, 2223, 8080} {
				found.open[helperapi.Port{Protocol: helperapi.TCP, Number: number}] = true
			}
		}
	}
	return found, nil
}

// end ends the container of that name, as a crash does.
func (w *world) end(name string, code int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.containers[w.names[name]]
	c.Running, c.PID, c.Finished, c.ExitCode = false, 0, time.Now(), code
}

func (w *world) LastLine(context.Context, string) string { return "the last words" }

func (w *world) Watch(ctx context.Context, notify func()) error {
	notify()
	<-ctx.Done()
	return ctx.Err()
}

func (w *world) Present(_ context.Context, uri string) (id, digest string, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if id = w.images[uri]; id == "" {
		return "", "", errors.New("absent")
	}
	return id, "sha256:" + id, nil
}

func (w *world) Ensure(ctx context.Context, uri string, progress func(done, total int64)) (id, digest string, err error) {
	w.mu.Lock()
	wait := w.slow[uri]
	err = w.registry[uri]
	w.mu.Unlock()
	if err != nil {
		return "", "", err
	}
	if wait != nil {
		progress(5<<20, 50<<20)
		select {
		case <-wait:
		case <-ctx.Done():
			return "", "", ctx.Err()
		}
	}
	w.change(func() { w.images[uri] = "image of " + uri })
	return w.Present(ctx, uri)
}

func (w *world) Pause(context.Context) (string, error) { return "pause", nil }

func (w *world) Prune(_ context.Context, keep []string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for uri := range w.images {
		if !slices.Contains(keep, uri) {
			delete(w.images, uri)
			w.did("drop image %s", uri)
		}
	}
	return nil
}

func (w *world) Apply(_ context.Context, services []helperapi.Service) (helperapi.Observed, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.applyErr != nil {
		return helperapi.Observed{}, w.applyErr
	}
	for _, s := range services {
		if err := w.refuse[s.ID]; err != nil {
			return helperapi.Observed{}, err
		}
	}
	w.network, w.applied = slices.Clone(services), true
	var texts []string
	for _, s := range services {
		text := s.ID
		for _, a := range s.Ports {
			text += fmt.Sprintf(" %s:%d", a.Port, a.To)
		}
		if s.CatchAll {
			text += " catch-all"
		}
		texts = append(texts, text)
	}
	w.did("apply %v", texts)
	return w.observed(), nil
}

func (w *world) Observe(context.Context) (helperapi.Observed, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.applyErr != nil {
		return helperapi.Observed{}, w.applyErr
	}
	return w.observed(), nil
}

func (w *world) observed() helperapi.Observed {
	o := helperapi.Observed{Applied: w.applied, Bridge: helperapi.BridgeObserved{GatewayV4: w.gateway}}
	addr := netip.MustParseAddr("10.10.10.10")
	for _, s := range w.network {
		o.Services = append(o.Services, helperapi.ServiceObserved{ID: s.ID, ContainerID: s.Sandbox.ContainerID, V4: addr})
		addr = addr.Next()
	}
	return o
}
