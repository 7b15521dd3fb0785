package core

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"go.uber.org/zap"

	"honeysens.org/dockersensor/nethelper/internal/attach"
	"honeysens.org/dockersensor/nethelper/internal/link"
	"honeysens.org/dockersensor/nethelper/internal/nft"
	"honeysens.org/dockersensor/nethelper/internal/passage"
	"honeysens.org/dockersensor/nethelper/internal/policy"
	"honeysens.org/dockersensor/nethelper/internal/ruleset"
	"honeysens.org/dockersensor/shared/helperapi"
)

// Table is the sensor's own table in the kernel.
type Table interface {
	Apply(ctx context.Context, want *ruleset.Table) error
	Heartbeat(ctx context.Context) error
	Observe(ctx context.Context) (nft.Observed, error)
	// Lacks is what the kernel cannot do.
	Lacks() ruleset.Lacks
	Remove(ctx context.Context) error
	Watch(ctx context.Context, foreign func(context.Context)) error
}

// Passage is the way through other people's firewalls.
type Passage interface {
	Ensure(ctx context.Context, cfg passage.Config) ([]helperapi.Firewall, error)
	// Heals counts how often Ensure had to open the way again.
	Heals() (uint64, time.Time)
	// Watch calls changed after changes that Table.Watch cannot see.
	Watch(ctx context.Context, changed func(context.Context)) error
	Remove(ctx context.Context) error
}

// Links are the services bridge and what leads there.
type Links interface {
	Ensure(want link.Layout) (link.Forwarding, error)
	// Right tells whether all is as Ensure made it, with the ports in place.
	Right(want link.Layout, ports []string) (bool, error)
	Remove() error
}

// Services attaches sandboxes.
type Services interface {
	Attach(ctx context.Context, n attach.Network, s *attach.Sandbox) (attach.Attachment, error)
	Prune(ctx context.Context, n attach.Network, keep map[string]bool) error
}

// Host answers questions about the host's network.
type Host interface {
	// Uses returns the networks in use without those of the bridge.
	Uses(bridge string) ([]policy.Use, error)
	MTU(iface string) (int, error)
	HasIPv6() bool
	// Connections is how many connections conntrack keeps at most, or 0.
	Connections() uint32
	Prove(claim helperapi.Sandbox) (*attach.Sandbox, error)
	// Listeners are the sockets that wait at ports, Programs their programs'
	// names where they can be known.
	Listeners() (map[helperapi.Port]Listener, error)
	Programs(listeners []Listener) map[Listener]string
	// WatchLinks calls changed after interfaces were removed or changed, until
	// ctx ends.
	WatchLinks(ctx context.Context, changed func()) error
}

// Interface is the one that attackers arrive at.
type Interface interface {
	// Ensure puts a wish in force; services are networks that the interface's
	// must not overlap.
	Ensure(want helperapi.Interface, services []netip.Prefix) error
	// Run does what takes time, until ctx ends.
	Run(ctx context.Context) error
	Observe() (helperapi.InterfaceObserved, error)
	// Remove brings the interface back to what it was.
	Remove() error
}

// Prober makes connections that arrive at the interface.
type Prober interface {
	Connect(ctx context.Context, bridge string, want helperapi.Probe) (helperapi.ProbeResult, error)
}

// Config is what the operator gave the sensor.
type Config struct {
	SensorID  string
	Rights    policy.Rights
	HostPorts helperapi.HostPorts
	Protected []helperapi.Port
	// StateFile keeps the wanted state for the next helper after a kill. It
	// belongs on a tmpfs.
	StateFile string
}

// Parts is what the core puts together.
type Parts struct {
	Table     Table
	Passage   Passage
	Links     Links
	Services  Services
	Interface Interface
	Host      Host
	Prober    Prober
}

// Core is the state in force and how to get there.
type Core struct {
	cfg   Config
	parts Parts
	log   *zap.Logger
	// changing holds the right to change the host's network.
	changing chan struct{}
	// complaint is the last one about the links; only who may change has it.
	complaint string

	mu sync.Mutex
	// force is the state in force, or nil.
	force     *state
	firewalls []helperapi.Firewall
	heals     uint64
	lastHeal  time.Time
}

// state is a wanted state with what it came to.
type state struct {
	want     helperapi.Network
	layout   link.Layout
	mtu      int
	standing link.Forwarding
	attached []attach.Attachment // in the order of want.Services
	table    *ruleset.Table
}

// New returns a core that has nothing in force yet.
func New(cfg Config, parts Parts, log *zap.Logger) *Core {
	return &Core{cfg: cfg, parts: parts, log: log, changing: make(chan struct{}, 1)}
}

// Apply puts the wanted state in force, all or nothing, and returns what is.
func (c *Core) Apply(ctx context.Context, want helperapi.Network) (helperapi.Observed, error) {
	if err := c.lock(ctx); err != nil {
		return helperapi.Observed{}, err
	}
	defer c.unlock()
	if err := c.apply(ctx, want); err != nil {
		return helperapi.Observed{}, err
	}
	return c.Observe(ctx)
}

func (c *Core) apply(ctx context.Context, want helperapi.Network) error {
	if err := want.Validate(); err != nil {
		return err
	}
	next, err := c.plan(want)
	if err != nil {
		return err
	}
	sandboxes, err := c.prove(want.Services)
	if err != nil {
		return err
	}
	defer closeAll(sandboxes)
	before := c.inForce()
	if err := c.converge(ctx, next, sandboxes); err != nil {
		return c.rollBack(ctx, before, err)
	}
	c.set(next)
	if err := c.save(want); err != nil {
		c.log.Error("keep wanted state", zap.Error(err))
	}
	return nil
}

