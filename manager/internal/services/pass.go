package services

import (
	"context"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"honeysens.org/dockersensor/shared/helperapi"
)

const (
	// passTimeout bounds one pass; the next one goes on from there.
	passTimeout = 3 * time.Minute
	// together is how many containers are worked on at the same time.
	together = 4
	// engineRetry is the pause before an absent engine is asked again.
	engineRetry = 2 * time.Second
	// networkRetry is the pause after the helper did not answer or refused.
	networkRetry = 5 * time.Second
)

// unit is one wanted service during a pass, with what there is of it.
type unit struct {
	plan
	// pair is what is wanted, old what attackers were led to before. That ends
	// once the other has taken its place, which switched tells.
	pair
	old           pair
	switched      bool
	history       *history
	image, digest string
	// queued is true while it waits for others to change.
	queued bool
	// problem says what is wrong, waiting what it waits for.
	problem, waiting string
}

// runnable tells whether the service is to have containers.
func (u *unit) runnable() bool { return u.Error == "" }

// pass is one look at the engine, and what follows from it.
type pass struct {
	*Services
	units []*unit
	// changes counts the services with two honeypots.
	changes int
	// networkErr is why the network is not as it should be, or nil.
	networkErr error

	mu   sync.Mutex
	next time.Time
}

// pass does what is missing and returns when the next pass is due, or the zero
// time.
func (s *Services) pass(ctx context.Context) time.Time {
	limited, cancel := context.WithTimeout(ctx, passTimeout)
	defer cancel()
	if s.reconnect.Swap(false) {
		s.connector.asked = nil
	}
	p := &pass{Services: s}
	wanted, known := s.snapshot()
	if !known {
		p.hold(limited)
		return p.next
	}
	for _, plan := range settle(wanted) {
		p.units = append(p.units, &unit{plan: plan, history: &history{}})
	}
	containers, err := s.engine.Containers(limited)
	if err != nil {
		p.hold(limited)
		p.due(time.Now().Add(engineRetry))
		if ctx.Err() == nil {
			p.engineAbsent(err)
		}
		return p.next
	}
	s.engineSince = time.Time{}
	p.connector.learn(limited)
	p.recall()
	p.fetch(ctx)
	p.work(limited, containers)
	if ctx.Err() == nil {
		p.publish()
	}
	return p.next
}

// hold keeps the network as it is while the services cannot be seen to.
func (p *pass) hold(ctx context.Context) {
	if err := p.connector.hold(ctx); err != nil && ctx.Err() == nil {
		p.log.Warn("network is not as it should be", zap.Error(err))
		p.due(time.Now().Add(networkRetry))
	}
}

// work brings the engine to what is wanted, as far as possible now.
func (p *pass) work(ctx context.Context, containers []Container) {
	pause, err := p.images.Pause(ctx)
	if err != nil {
		p.log.Error("sandboxes cannot be made", zap.Error(err))
	}
	p.sweep(ctx, containers, pause)
	p.each(func(u *unit) { p.name(ctx, u) })
	p.each(func(u *unit) { p.ensureSandbox(ctx, u, pause, err) })
	p.connect(ctx)
	p.each(func(u *unit) {
		p.convict(ctx, u)
		p.ensureHoneypot(ctx, u)
		p.change(u)
	})
	if p.networkErr == nil {
		p.connect(ctx)
	}
	p.each(p.examine)
	if p.changes == 0 && p.fetcher.settled() {
		if err := p.images.Prune(ctx, p.imageNames()); err != nil {
			p.log.Warn("unneeded images stay", zap.Error(err))
		}
	}
}

// due asks for a pass at that time.
func (p *pass) due(at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next = earlier(p.next, at)
}

// each works on the runnable services, several at a time.
func (p *pass) each(do func(*unit)) {
	slots := make(chan struct{}, together)
	var wg sync.WaitGroup
	for _, u := range p.units {
		if !u.runnable() {
			continue
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			do(u)
		})
	}
	wg.Wait()
}

// recall gives each unit its history, and drops that of others.
func (p *pass) recall() {
	kept := map[string]*history{}
	for _, u := range p.units {
		if known := p.histories[u.ID]; known != nil {
			u.history = known
		}
		kept[u.ID] = u.history
	}
	p.histories = kept
}

// fetch sees to the images.
func (p *pass) fetch(ctx context.Context) {
	uris := map[string]bool{}
	for _, u := range p.units {
		if u.runnable() {
			uris[u.Image] = true
		}
	}
	p.due(p.fetcher.want(ctx, uris))
	for _, u := range p.units {
		if !u.runnable() {
			continue
		}
		var err error
		if u.image, u.digest, u.waiting, err = p.fetcher.get(u.Image); err != nil {
			u.problem = clean(err.Error())
		}
	}
}

func (p *pass) imageNames() []string {
	var names []string
	for _, u := range p.units {
		if u.runnable() {
			names = append(names, u.Image)
		}
	}
	return names
}

// sweep gives each unit its containers and removes all others.
func (p *pass) sweep(ctx context.Context, containers []Container, pause string) {
	remove := map[string]bool{}
	for _, c := range containers {
		remove[c.ID] = true
	}
	for _, u := range p.units {
		if !u.runnable() {
			continue
		}
		p.choose(u, u.pairs(containers, pause))
		for _, c := range []*Container{u.sandbox, u.honeypot, u.old.sandbox, u.old.honeypot} {
			if c != nil {
				delete(remove, c.ID)
			}
		}
	}
	p.removeAll(ctx, containers, remove)
}

