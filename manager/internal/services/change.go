package services

import (
	"context"
	"slices"
	"time"

	"go.uber.org/zap"

	"honeysens.org/dockersensor/shared/helperapi"
)

const (
	// changesTogether bounds how many services have two honeypots at a time:
	// both need memory.
	changesTogether = 2
	// drain is how long a honeypot goes on after attackers are led to its
	// successor. Connections of the last moment get their answer.
	drain = 5 * time.Second
	// spare is what the helper knows the other of two honeypots by.
	spare = "-other"
)

// pair is a sandbox with the honeypot in it. A service with raw network access
// has no sandbox.
type pair struct{ sandbox, honeypot *Container }

func (p pair) runs() bool { return p.honeypot != nil && p.honeypot.Running }

func (p pair) sandboxID() string {
	if p.sandbox == nil {
		return ""
	}
	return p.sandbox.ID
}

func (p pair) container() string {
	if p.honeypot == nil {
		return ""
	}
	return p.honeypot.ID
}

// choose decides which of its containers the service goes on with. What the
// helper has in force says which of two honeypots attackers are led to, and the
// fingerprint which of them is wanted, so nothing has to be remembered.
func (p *pass) choose(u *unit, pairs []pair) {
	var serving, wanted, empty *pair
	for n := range pairs {
		at := &pairs[n]
		switch {
		case p.isWanted(u, *at):
			wanted = at
		case at.honeypot == nil:
			empty = at
		}
		if !u.Raw && at.sandboxID() == p.connector.serves(u.ID) {
			serving = at
		}
	}
	switch {
	case wanted != nil:
		u.pair = *wanted
		u.old = p.former(u, pairs, wanted, serving)
		u.switched = serving == wanted
	case serving != nil && p.canFollow(u, *serving):
		u.old = *serving
		if empty != nil {
			u.pair = *empty
		}
	case serving != nil:
		u.pair = *serving
	case len(pairs) > 0:
		u.pair = pairs[0]
	}
	if u.old.sandbox != nil {
		p.changes++
	}
}

// isWanted tells whether a honeypot is made from what the server wants now.
func (p *pass) isWanted(u *unit, at pair) bool {
	if at.honeypot == nil || u.image == "" || !p.gateway().IsValid() {
		return false
	}
	return at.honeypot.Config == p.honeypotSpec(u.plan, u.image, at.sandboxID(), p.gateway()).fingerprint()
}

// former returns the honeypot that stays besides the wanted one: what serves
// until that answers, or what has served until a moment ago.
func (p *pass) former(u *unit, pairs []pair, wanted, serving *pair) pair {
	if serving != nil && serving != wanted && p.roomForTwo(u) {
		return *serving
	}
	until := u.history.switched.Add(drain)
	if serving != wanted || !time.Now().Before(until) {
		return pair{}
	}
	for n := range pairs {
		if &pairs[n] != wanted && pairs[n].sandbox != nil && pairs[n].runs() {
			p.due(until)
			return pairs[n]
		}
	}
	return pair{}
}

// canFollow tells whether a successor can be started beside the honeypot. It is
// replaced in its place when it does not run, or reports to an address that is
// no longer there.
func (p *pass) canFollow(u *unit, at pair) bool {
	if u.image == "" || !at.runs() || at.honeypot.Collector != p.gateway().String() || !p.roomForTwo(u) {
		return false
	}
	u.queued = p.changes >= changesTogether
	return !u.queued
}

// roomForTwo tells whether the helper can have two honeypots of the service.
func (p *pass) roomForTwo(u *unit) bool {
	return !u.Raw && p.spareID(u) != "" && len(p.units)+changesTogether <= helperapi.MaxServices
}

// spareID is the id of the other of two honeypots, or "" when there is none.
func (p *pass) spareID(u *unit) string {
	id := u.ID + spare
	taken := slices.ContainsFunc(p.units, func(other *unit) bool { return other.ID == id })
	if taken || !validID.MatchString(id) {
		return ""
	}
	return id
}

// change leads attackers to the wanted honeypot once that answers. One that
// never does is not given what the old one can still answer.
func (p *pass) change(u *unit) {
	if u.old.sandbox == nil || u.switched || !u.runs() {
		return
	}
	now := p.look(u.pair, u.Ports, health{})
	if len(now.silent) > 0 && p.answers(u) {
		due := lookSoon
		if time.Since(u.honeypot.Started) >= answerPatience {
			u.problem = clean("the new revision is not used, the old one stays: " + now.complaint())
			due = lookAgain
		}
		u.waiting = "its new revision starts, the old one runs until then"
		p.due(time.Now().Add(due))
		return
	}
	u.switched, u.history.switched = true, time.Now()
	u.history.health = now
	p.due(u.history.switched.Add(drain))
	p.log.Info("attackers are led to another honeypot", zap.String("service", u.ID),
		zap.String("container", u.container()), zap.String("before", u.old.container()))
}

// answers tells whether the old honeypot waits at the ports that lead to it.
func (p *pass) answers(u *unit) bool {
	ports, _ := p.assigned(u, u.old)
	return u.old.runs() && len(p.look(u.old, ports, health{}).silent) == 0
}

// front returns the honeypot that attackers are led to, and the other one.
func (u *unit) front() (front, other pair) {
	if u.old.sandbox == nil || u.switched {
		return u.pair, u.old
	}
	return u.old, u.pair
}

// assigned returns what leads to the honeypot in front. Ports lead to it from its
// first start on; a later crash changes nothing about them. The ports of a
// revision belong to it, so one that is to be replaced keeps what it was given,
// as far as nobody else wants it.
func (p *pass) assigned(u *unit, front pair) ([]helperapi.Assignment, bool) {
	switch given := p.connector.given(front.sandboxID()); {
	case front.honeypot == nil || front.honeypot.Started.IsZero():
		return nil, false
	case front.honeypot.Ref == u.Image || given == nil:
		return u.Ports, u.CatchAll
	default:
		ports := slices.DeleteFunc(slices.Clone(given.Ports), func(a helperapi.Assignment) bool { return p.wantedByOther(u, a.Port) })
		catchAll := given.CatchAll && !slices.ContainsFunc(p.units, func(o *unit) bool { return o != u && o.CatchAll })
		return ports, catchAll
	}
}

func (p *pass) wantedByOther(u *unit, port helperapi.Port) bool {
	return slices.ContainsFunc(p.units, func(other *unit) bool {
		return other != u && slices.ContainsFunc(other.Ports, func(a helperapi.Assignment) bool { return a.Port == port })
	})
}

// name gives the containers their names back: somebody may have changed them, and
// the old of two honeypots makes room.
func (p *pass) name(ctx context.Context, u *unit) {
	for _, c := range []struct {
		container *Container
		name      string
	}{
		{u.old.honeypot, formerName(honeypotName(u.ID))}, {u.old.sandbox, formerName(sandboxName(u.ID))},
		{u.honeypot, honeypotName(u.ID)}, {u.sandbox, sandboxName(u.ID)},
	} {
		if c.container == nil || c.container.Name == c.name {
			continue
		}
		if err := p.engine.Rename(ctx, c.container.ID, c.name); err != nil {
			p.log.Warn("container keeps its name", zap.String("service", u.ID), zap.Error(err))
			p.due(time.Now().Add(engineRetry))
		}
	}
}