// plan decides whether the sensor may have the state. It changes nothing.
func (c *Core) plan(want helperapi.Network) (*state, error) {
	layout := link.NewLayout(c.cfg.SensorID, want.Bridge)
	if !c.parts.Host.HasIPv6() {
		layout = layout.WithoutIPv6()
	}
	uses, err := c.parts.Host.Uses(layout.Name)
	if err != nil {
		return nil, err
	}
	if err := policy.Check(&want, c.cfg.Rights, uses); err != nil {
		return nil, err
	}
	mtu, err := c.parts.Host.MTU(c.cfg.Rights.Iface)
	if err != nil {
		return nil, err
	}
	return &state{want: want, layout: layout, mtu: mtu}, nil
}

func (c *Core) prove(services []helperapi.Service) ([]*attach.Sandbox, error) {
	var proved []*attach.Sandbox
	for _, service := range services {
		sandbox, err := c.parts.Host.Prove(service.Sandbox)
		if err != nil {
			closeAll(proved)
			return nil, ofService(service.ID, err)
		}
		proved = append(proved, sandbox)
	}
	return proved, nil
}

func closeAll(sandboxes []*attach.Sandbox) {
	for _, s := range sandboxes {
		_ = s.Close()
	}
}

// ofService puts the service's id into what its manager will read.
func ofService(id string, err error) error {
	var known *helperapi.Error
	if errors.As(err, &known) {
		return &helperapi.Error{Kind: known.Kind, Message: fmt.Sprintf("service %s: %s", id, known.Message)}
	}
	return fmt.Errorf("service %s: %w", id, err)
}

// converge changes the host, step by step, from whatever is to the next state.
func (c *Core) converge(ctx context.Context, next *state, sandboxes []*attach.Sandbox) error {
	err := c.parts.Interface.Ensure(next.want.Interface, []netip.Prefix{next.layout.V4, next.layout.V6})
	if err != nil {
		return err
	}
	if next.standing, err = c.parts.Links.Ensure(next.layout); err != nil {
		return err
	}
	if next.attached, err = c.attach(ctx, next, sandboxes); err != nil {
		return err
	}
	if err := c.redirect(ctx, next); err != nil {
		return err
	}
	if err := c.pass(ctx, next); err != nil {
		return err
	}
	return c.parts.Services.Prune(ctx, next.network(), next.containers())
}

// attach retries once after it has made room: addresses or names may be taken
// by what is to go anyway, or by what a killed helper has left.
func (c *Core) attach(ctx context.Context, next *state, sandboxes []*attach.Sandbox) ([]attach.Attachment, error) {
	attached, err := c.attachAll(ctx, next, sandboxes)
	if err == nil {
		return attached, nil
	}
	if pruneErr := c.parts.Services.Prune(ctx, next.network(), next.containers()); pruneErr != nil {
		return nil, errors.Join(err, pruneErr)
	}
	return c.attachAll(ctx, next, sandboxes)
}

func (c *Core) attachAll(ctx context.Context, next *state, sandboxes []*attach.Sandbox) ([]attach.Attachment, error) {
	attached := make([]attach.Attachment, 0, len(sandboxes))
	for i, sandbox := range sandboxes {
		at, err := c.parts.Services.Attach(ctx, next.network(), sandbox)
		if err != nil {
			return nil, ofService(next.want.Services[i].ID, err)
		}
		attached = append(attached, at)
	}
	return attached, nil
}

func (c *Core) redirect(ctx context.Context, s *state) error {
	rules := Rules(c.cfg, s.want, s.layout, s.standing, s.attached)
	rules.Lacks = c.parts.Table.Lacks()
	rules.Bounds.Tracked = ruleset.Share(c.parts.Host.Connections())
	table, err := ruleset.New(rules)
	if err != nil {
		return fmt.Errorf("translate into rules: %w", err)
	}
	s.table = table
	return c.parts.Table.Apply(ctx, table)
}

func (c *Core) pass(ctx context.Context, s *state) error {
	firewalls, err := c.parts.Passage.Ensure(ctx, passage.Config{
		Iface: c.cfg.Rights.Iface, Bridge: s.layout.Name, V4: s.layout.V4, V6: s.layout.V6, GatewayV4: s.layout.GatewayV4, GatewayV6: s.layout.GatewayV6,
		CollectorPort: s.want.Bridge.CollectorPort, Egress: s.want.Egress,
	})
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.firewalls = firewalls
	return nil
}

func (s *state) network() attach.Network { return attach.Network{Layout: s.layout, MTU: s.mtu} }

func (s *state) containers() map[string]bool {
	keep := map[string]bool{}
	for _, service := range s.want.Services {
		keep[service.Sandbox.ContainerID] = true
	}
	return keep
}

func (s *state) ports() []string {
	ports := make([]string, 0, len(s.attached))
	for _, at := range s.attached {
		ports = append(ports, at.Port)
	}
	return ports
}

func (c *Core) lock(ctx context.Context) error {
	select {
	case c.changing <- struct{}{}:
		return nil
	case <-ctx.Done():
		return &helperapi.Error{Kind: helperapi.KindUnavailable, Message: "another change is under way"}
	}
}

func (c *Core) unlock() { <-c.changing }

func (c *Core) inForce() *state {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.force
}

func (c *Core) set(s *state) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.force = s
}