// pairs returns the containers that can be the service's, the oldest first.
func (u *unit) pairs(containers []Container, pause string) []pair {
	var pairs []pair
	for n := range containers {
		if c := &containers[n]; c.Service == u.ID && c.Role == Sandbox && u.accepts(c, pause) {
			pairs = append(pairs, pair{sandbox: c})
		}
	}
	for n := range containers {
		c := &containers[n]
		if c.Service != u.ID || c.Role != Honeypot || c.Dead {
			continue
		}
		if u.Raw && c.Network == "host" {
			pairs = append(pairs, pair{honeypot: c})
		}
		for m, at := range pairs {
			if at.sandbox != nil && at.honeypot == nil && c.Network == "container:"+at.sandbox.ID {
				pairs[m].honeypot = c
			}
		}
	}
	slices.SortStableFunc(pairs, func(a, b pair) int { return a.started().Compare(b.started()) })
	return pairs
}

// started is when the first of both was.
func (p pair) started() time.Time {
	if p.sandbox != nil {
		return p.sandbox.Started
	}
	return p.honeypot.Started
}

// accepts tells whether the container can be the service's sandbox. Without a
// pause image to compare with, any that runs will do.
func (u *unit) accepts(c *Container, pause string) bool {
	return !u.Raw && c.Running && !c.Dead && c.PID > 0 && (pause == "" || c.Config == sandboxSpec(u.ID, pause).fingerprint())
}

// removeAll removes honeypots before sandboxes, so that none is ever seen
// without its network.
func (p *pass) removeAll(ctx context.Context, containers []Container, remove map[string]bool) {
	for _, role := range []Role{Honeypot, Sandbox} {
		slots := make(chan struct{}, together)
		var wg sync.WaitGroup
		for _, c := range containers {
			if !remove[c.ID] || (c.Role == Sandbox) != (role == Sandbox) {
				continue
			}
			slots <- struct{}{}
			wg.Go(func() {
				defer func() { <-slots }()
				p.remove(ctx, c.ID, c.Service)
			})
		}
		wg.Wait()
	}
}

func (p *pass) remove(ctx context.Context, container, service string) {
	p.log.Info("container is removed", zap.String("service", service), zap.String("container", container))
	if err := p.engine.Remove(ctx, container); err != nil {
		p.log.Warn("container stays", zap.String("service", service), zap.Error(err))
		p.due(time.Now().Add(engineRetry))
	}
}

// ensureSandbox makes the sandbox of a service that is otherwise ready.
func (p *pass) ensureSandbox(ctx context.Context, u *unit, pause string, pauseErr error) {
	if u.Raw || u.sandbox != nil || u.image == "" {
		return
	}
	past := &u.history.sandbox
	if !time.Now().Before(past.next) {
		err := pauseErr
		if err == nil {
			err = p.launchSandbox(ctx, u, pause)
		}
		if ctx.Err() != nil {
			return
		}
		past.launched(err)
		if err == nil {
			return
		}
	}
	p.due(past.next)
	if past.failures >= crashMany {
		u.problem = past.reason
	} else {
		u.waiting = past.reason
	}
}

func (p *pass) launchSandbox(ctx context.Context, u *unit, pause string) error {
	started, err := p.launch(ctx, sandboxSpec(u.ID, pause))
	if err == nil {
		u.sandbox = &started
	}
	return err
}

// launch makes a container and starts it.
func (p *pass) launch(ctx context.Context, spec Spec) (Container, error) {
	id, err := p.engine.Create(ctx, spec)
	if err != nil {
		return Container{}, err
	}
	return p.engine.Start(ctx, id)
}

// connect puts the services in force, all in one transaction.
func (p *pass) connect(ctx context.Context) {
	list := []helperapi.Service{}
	for _, u := range p.units {
		front, other := u.front()
		if front.sandbox != nil {
			service := helperapi.Service{ID: u.ID, Sandbox: front.claim()}
			service.Ports, service.CatchAll = p.assigned(u, front)
			list = append(list, service)
		}
		if other.sandbox != nil {
			list = append(list, helperapi.Service{ID: p.spareID(u), Sandbox: other.claim()})
		}
	}
	if p.networkErr = p.connector.connect(ctx, list); p.networkErr != nil {
		p.due(time.Now().Add(networkRetry))
		return
	}
	if len(p.connector.refused) > 0 {
		p.due(time.Now().Add(refusedAgain))
	}
	for _, u := range p.units {
		if reason := p.connector.refused[u.ID]; reason != "" {
			u.problem = reason
		}
	}
}

// claim is what the helper is told of the sandbox.
func (p pair) claim() helperapi.Sandbox {
	return helperapi.Sandbox{ContainerID: p.sandbox.ID, PID: p.sandbox.PID}
}

// attached returns the addresses of a pair, or nil.
func (p *pass) attached(at pair) *helperapi.ServiceObserved {
	if at.sandbox == nil {
		return nil
	}
	return attachment(p.connector.observed, at.sandbox.ID)
}
