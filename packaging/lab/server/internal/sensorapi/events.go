package sensorapi

import (
	"net/http"

	"go.uber.org/zap"

	"honeysens.org/dockersensor/packaging/lab/admin"
	"honeysens.org/dockersensor/packaging/lab/server/internal/wire"
)

// events stores a batch, all of it or nothing. The same batch twice is stored
// twice.
func (a *API) events(sensor admin.Sensor, body []byte) answer {
	batch, err := wire.ParseEvents(body)
	if err != nil {
		return a.refusal(err)
	}
	if a.faults.poisoned(batch) {
		return invalid
	}
	if err := a.store.AddEvents(sensor.ID, batch); err != nil {
		return failure(err.Error())
	}
	a.log.Info("events stored", zap.Int("sensor", sensor.ID), zap.Int("events", len(batch)))
	return answer{status: http.StatusOK, sensor: &sensor}
}
