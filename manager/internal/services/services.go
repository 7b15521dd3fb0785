package services

import (
	"context"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// Config is what services needs to know. Zero values take the defaults.
type Config struct {
	// Store is the file that keeps the wanted services for a start without
	// server, or "" for none.
	Store string
	// Interface is the sensor's, for services with raw network access.
	Interface string
	// CollectorPort is where honeypots report, at the bridge's address.
	CollectorPort uint16
	// Limits bound each honeypot.
	Limits Limits
	// DataDir is the engine's, or "" when it is elsewhere: what honeypots write is
	// taken from the space there.
	DataDir string
	// Held tells whether a service is held back for reporting too much, or is nil.
	Held func(id string) bool
	// Resync is the longest pause between two looks at the engine. Default: a
	// minute.
	Resync time.Duration
}

func (c *Config) setDefaults() {
	c.Limits = c.Limits.WithDefaults()
	if c.Resync == 0 {
		c.Resync = time.Minute
	}
}

// Services runs what is wanted. Run does the work; the other methods may be
// called at any time.
type Services struct {
	cfg     Config
	engine  Engine
	images  Images
	log     *zap.Logger
	fetcher *fetcher
	wakeup  chan struct{}
	// sockets tells about the network namespace of a process.
	sockets func(pid int) (sockets, error)
	// reconnect makes the next pass ask the helper in any case.
	reconnect atomic.Bool

	// These belong to Run.
	connector connector
	histories map[string]*history
	// engineSince is when the engine stopped answering, unset while it does.
	engineSince time.Time

	mu sync.Mutex
	// known is false until somebody has said what is wanted.
	known  bool
	wanted []Wanted
	states []State
	// others has the addresses of honeypots that are to follow, or did serve
	// until a moment ago; they report, too.
	others map[netip.Addr]string
	// engineErr is why the engine does not answer, or nil.
	engineErr error
	gateways  []netip.Addr
	// offences say what containers use too much of.
	offences map[string]string
	// writes are measured by the guard.
	writes meters
}

// New returns services that nobody has named yet, or those of the last run.
func New(cfg Config, engine Engine, images Images, network Network, log *zap.Logger) *Services {
	cfg.setDefaults()
	s := &Services{
		cfg: cfg, engine: engine, images: images, log: log, wakeup: make(chan struct{}, 1),
		connector: connector{network: network, log: log, again: cfg.Resync},
		sockets:   func(pid int) (sockets, error) { return readSockets("/proc", pid) },
		histories: map[string]*history{}, offences: map[string]string{},
	}
	s.fetcher = newFetcher(images, s.Wake, log)
	if cfg.Store != "" {
		s.restore()
	}
	return s
}

func (s *Services) restore() {
	wanted, known, err := loadWanted(s.cfg.Store)
	if err != nil {
		s.log.Warn("services of the last run are unknown until the server names them", zap.Error(err))
		return
	}
	s.wanted, s.known = wanted, known
}

// SetWanted replaces the list of wanted services. It is to be called for each
// answer of the server: images that could not be fetched are then tried again.
func (s *Services) SetWanted(wanted []Wanted) {
	s.mu.Lock()
	same := s.known && reflect.DeepEqual(s.wanted, wanted)
	s.wanted, s.known = slices.Clone(wanted), true
	s.mu.Unlock()
	if !same && s.cfg.Store != "" {
		if err := saveWanted(s.cfg.Store, wanted); err != nil {
			s.log.Error("services would be unknown after a restart", zap.Error(err))
		}
	}
	s.fetcher.hurry()
	s.Wake()
}

// Reconnect asks for a pass that gives the helper the wanted state again: when
// something else in it has changed, or the helper was restarted.
func (s *Services) Reconnect() {
	s.reconnect.Store(true)
	s.Wake()
}

// Wake asks for a pass now.
func (s *Services) Wake() {
	select {
	case s.wakeup <- struct{}{}:
	default:
	}
}

// States returns what there is to say about the wanted services, sorted by id.
func (s *Services) States() []State {
	s.mu.Lock()
	states := slices.Clone(s.states)
	s.mu.Unlock()
	for n := range states {
		if state := &states[n]; s.cfg.Held != nil && state.Status == Running && state.Reason == "" && s.cfg.Held(state.ID) {
			state.Reason = fmt.Sprintf("it floods the collector and is held back: more than %d events or connections a second (SERVICE_EVENT_RATE)", s.cfg.Limits.EventRate)
		}
	}
	return states
}

// EngineError says why the engine does not answer, or returns nil.
func (s *Services) EngineError() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.engineErr
}

// RawIdentity is who reports from the sensor's own network namespace when
// several services have raw network access: their addresses do not tell them
// apart.
const RawIdentity = "raw"

// Identify returns the id of the service that has the address.
func (s *Services) Identify(addr netip.Addr) (string, bool) {
	addr = addr.Unmap()
	s.mu.Lock()
	defer s.mu.Unlock()
	if id, ok := s.others[addr]; ok && addr.IsValid() {
		return id, true
	}
	var raw []string
	for _, state := range s.states {
		if addr.IsValid() && (addr == state.V4 || addr == state.V6) {
			return state.ID, true
		}
		if state.Raw && state.ContainerID != "" {
			raw = append(raw, state.ID)
		}
	}
	// What comes from the sensor's own namespace to the bridge's address has
	// that address itself.
	if len(raw) == 0 || !slices.Contains(s.gateways, addr) {
		return "", false
	}
	if len(raw) > 1 {
		return RawIdentity, true
	}
	return raw[0], true
}

// Run keeps the engine at what is wanted until the context ends. Containers
// stay as they are then: the next run takes them over.
func (s *Services) Run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { s.watch(ctx) })
	wg.Go(func() { s.guard(ctx) })
	defer func() {
		cancel()
		wg.Wait()
		s.fetcher.wg.Wait()
	}()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wakeup:
		case <-timer.C:
		}
		timer.Reset(s.pause(s.pass(ctx)))
	}
}

// pause returns how long to wait for the next pass.
func (s *Services) pause(next time.Time) time.Duration {
	if next.IsZero() {
		return s.cfg.Resync
	}
	return min(max(time.Until(next), 100*time.Millisecond), s.cfg.Resync)
}

// watchAgain is the pause before the engine is asked again for its events.
const watchAgain = time.Second

// watch wakes for what happens to our containers.
func (s *Services) watch(ctx context.Context) {
	for ctx.Err() == nil {
		err := s.engine.Watch(ctx, s.Wake)
		if ctx.Err() != nil {
			return
		}
		s.log.Debug("engine does not tell its events", zap.Error(err))
		select {
		case <-ctx.Done():
		case <-time.After(watchAgain):
		}
	}
}

// snapshot returns what is wanted now.
func (s *Services) snapshot() ([]Wanted, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wanted, s.known
}
