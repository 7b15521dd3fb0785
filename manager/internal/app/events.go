package app

import (
	"context"
	"encoding/json"

	"honeysens.org/dockersensor/manager/internal/control"
	"honeysens.org/dockersensor/manager/internal/spool"
)

// Events tells the command line about events and the quarantine.
func (m *manager) Events(context.Context) (control.EventList, error) {
	set, err := m.spool.ListQuarantine(control.MaxListed)
	if err != nil {
		return control.EventList{}, err
	}
	list := control.EventList{Counts: m.eventsState(), Quarantine: make([]control.QuarantinedEvent, 0, len(set))}
	for _, event := range set {
		list.Quarantine = append(list.Quarantine, quarantined(event))
	}
	return list, nil
}

func quarantined(q spool.Quarantined) control.QuarantinedEvent {
	var said struct{ Source, Summary string }
	if err := json.Unmarshal(q.Event, &said); err != nil {
		said.Summary = "unreadable: " + err.Error()
	}
	return control.QuarantinedEvent{
		ID: q.ID, Service: q.Origin, Received: q.Received, Since: q.Since, Reason: q.Reason,
		Source: said.Source, Summary: said.Summary, Bytes: len(q.Event),
	}
}

// RetryEvents lets events of the quarantine go to the server again.
func (m *manager) RetryEvents(ctx context.Context, retry control.Retry) (int, error) {
	if err := retry.Validate(); err != nil {
		return 0, err
	}
	ids := retry.IDs
	if retry.All {
		ids = nil
	}
	n, err := m.spool.RetryQuarantine(ctx, ids...)
	if err != nil {
		return 0, err
	}
	m.uploader.Kick()
	return n, nil
}
