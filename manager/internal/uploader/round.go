package uploader

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"go.uber.org/zap"

	"honeysens.org/dockersensor/shared/event"
)

// progress is what a round has done.
type progress int

const (
	nothing progress = iota
	// some: everything that waited was sent.
	some
	// full: there may be more to send at once.
	full
)

// maxUnacked ends sending when the spool takes no acknowledgements: a restart
// would send all of them a second time.
const maxUnacked = 10_000

// item is an event on its way.
type item struct {
	id   uint64
	json []byte
}

// round sends at most one full request, and single events besides.
func (u *Uploader) round(ctx context.Context) (progress, error) {
	defer u.countSuspects()
	if err := u.ack(ctx, nil); err != nil && len(u.unacked) > maxUnacked {
		return nothing, err
	}
	if err := u.reportLosses(ctx); err != nil {
		u.log.Error("losses cannot be reported", zap.Error(err))
	}
	if err := u.convictKnown(ctx); err != nil {
		return nothing, err
	}
	if u.outage {
		return u.probe(ctx)
	}
	items, result, err := u.load(ctx, u.cfg.MaxEvents, u.isSuspect)
	if err == nil && result == nothing {
		items, result, err = u.load(ctx, 1, func(id uint64) bool { return !u.isDue(id) })
	}
	if err != nil || len(items) == 0 {
		return result, err
	}
	return result, u.send(ctx, items)
}

// send delivers events, and draws the conclusions from what was refused last.
func (u *Uploader) send(ctx context.Context, items []item) error {
	u.took = false
	if err := u.deliver(ctx, items); err != nil {
		return err
	}
	switch {
	case u.refusal == nil:
		return nil
	case !u.took:
		return u.inOutage()
	case u.refusedInRow == 1:
		// All of them were refused, all but one were taken: it is that one.
		return u.convict(ctx, u.refused, u.suspects[u.refused].needed())
	default:
		return nil
	}
}

// probe sends one event, by chance: so it soon finds one that is taken, when
// there is one.
func (u *Uploader) probe(ctx context.Context) (progress, error) {
	records, err := u.peek(ctx, u.cfg.MaxEvents, u.isSuspect)
	if err == nil && len(records) == 0 {
		// All of them were tried: begin again.
		maps.DeleteFunc(u.suspects, func(_ uint64, s *suspect) bool { return s.refusals == 0 })
		records, err = u.peek(ctx, u.cfg.MaxEvents, func(uint64) bool { return false })
	}
	if err != nil {
		return nothing, err
	}
	if len(records) == 0 {
		u.outage = false
		u.calm()
		return nothing, nil
	}
	at := rand.IntN(len(records)) // #nosec G404 -- no secret
	items, err := u.prepare(ctx, records[at:at+1])
	if err != nil || len(items) == 0 {
		return full, err
	}
	return full, u.send(ctx, items)
}

func (u *Uploader) isSuspect(id uint64) bool { return u.suspects[id] != nil }

// allTried tells whether there is no event that was not refused: then a new one
// need not wait for the end of the outage, since it may be none.
func (u *Uploader) allTried(ctx context.Context) bool {
	if !u.outage {
		return false
	}
	records, err := u.peek(ctx, 1, u.isSuspect)
	return err == nil && len(records) == 0
}

func (u *Uploader) isDue(id uint64) bool {
	s := u.suspects[id]
	return s != nil && !time.Now().Before(s.due)
}

// load returns the oldest events as the server can store them, as many as fit in
// a request. What it returns besides is full when more may be waiting.
func (u *Uploader) load(ctx context.Context, n int, skip func(uint64) bool) ([]item, progress, error) {
	records, err := u.peek(ctx, n, skip)
	if err != nil || len(records) == 0 {
		return nil, nothing, err
	}
	items, err := u.prepare(ctx, records)
	if err != nil {
		return nil, nothing, err
	}
	size := len("[]")
	for i, it := range items {
		if size += len(it.json) + len(","); size > u.budget() && i > 0 {
			return items[:i], full, nil
		}
	}
	if len(records) == n {
		return items, full, nil
	}
	return items, some, nil
}

// budget is the size of a list of events that fits in a request.
func (u *Uploader) budget() int { return u.cfg.MaxBody / 4 * 3 }

func (u *Uploader) peek(ctx context.Context, n int, skip func(uint64) bool) ([]event.Record, error) {
	return u.spool.Peek(ctx, n, u.budget(), func(id uint64) bool { return u.unacked[id] || skip(id) })
}

