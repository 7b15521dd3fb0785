package app

import (
	"context"
	"fmt"
	"net/netip"

	"honeysens.org/dockersensor/manager/internal/control"
	"honeysens.org/dockersensor/manager/internal/services"
	"honeysens.org/dockersensor/shared/version"
)

// Status gathers the state of all parts for the command line.
func (m *manager) Status(context.Context) control.Status {
	settings := m.setup.settings()
	status := control.Status{
		Version: version.Revision, Platform: platform(), Started: m.started,
		Hostname: settings.Sensor.Hostname, SensorID: settings.Sensor.ID,
		Server:    m.serverState(),
		Settings:  m.setup.state(),
		Update:    m.updateState(),
		Network:   m.networkState(),
		Collector: m.collectorState(),
		Events:    m.eventsState(),
		Services:  []control.ServiceState{},
	}
	if err := m.services.EngineError(); err != nil {
		status.Engine.Error = err.Error()
	}
	for _, state := range m.services.States() {
		status.Services = append(status.Services, serviceState(state))
	}
	return status
}

func (m *manager) serverState() control.ServerState {
	poll := m.poller.State()
	return control.ServerState{
		Address: m.server.Address(), Name: m.setup.settings().Server.Name, Route: m.server.Route(),
		LastPoll: poll.LastSuccess, Error: poll.Error, ErrorClass: string(poll.Class),
		ClockOffset: m.server.ClockOffset().Seconds(),
	}
}

func (m *manager) networkState() control.NetworkState {
	state := m.keeper.state()
	network := control.NetworkState{Observed: state.observed}
	if state.err != nil {
		network.Error = state.err.Error()
	}
	return network
}

func (m *manager) collectorState() control.CollectorState {
	stats := m.collector.Stats()
	state := control.CollectorState{
		Listening: []string{}, Connections: stats.Connections,
		Accepted: stats.Accepted, Refused: stats.Rejected + stats.Failed + stats.Refused + stats.Broken,
	}
	address, err := m.intake.state()
	if address != "" {
		state.Listening = append(state.Listening, address)
	}
	if err != nil {
		state.Error = err.Error()
	}
	return state
}

func (m *manager) eventsState() control.EventsState {
	stats, upload := m.spool.Stats(), m.uploader.State()
	state := control.EventsState{
		Waiting: stats.Waiting, WaitingBytes: stats.WaitingBytes, Quarantined: stats.Quarantined, Lost: stats.Lost,
		Sent: upload.Sent, LastSent: upload.LastSent, Error: stats.Problem,
	}
	if state.Error == "" {
		state.Error = upload.Error
	}
	return state
}

func serviceState(s services.State) control.ServiceState {
	state := control.ServiceState{
		ID: s.ID, Label: s.Label, Image: s.Image, Digest: s.Digest,
		State: s.Status.String(), Reason: s.Reason, CatchAll: s.CatchAll, Raw: s.Raw,
	}
	for _, address := range []netip.Addr{s.V4, s.V6} {
		if address.IsValid() {
			state.Addresses = append(state.Addresses, address.String())
		}
	}
	for _, a := range s.Ports {
		state.Ports = append(state.Ports, fmt.Sprintf("%s to %d", a.Port, a.To))
	}
	return state
}
