package hsapi

import (
	"context"
	"fmt"
)

const eventsPath = "api/events"

// PostEvents hands events to the server: a JSON list, at best of no more than
// 500 events and 1 MB. When it returns nil all of them are stored, else none
// is, unless the answer was lost on its way: then they may be stored all the
// same, and are stored again when they are sent again.
//
// IsRejected tells of an error that the same list will meet again: one of its
// events is not acceptable. Every error but that of an ended context is an
// *Error.
func (c *Client) PostEvents(ctx context.Context, list []byte) error {
	const op = "send events"
	body, err := envelope("events", list, nil)
	if err != nil {
		return fmt.Errorf("%s: encode: %w", op, err)
	}
	stamp := c.clock().now(c.cfg.Now()).Unix()
	_, err = c.post(ctx, request{op: op, path: eventsPath, body: body, stamp: stamp})
	return err
}
