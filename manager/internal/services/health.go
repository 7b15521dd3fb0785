package services

import (
	"fmt"
	"strings"
	"time"

	"honeysens.org/dockersensor/shared/helperapi"
)

const (
	// answerPatience is how long a honeypot may take from its start until it
	// waits at its ports: those written in Python take half a minute on a small
	// machine.
	answerPatience = time.Minute
	// lookSoon and lookAgain are the pauses between two looks at a honeypot that
	// does not wait at its ports, within answerPatience and after it.
	lookSoon  = 250 * time.Millisecond
	lookAgain = 10 * time.Second
	// acceptPatience is how long a connection may stay unaccepted.
	acceptPatience = 10 * time.Second
)

// health is what the last looks at a running honeypot found. Nothing is sent to
// it: that would be an event.
type health struct {
	// silent are ports that lead to it and at which it does not wait.
	silent []helperapi.Port
	// stuck are the connections that nobody has accepted yet, since when.
	stuck map[waiting]time.Time
	// dialling counts the connections that it began without an answer.
	dialling int
}

// examine looks at the honeypot that attackers are led to, and at the one that
// is to follow it.
func (p *pass) examine(u *unit) {
	if front, _ := u.front(); front != u.pair {
		u.history.health = health{}
		return
	}
	u.history.health = p.look(u.pair, u.Ports, u.history.health)
	if len(u.history.health.silent) > 0 {
		if time.Since(u.honeypot.Started) < answerPatience {
			p.due(time.Now().Add(lookSoon))
			return
		}
		p.due(time.Now().Add(lookAgain))
	}
	if len(u.history.health.stuck) > 0 {
		p.due(time.Now().Add(lookAgain))
	}
}

// look tells how a honeypot is. Of one that takes packets by itself, or that has
// the sensor's own network, nothing can be told.
func (p *pass) look(at pair, ports []helperapi.Assignment, before health) health {
	if !at.runs() || at.sandbox == nil {
		return health{}
	}
	found, err := p.sockets(at.sandbox.PID)
	if err != nil {
		// It has ended since; the next pass knows.
		return health{}
	}
	h := health{dialling: found.dialling, stuck: map[waiting]time.Time{}}
	if found.packets {
		return h
	}
	for _, a := range ports {
		if to := (helperapi.Port{Protocol: a.Port.Protocol, Number: a.To}); !found.open[to] {
			h.silent = append(h.silent, to)
		}
	}
	for connection := range found.unaccepted {
		h.stuck[connection] = time.Now()
		if since, known := before.stuck[connection]; known {
			h.stuck[connection] = since
		}
	}
	return h
}

// complaint says what is wrong with a honeypot that runs, or "".
func (h health) complaint() string {
	if len(h.silent) > 0 {
		names := make([]string, 0, len(h.silent))
		for _, port := range h.silent {
			names = append(names, port.String())
		}
		return clean("it runs, but does not wait at its port " + strings.Join(names, ", "))
	}
	for connection, since := range h.stuck {
		if time.Since(since) >= acceptPatience {
			return fmt.Sprintf("it runs, but accepts no connection at its port %d/tcp", connection.port)
		}
	}
	return ""
}
