package app

import (
	"time"

	"go.uber.org/zap"
)

// tellOffset is from which difference of the clocks on the log warns. Less is
// usual without NTP, and shown in the status.
const tellOffset = 10 * time.Second

// clockWatch warns when the server's clock and the host's differ, and tells
// when they agree again. It belongs to the poller.
type clockWatch struct {
	log *zap.Logger
	// told is set while the newest word is the warning.
	told bool
}

// note is told the server's clock minus the host's.
func (w *clockWatch) note(offset time.Duration) {
	off := offset.Abs() >= tellOffset
	if off == w.told {
		return
	}
	w.told = off
	if !off {
		w.log.Info("the host's clock and the server's agree again")
		return
	}
	w.log.Warn("the host's clock and the server's differ; the sensor signs with the server's time; set the host's clock, by NTP at best",
		zap.Duration("server_ahead", offset.Round(time.Second)))
}
