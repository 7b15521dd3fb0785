package network

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"honeysens.org/dockersensor/shared/helperapi"
)

// Probe asks the helper for a connection that arrives at the interface. Errors are
// those of Apply.
func (c *Client) Probe(ctx context.Context, want helperapi.Probe) (helperapi.ProbeResult, error) {
	var result helperapi.ProbeResult
	body, err := json.Marshal(want)
	if err != nil {
		return result, fmt.Errorf("encode probe: %w", err)
	}
	if err := c.do(ctx, http.MethodPost, helperapi.PathProbe, body, &result); err != nil {
		return result, fmt.Errorf("probe: %w", err)
	}
	return result, nil
}
