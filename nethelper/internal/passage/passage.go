package passage

import (
	"context"
	"errors"
	"net/netip"

	"go.uber.org/zap"

	"honeysens.org/dockersensor/nethelper/internal/nft"
	"honeysens.org/dockersensor/shared/helperapi"
)

// Config says what has to get through.
type Config struct {
	Bridge               string
	V4, V6               netip.Prefix
	GatewayV4, GatewayV6 netip.Addr
	CollectorPort        uint16
	Egress               helperapi.Egress
}

// Passage keeps the way of one sensor open.
type Passage struct{}

// New makes the passage of the sensor with that container id.
func New(log *zap.Logger, sensorID string, where nft.Config) (*Passage, error) {
	return nil, errors.ErrUnsupported
}

// Ensure makes the passage where a firewall drops, and returns those that it
// found. It may be called as often as one likes.
func (p *Passage) Ensure(ctx context.Context, cfg Config) ([]helperapi.Firewall, error) {
	return nil, errors.ErrUnsupported
}

// Remove takes every rule of this sensor away from other people's chains.
func (p *Passage) Remove(ctx context.Context) error { return errors.ErrUnsupported }

// Cleanup is Remove for the sensors whose table name match accepts. It returns
// what it removed, in words.
func Cleanup(ctx context.Context, where nft.Config, match func(table string) bool) ([]string, error) {
	return nil, errors.ErrUnsupported
}
