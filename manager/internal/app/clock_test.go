package app

import (
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

func TestClockWatch(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	w := clockWatch{log: zap.New(core)}
	for _, offset := range []time.Duration{0, time.Second, 2 * time.Hour, 2 * time.Hour, -2 * time.Hour, time.Second, 0, -time.Minute} {
		w.note(offset)
	}
	var levels []string
	for _, entry := range logs.All() {
		levels = append(levels, entry.Level.String())
	}
	if len(levels) != 3 || levels[0] != "warn" || levels[1] != "info" || levels[2] != "warn" {
		t.Errorf("levels %q", levels)
	}
	if got := logs.All()[0].ContextMap()["server_ahead"]; got != 2*time.Hour {
		t.Errorf("told %v", got)
	}
}
