package network

import (
	"context"
	"fmt"
	"net/http"

	"honeysens.org/dockersensor/shared/helperapi"
)

// Release asks the helper to let go of everything but the interface, for another
// sensor on this host. Apply takes it again. Errors are those of Apply.
func (c *Client) Release(ctx context.Context) error {
	var observed helperapi.Observed
	if err := c.do(ctx, http.MethodDelete, helperapi.PathNetwork, nil, &observed); err != nil {
		return fmt.Errorf("release network: %w", err)
	}
	return nil
}
