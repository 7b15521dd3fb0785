package app

import (
	"context"
	"time"

	"go.uber.org/zap"

	"honeysens.org/dockersensor/manager/internal/network"
)

// tellAttempts tells the server what honeypots tried and may not, until ctx ends.
func (m *manager) tellAttempts(ctx context.Context) {
	attempts := network.NewAttempts()
	for {
		state := m.keeper.state()
		err := attempts.Report(time.Now(), state.observed, func(summary, details string) error {
			m.log.Warn("honeypot was stopped", zap.String("what", summary))
			return m.notice(ctx, summary, details)
		})
		if err != nil && ctx.Err() == nil {
			m.log.Warn("attempts of honeypots are not told yet", zap.Error(err))
		}
		select {
		case <-state.changed:
		case <-ctx.Done():
			return
		}
	}
}
