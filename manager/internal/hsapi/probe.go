package hsapi

import (
	"context"
	"errors"
)

// nobodysFirmware asks for an archive that no server has: the largest id of its
// database. An honest answer is 404 with the server's time, and it is given
// only to a sensor whose signature and clock are right (measured on a HoneySens
// server 2.9.0). Unlike a poll it changes nothing at the server.
const nobodysFirmware = "api/platforms/firmware/2147483647/raw"

// Probe asks the server for what it does not have: nil means that it is reached
// and knows the sensor with its secret. It leaves no trace at the server, and
// tells the client the server's time.
func (c *Client) Probe(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	ep := c.ep.Load()
	r := request{op: "ask the server", path: nobodysFirmware, stamp: ep.clock.now(c.cfg.Now()).Unix()}
	response, err := c.send(limited, ep, r)
	if err != nil {
		return c.unanswered(ctx, ep, r.op, err)
	}
	defer response.Body.Close()
	if err := c.judgeFirmware(ep, r, response); ClassOf(err) != ClassNotFound {
		return err
	}
	return nil
}

// askTime learns the server's time before the first status: one from the future
// would be held against every later one. Only what keeps the poll from an
// answer, too, is an error.
func (c *Client) askTime(ctx context.Context, op string) error {
	err := c.Probe(ctx)
	var e *Error
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &e):
		return err
	case e.Status != 0 && e.Class != ClassProxy:
		return nil // the poll will be told the same, or better
	}
	e.Op = op
	return e
}

// explainRejected tells why a status was refused with 400, which a server says of
// a sensor that it does not know as well as of a status.
func (c *Client) explainRejected(ctx context.Context, err error) error {
	var e *Error
	if !errors.As(err, &e) || e.Class != ClassRejected {
		return err
	}
	class := ClassOf(c.Probe(ctx))
	if class == ClassRejected {
		e.Class, e.Problem = ClassUnknown, "the server does not know this sensor"
		e.Advice = "if it was deleted there, add it again and download its configuration"
	}
	if class == "" {
		e.Problem = "the server knows this sensor, but refuses its status"
		e.Advice = "if a clock was ahead before, the server takes a status again when that time is reached; else look into its log"
	}
	return e
}