// prepare cleans events once more, since another version of the sensor may have
// written the spool, and sets aside what is none.
func (u *Uploader) prepare(ctx context.Context, records []event.Record) ([]item, error) {
	items := make([]item, 0, len(records))
	for _, r := range records {
		encoded, err := clean(r)
		if err == nil {
			items = append(items, item{id: r.ID, json: encoded})
			continue
		}
		if err := u.setAside(ctx, r.ID, err.Error()); err != nil {
			return nil, err
		}
	}
	return items, nil
}

func clean(r event.Record) ([]byte, error) {
	var e event.Event
	if err := json.Unmarshal(r.Event, &e); err != nil {
		return nil, fmt.Errorf("not an event: %w", err)
	}
	e.Clean(r.Received)
	return json.Marshal(e)
}

// deliver sends events until each of them was taken or refused alone. An error
// ends the round.
func (u *Uploader) deliver(ctx context.Context, items []item) error {
	err := u.post(ctx, items)
	switch {
	case err == nil:
		return u.taken(ctx, items)
	case !refused(err):
		return err
	case len(items) == 1:
		return u.suspect(items[0].id, err)
	}
	half := len(items) / 2
	if err := u.deliver(ctx, items[:half]); err != nil {
		return err
	}
	return u.deliver(ctx, items[half:])
}

func (u *Uploader) post(ctx context.Context, items []item) error {
	ctx, cancel := context.WithTimeout(ctx, u.cfg.Timeout)
	defer cancel()
	var list bytes.Buffer
	list.WriteByte('[')
	for i, it := range items {
		if i > 0 {
			list.WriteByte(',')
		}
		list.Write(it.json)
	}
	list.WriteByte(']')
	return u.server.PostEvents(ctx, list.Bytes())
}

// taken removes events that the server has, and uses the proof that it works.
func (u *Uploader) taken(ctx context.Context, items []item) error {
	if err := u.remove(ctx, items); err != nil {
		return err
	}
	u.proved()
	return u.judge(ctx)
}

func (u *Uploader) remove(ctx context.Context, items []item) error {
	u.succeeded(len(items))
	u.took = true
	ids := make([]uint64, len(items))
	for i, it := range items {
		ids[i] = it.id
		delete(u.suspects, it.id)
	}
	if err := u.ack(ctx, ids); err != nil && len(u.unacked) > maxUnacked {
		return err
	}
	return nil
}

// ack removes events from the spool, and those that could not be removed before.
// Until that works they are not sent again.
func (u *Uploader) ack(ctx context.Context, ids []uint64) error {
	for _, id := range ids {
		u.unacked[id] = true
	}
	if len(u.unacked) == 0 {
		return nil
	}
	// The server has them, also when the manager ends at this moment.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), u.cfg.Timeout)
	defer cancel()
	if err := u.spool.Ack(ctx, slices.Collect(maps.Keys(u.unacked))...); err != nil {
		u.log.Error("sent events cannot be removed from the spool", zap.Error(err))
		return err
	}
	clear(u.unacked)
	return nil
}

// lossEvery is how often the server is told of losses at most.
const lossEvery = time.Minute

// reportLosses puts an event about what was lost into the spool, when the
// server takes events.
func (u *Uploader) reportLosses(ctx context.Context) error {
	if u.outage || u.State().Error != "" || !u.lossReported.IsZero() && time.Since(u.lossReported) < lossEvery {
		return nil
	}
	reported, err := u.spool.ReportLosses(ctx, u.lossEvent)
	if reported {
		u.lossReported = time.Now()
	}
	return err
}

// lossEvent is what the server shows about losses.
func (u *Uploader) lossEvent(losses []event.Loss) (event.Record, error) {
	if len(losses) == 0 {
		return event.Record{}, errors.New("no losses")
	}
	now := time.Now()
	e := event.Event{Timestamp: now.Unix(), Service: event.ServiceGeneric, Source: u.cfg.Source()}
	total, unknown := uint64(0), false
	for _, l := range losses {
		total += l.Count
		count := "an unknown number of"
		if l.Count > 0 {
			count = fmt.Sprint(l.Count)
		} else {
			unknown = true
		}
		e.Details = append(e.Details, event.Detail{Timestamp: now.Unix(), Data: fmt.Sprintf("%s events received from %s to %s: %s",
			count, l.From.UTC().Format(time.RFC3339), l.To.UTC().Format(time.RFC3339), l.Why)})
	}
	e.Summary = fmt.Sprintf("Sensor lost %d events", total)
	if unknown {
		e.Summary = fmt.Sprintf("Sensor lost %d events or more", total)
	}
	e.Clean(now)
	encoded, err := json.Marshal(e)
	if err != nil {
		return event.Record{}, fmt.Errorf("encode loss: %w", err)
	}
	return event.Record{Received: now, Event: encoded}, nil
}
