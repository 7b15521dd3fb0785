package app

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"strings"
	"time"

	"go.uber.org/zap"

	"honeysens.org/dockersensor/manager/internal/hsapi"
	"honeysens.org/dockersensor/manager/internal/services"
	"honeysens.org/dockersensor/shared/helperapi"
	"honeysens.org/dockersensor/shared/version"
)

// PollStatus tells the server how the sensor is. What cannot be found out is
// left at zero: a poll with gaps beats none.
func (m *manager) PollStatus(context.Context) hsapi.Status {
	m.poll = m.setup.ticket(m.cfg.Interface == "" || m.keeper.settled())
	if m.setup.trial() {
		// A connection from before proves nothing.
		m.server.Close()
	}
	state := hsapi.StateRunning
	if m.agent.Updating() {
		state = hsapi.StateUpdating
	}
	status := hsapi.Status{State: state, IP: m.source(), Version: version.Revision, Known: m.setup.fingerprints()}
	var errMemory, errDisk error
	status.FreeMemory, errMemory = freeMemory()
	status.DiskUsage, status.DiskTotal, errDisk = disk(m.cfg.StateDir)
	if err := errors.Join(errMemory, errDisk); err != nil {
		m.log.Warn("poll with gaps", zap.Error(err))
	}
	status.Services = map[string]hsapi.ServiceState{}
	for _, state := range m.services.States() {
		status.Services[state.ID] = hsapi.ServiceState(state.Status)
	}
	return status
}

// Take leads the server's answer to those whom it concerns.
func (m *manager) Take(ctx context.Context, wanted *hsapi.Wanted) {
	m.clock.note(m.server.ClockOffset())
	for _, problem := range wanted.Problems {
		m.log.Warn("a part of the server's answer is ignored", zap.String("problem", problem))
	}
	changed, err := m.setup.take(time.Now(), wanted.Changes, m.poll)
	if err != nil {
		m.log.Warn("settings of the server are not taken over", zap.Error(err))
	}
	if changed {
		m.log.Info("settings of the server taken over")
		m.adopt()
	}
	m.services.SetWanted(wantedServices(wanted.Services))
	m.offer(wanted.Firmware)
}

// wantedServices translates; what a service with raw network access has no use
// for is left out.
func wantedServices(assigned map[string]hsapi.Service) []services.Wanted {
	wanted := make([]services.Wanted, 0, len(assigned))
	for _, s := range assigned {
		w := services.Wanted{ID: s.ID, Label: s.Label, Image: s.Image, Ports: s.Ports, CatchAll: s.CatchAll, Raw: s.Raw, Error: s.Problem}
		if w.Raw {
			w.Ports, w.CatchAll = nil, false
		}
		wanted = append(wanted, w)
	}
	return wanted
}

// tellEvery is how soon the server hears of a service whose state has changed.
const tellEvery = 2 * time.Second

// tellChanges polls when the state of a service changes, so that the server need
// not wait for the next interval, until ctx ends.
func (m *manager) tellChanges(ctx context.Context) {
	tick := time.NewTicker(tellEvery)
	defer tick.Stop()
	told := map[string]services.Status{}
	for {
		now := map[string]services.Status{}
		for _, state := range m.services.States() {
			now[state.ID] = state.Status
		}
		if !maps.Equal(now, told) {
			told = now
			m.poller.Poke()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// Poll asks the server now.
func (m *manager) Poll() { m.poller.Poke() }

// source is the address of the sensor as attackers see it; it is invalid when
// there is none.
func (m *manager) source() netip.Addr {
	if m.cfg.ExternalIP != "" {
		if address, err := netip.ParseAddr(m.cfg.ExternalIP); err == nil {
			return address
		}
		m.log.Warn("EXTERNAL_IP is not an address, the interface's is reported", zap.String("value", m.cfg.ExternalIP))
	}
	address, err := AddressOf(m.cfg.Interface)
	if err != nil {
		m.log.Debug("no address to report", zap.Error(err))
	}
	return address
}

func (m *manager) sourceText() string {
	if address := m.source(); address.IsValid() {
		return address.String()
	}
	return ""
}

func (m *manager) lastPoll() time.Time { return m.poller.State().LastSuccess }

// noInterface stands for the helper when IFACE is missing.
type noInterface struct{}

func (noInterface) Apply(context.Context, helperapi.Network) (helperapi.Observed, error) {
	return helperapi.Observed{}, errNoInterface()
}

func (noInterface) Observe(context.Context) (helperapi.Observed, error) {
	return helperapi.Observed{}, errNoInterface()
}

func errNoInterface() error {
	return fmt.Errorf("no interface is named: set IFACE to the one that attackers reach, one of: %s", strings.Join(interfaceNames(), ", "))
}
