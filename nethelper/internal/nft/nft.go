package nft

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"honeysens.org/dockersensor/nethelper/internal/ruleset"
	"honeysens.org/dockersensor/shared/helperapi"
)

// Config says where the table is.
type Config struct {
	// NetNS is a descriptor of the network namespace; 0 means that of the process.
	NetNS int
}

// Table is the table of this sensor in the kernel.
type Table struct{}

// Open connects to the kernel. It changes nothing.
func Open(log *zap.Logger, cfg Config) (*Table, error) { return nil, errors.ErrUnsupported }

// Close ends the connections. The table stays.
func (t *Table) Close() error { return nil }

// Apply puts the wanted table in force, all or nothing.
func (t *Table) Apply(ctx context.Context, want *ruleset.Table) error { return errors.ErrUnsupported }

// Heartbeat keeps redirection alive; call it several times a
// ruleset.DefaultHeartbeat.
func (t *Table) Heartbeat(ctx context.Context) error { return errors.ErrUnsupported }

// Observed is what the kernel tells about the table.
type Observed struct {
	// Redirected counts connections, by service id.
	Redirected map[string]helperapi.Counter
	Refused    helperapi.Counter
	Conflicts  []helperapi.Conflict
	Heals      uint64
	LastHeal   time.Time
}

// Observe reads counters and conflicts.
func (t *Table) Observe(ctx context.Context) (Observed, error) {
	return Observed{}, errors.ErrUnsupported
}

// Remove takes the table away.
func (t *Table) Remove(ctx context.Context) error { return errors.ErrUnsupported }

// Watch blocks until ctx ends. It puts the table back when somebody else
// changes it, and calls foreign after changes of other tables, at most a few
// times a second, never twice at once.
func (t *Table) Watch(ctx context.Context, foreign func(context.Context)) error {
	return errors.ErrUnsupported
}

// Cleanup removes the tables of sensors that match accepts and returns their
// names. The table of a sensor that is alive and owns it is an error.
func Cleanup(ctx context.Context, cfg Config, match func(table string) bool) ([]string, error) {
	return nil, errors.ErrUnsupported
}
