package services

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"go.uber.org/zap"

	"honeysens.org/dockersensor/shared/helperapi"
)

// Network puts services in force: attached, and with their ports. Apply gets all
// services with a sandbox; on an error the state before stays in force.
type Network interface {
	Apply(ctx context.Context, services []helperapi.Service) (helperapi.Observed, error)
	Observe(ctx context.Context) (helperapi.Observed, error)
}

// refusedAgain is the pause before the helper is given again what it refused.
const refusedAgain = 30 * time.Second

// connector keeps the network at what the passes want.
type connector struct {
	network Network
	log     *zap.Logger
	// again is how long the helper is believed to have what it was given.
	again time.Duration

	// asked is what the last successful connect was for, and when; nil when
	// the helper is to be asked again in any case.
	asked []helperapi.Service
	when  time.Time
	// applied is what is in force, as far as we know; nil when we do not.
	applied  []helperapi.Service
	observed helperapi.Observed
	// refused are the services that the helper does not take, and why.
	refused map[string]string
}

// connect brings the services into force. On an error nothing has changed.
func (c *connector) connect(ctx context.Context, services []helperapi.Service) error {
	if c.current(services) {
		return nil
	}
	err := c.apply(ctx, services)
	switch {
	case err == nil:
		c.refused = nil
	case blamesRequest(err) && len(services) > 1:
		err = c.oneByOne(ctx, services, err)
	}
	if err != nil {
		c.asked = nil
		return fmt.Errorf("connect the services: %w", err)
	}
	c.asked, c.when = services, time.Now()
	return nil
}

// hold sees to the rest of the network, such as the sensor's interface, while
// nothing is known of services or containers: what is attached stays so.
func (c *connector) hold(ctx context.Context) error {
	if c.applied == nil {
		observed, err := c.network.Observe(ctx)
		if err != nil {
			return fmt.Errorf("observe the network: %w", err)
		}
		if observed.Applied {
			c.observed = observed
			return nil
		}
		c.applied = []helperapi.Service{}
	}
	return c.connect(ctx, c.applied)
}

// learn reads what a helper has in force that was there before this manager.
func (c *connector) learn(ctx context.Context) {
	if c.observed.Bridge.GatewayV4.IsValid() || c.observed.Bridge.GatewayV6.IsValid() {
		return
	}
	if observed, err := c.network.Observe(ctx); err == nil && observed.Applied {
		c.observed = observed
	}
}

// serves returns the container that is in force for a service, or "".
func (c *connector) serves(id string) string {
	for _, s := range c.observed.Services {
		if s.ID == id {
			return s.ContainerID
		}
	}
	return ""
}

// given returns what a sandbox was given when it was last connected, or nil.
func (c *connector) given(container string) *helperapi.Service {
	for n, s := range c.applied {
		if s.Sandbox.ContainerID == container {
			return &c.applied[n]
		}
	}
	return nil
}

// current tells whether that is in force, and was checked not long ago.
func (c *connector) current(services []helperapi.Service) bool {
	again := c.again
	if len(c.refused) > 0 {
		again = min(again, refusedAgain)
	}
	return c.asked != nil && time.Since(c.when) < again && reflect.DeepEqual(c.asked, services)
}

func (c *connector) apply(ctx context.Context, services []helperapi.Service) error {
	observed, err := c.network.Apply(ctx, services)
	if err != nil {
		return err
	}
	c.applied, c.observed = services, observed
	return nil
}

// blamesRequest tells whether the helper found fault with what it was given, and
// so perhaps with one service only.
func blamesRequest(err error) bool {
	var answer *helperapi.Error
	if !errors.As(err, &answer) {
		return false
	}
	return answer.Kind != helperapi.KindUnavailable && answer.Kind != helperapi.KindUnknownOutcome
}

// oneByOne adds service after service to what is in force and leaves out those
// that the helper does not take.
func (c *connector) oneByOne(ctx context.Context, services []helperapi.Service, cause error) error {
	good, err := c.inForce(ctx, services)
	if err != nil {
		return errors.Join(cause, err)
	}
	refused := map[string]string{}
	for _, service := range services {
		candidate := replace(good, service)
		err := c.apply(ctx, candidate)
		switch {
		case err == nil:
			good = candidate
		case !blamesRequest(err):
			return fmt.Errorf("service %s: %w", service.ID, err)
		default:
			refused[service.ID] = clean(err.Error())
		}
	}
	if len(refused) == len(services) {
		return cause
	}
	c.log.Warn("helper refuses some services", zap.Int("refused", len(refused)), zap.Error(cause))
	c.refused = refused
	return nil
}

// inForce returns those of the services that are attached already, as they are.
func (c *connector) inForce(ctx context.Context, services []helperapi.Service) ([]helperapi.Service, error) {
	known := c.applied
	if known == nil {
		observed, err := c.network.Observe(ctx)
		if err != nil {
			return nil, fmt.Errorf("observe the network: %w", err)
		}
		for _, s := range services {
			if attachment(observed, s.Sandbox.ContainerID) != nil {
				known = append(known, helperapi.Service{ID: s.ID, Sandbox: s.Sandbox})
			}
		}
	}
	return slices.DeleteFunc(slices.Clone(known), func(k helperapi.Service) bool {
		return !slices.ContainsFunc(services, func(s helperapi.Service) bool { return s.ID == k.ID && s.Sandbox == k.Sandbox })
	}), nil
}

// replace returns the services with that one added, or in its old place.
func replace(services []helperapi.Service, service helperapi.Service) []helperapi.Service {
	services = slices.Clone(services)
	for n := range services {
		if services[n].ID == service.ID {
			services[n] = service
			return services
		}
	}
	return append(services, service)
}

// attachment returns what the helper says about a sandbox, or nil.
func attachment(observed helperapi.Observed, container string) *helperapi.ServiceObserved {
	for n, s := range observed.Services {
		if s.ContainerID == container {
			return &observed.Services[n]
		}
	}
	return nil
}
