package services

import (
	"fmt"
	"net/netip"
	"time"

	"go.uber.org/zap"
)

// enginePatience is how long the engine may be absent before its services count
// as failed: it starts together with the manager.
const enginePatience = time.Minute

// publish tells what the pass found and did.
func (p *pass) publish() {
	states := make([]State, 0, len(p.units))
	others := map[netip.Addr]string{}
	for _, u := range p.units {
		states = append(states, p.state(u))
		if _, other := u.front(); p.attached(other) != nil {
			others[p.attached(other).V4], others[p.attached(other).V6] = u.ID, u.ID
		}
	}
	bridge := p.connector.observed.Bridge
	s := p.Services
	s.mu.Lock()
	before := s.states
	s.states, s.others, s.engineErr = states, others, nil
	s.gateways = []netip.Addr{bridge.GatewayV4, bridge.GatewayV6}
	s.mu.Unlock()
	s.logChanges(before, states)
}

// state says how a service is.
func (p *pass) state(u *unit) State {
	state := State{
		ID: u.ID, Label: u.Label, Image: u.Image, Digest: u.digest,
		Ports: u.Ports, CatchAll: u.CatchAll, Raw: u.Raw,
	}
	front, _ := u.front()
	state.ContainerID = front.container()
	if at := p.attached(front); at != nil {
		state.V4, state.V6, state.Redirects = at.V4, at.V6, at.Redirected
	}
	state.Status, state.Reason = p.judge(u)
	return state
}

// judge puts first what somebody has to do something about.
func (p *pass) judge(u *unit) (Status, string) {
	running := u.honeypot != nil && u.honeypot.Running
	switch {
	case u.Error != "":
		return Failed, u.Error
	case !running && u.problem == "" && u.history.honeypot.failures >= crashMany:
		return Failed, u.history.honeypot.text()
	case !running && u.problem == "" && u.history.honeypot.failures > 0:
		return Scheduled, u.history.honeypot.text()
	case u.problem != "":
		return Failed, u.problem
	case p.networkErr != nil:
		return Scheduled, clean(p.networkErr.Error())
	case !running || u.waiting != "":
		return Scheduled, u.waiting
	case u.history.honeypot.recovering(u.honeypot):
		return Scheduled, "started again: " + u.history.honeypot.reason
	}
	if complaint := u.history.health.complaint(); complaint != "" {
		if time.Since(u.honeypot.Started) < answerPatience {
			return Scheduled, complaint
		}
		return Failed, complaint
	}
	if u.conflict != "" {
		return Failed, u.conflict
	}
	return Running, ""
}

// engineAbsent tells that nothing is known of the services. What was known of
// their addresses stays: they may still report.
func (p *pass) engineAbsent(cause error) {
	if p.engineSince.IsZero() {
		p.engineSince = time.Now()
		p.log.Warn("Docker engine does not answer", zap.Error(cause))
	}
	status := Scheduled
	if time.Since(p.engineSince) >= enginePatience {
		status = Failed
	}
	s := p.Services
	s.mu.Lock()
	defer s.mu.Unlock()
	before := map[string]State{}
	for _, state := range s.states {
		before[state.ID] = state
	}
	s.states = nil
	for _, u := range p.units {
		state, there := before[u.ID]
		if !there {
			state = State{ID: u.ID, Label: u.Label, Image: u.Image, Ports: u.Ports, CatchAll: u.CatchAll, Raw: u.Raw}
		}
		state.Status, state.Reason = status, clean("the Docker engine does not answer: "+cause.Error())
		if u.Error != "" {
			state.Status, state.Reason = Failed, u.Error
		}
		s.states = append(s.states, state)
	}
	s.engineErr = fmt.Errorf("the Docker engine does not answer: %w", cause)
}

// logChanges writes a line for each service that is not as it was.
func (s *Services) logChanges(before, after []State) {
	known := map[string]State{}
	for _, state := range before {
		known[state.ID] = state
	}
	for _, state := range after {
		was, there := known[state.ID]
		if there && was.Status == state.Status {
			continue
		}
		write := s.log.Info
		if state.Status == Failed {
			write = s.log.Warn
		}
		write("service state", zap.String("service", state.ID), zap.String("label", state.Label),
			zap.Stringer("state", state.Status), zap.String("reason", state.Reason))
	}
}
