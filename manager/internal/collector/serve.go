package collector

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"time"

	"go.uber.org/zap"

	"honeysens.org/dockersensor/shared/event"
	"honeysens.org/dockersensor/shared/zmtp"
)

// replyOK is what the plug-ins in the field wait for.
const replyOK = `{"status": "ok"}`

// maxReason bounds what a reply quotes, in bytes.
const maxReason = 200

// serve speaks with a peer until one of the two ends it.
func (c *Collector) serve(ctx context.Context, p *peer) {
	// A request that is complete is still answered.
	defer context.AfterFunc(ctx, func() { _ = p.raw.SetReadDeadline(time.Unix(1, 0)) })()
	if err := c.talk(ctx, p); err != nil && ctx.Err() == nil && !harmless(err) {
		c.counts.broken.Add(1)
		c.log.Warn("connection of a honeypot ended", zap.String("service", c.originOf(p)),
			zap.Stringer("from", p.raw.RemoteAddr()), zap.Error(err))
	}
}

// harmless tells how connections end that did nothing wrong.
func harmless(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, errIdle)
}

var errIdle = errors.New("idle for too long")

func (c *Collector) talk(ctx context.Context, p *peer) error {
	if err := c.within(ctx, p, c.cfg.Handshake); err != nil {
		return err
	}
	conn, err := zmtp.NewConn(p.raw, zmtp.Config{
		Type:       zmtp.TypeREP,
		Peers:      []string{zmtp.TypeREQ, zmtp.TypeDEALER},
		MaxMessage: c.cfg.MaxMessage,
	})
	if err != nil {
		return err
	}
	for {
		if err := c.waitForMessage(ctx, p, conn); err != nil {
			return err
		}
		if err := c.answer(ctx, p, conn); err != nil {
			return err
		}
	}
}

// within sets the deadline of the next step. The end of ctx sets one that is
// over: after it this returns an error, whichever of the two came first.
func (c *Collector) within(ctx context.Context, p *peer, d time.Duration) error {
	if err := p.raw.SetDeadline(time.Now().Add(d)); err != nil {
		return err
	}
	return ctx.Err()
}

func (c *Collector) waitForMessage(ctx context.Context, p *peer, conn *zmtp.Conn) error {
	if err := c.within(ctx, p, c.cfg.Idle); err != nil {
		return err
	}
	c.setIdle(p, time.Now())
	err := conn.Begin()
	c.setIdle(p, time.Time{})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return errIdle
	}
	return err
}

// answer reads what has begun, and replies when it is a message.
func (c *Collector) answer(ctx context.Context, p *peer, conn *zmtp.Conn) error {
	if err := c.within(ctx, p, c.cfg.Message); err != nil {
		return err
	}
	parts, isMessage, err := conn.Next()
	switch {
	case errors.Is(err, zmtp.ErrTooLarge), errors.Is(err, zmtp.ErrTooManyParts):
		c.counts.rejected.Add(1)
		return c.reply(p, conn, c.envelope(conn), errorReply(err.Error()))
	case err != nil:
		return err
	case !isMessage:
		c.counts.commands.Add(1)
		return nil
	}
	envelope, body, err := split(parts)
	if err != nil {
		c.counts.rejected.Add(1)
		return c.reply(p, conn, c.envelope(conn), errorReply(err.Error()))
	}
	return c.reply(p, conn, envelope, c.take(ctx, p, body))
}

func (c *Collector) reply(p *peer, conn *zmtp.Conn, envelope [][]byte, body []byte) error {
	// Not the read deadline: that may say that the collector ends.
	if err := p.raw.SetWriteDeadline(time.Now().Add(c.cfg.Message)); err != nil {
		return err
	}
	return conn.Send(append(envelope, body)...)
}

// envelope is for replies to what has none that can be read: a REQ needs one.
func (c *Collector) envelope(conn *zmtp.Conn) [][]byte {
	if conn.PeerType() == zmtp.TypeREQ {
		return [][]byte{nil}
	}
	return nil
}

// split takes a request apart: the parts up to the first empty one go back with
// the reply (RFC 28). A DEALER may leave them out.
func split(parts [][]byte) (envelope [][]byte, body []byte, err error) {
	if len(parts) == 1 {
		return nil, parts[0], nil
	}
	for i, part := range parts {
		if len(part) > 0 {
			continue
		}
		if i != len(parts)-2 {
			break
		}
		return parts[: i+1 : i+1], parts[i+1], nil
	}
	return nil, nil, errors.New("want an empty part and one with the event")
}

// take keeps an event and returns the reply.
func (c *Collector) take(ctx context.Context, p *peer, body []byte) []byte {
	received := time.Now()
	origin := c.originOf(p)
	if wait := c.paces.delay(origin, c.cfg.Rate, received); wait > 0 {
		c.log.Warn("service reports more than it may and is held back", zap.String("service", origin), zap.Int("events_a_second", c.cfg.Rate))
		pause(ctx, wait)
	}
	attacker, encoded, err := p.clean(body, received)
	if err != nil {
		c.counts.rejected.Add(1)
		c.log.Warn("event is beyond repair", zap.String("service", origin), zap.String("reason", clip(err.Error())))
		return errorReply(err.Error())
	}
	if c.marks.test(attacker, origin) {
		c.counts.tests.Add(1)
		return []byte(replyOK)
	}
	// The end of the collector is no reason to lose an event that is here.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.cfg.Keep)
	defer cancel()
	if _, err := c.sink.Append(ctx, event.Record{Origin: origin, Received: received, Event: encoded}); err != nil {
		c.counts.failed.Add(1)
		c.log.Error("event cannot be kept", zap.String("service", origin), zap.Error(err))
		return errorReply("the sensor cannot keep events at the moment")
	}
	c.counts.accepted.Add(1)
	return []byte(replyOK)
}

// clean repairs an event, one at a time for each source, and tells whom it is
// about.
func (s *source) clean(body []byte, received time.Time) (attacker string, encoded []byte, err error) {
	s.decode.Lock()
	defer s.decode.Unlock()
	e, err := event.Decode(body, received)
	if err != nil {
		return "", nil, err
	}
	encoded, err = json.Marshal(e)
	return e.Source, encoded, err
}

func errorReply(reason string) []byte {
	reply, err := json.Marshal(struct {
		Status string `json:"status"`
		Error  string `json:"error"`
	}{"error", clip(reason)})
	if err != nil {
		return []byte(`{"status": "error"}`)
	}
	return reply
}

func clip(reason string) string { return reason[:min(len(reason), maxReason)] }
