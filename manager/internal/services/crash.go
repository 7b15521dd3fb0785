package services

import (
	"fmt"
	"time"
)

const (
	// A honeypot that ends is started again after crashPause, which doubles up
	// to crashPauseMax with each further end, until it has run for crashForgiven.
	crashPause    = time.Second
	crashPauseMax = time.Minute
	crashForgiven = time.Minute
	// crashSettled is how long a honeypot that crashed must run to be called
	// running again.
	crashSettled = 10 * time.Second
	// crashMany is from how many ends in a row on a service is in error.
	crashMany = 3
)

// crash remembers the ends of one honeypot.
type crash struct {
	// config is the fingerprint of what crashed; something else starts afresh.
	config   string
	failures int
	// seen is when what was counted last happened.
	seen time.Time
	next time.Time
	// reason says how it ended.
	reason string
}

// ended counts the end of the container, once.
func (c *crash) ended(container *Container, lastLine func() string) {
	if container.Started.IsZero() || container.Finished.Equal(c.seen) {
		return
	}
	c.seen = container.Finished
	if container.Finished.Sub(container.Started) >= crashForgiven {
		c.failures = 0
	}
	c.reason = fmt.Sprintf("it ended with code %d", container.ExitCode)
	if container.OutOfMemory {
		c.reason += " since it had no memory left"
	}
	if line := lastLine(); line != "" {
		c.reason += ": " + line
	}
	c.count()
}

// history is what is remembered of a service's containers.
type history struct {
	sandbox, honeypot crash
	health            health
	// switched is when attackers were led to another honeypot of the service.
	switched time.Time
}

// launched counts the making of a sandbox. There is one only in the life of a
// service; when it is more, something keeps ending or refusing it.
func (c *crash) launched(err error) {
	now := time.Now()
	if now.Sub(c.seen) >= crashForgiven {
		c.failures = 0
	}
	c.seen = now
	c.reason = "its sandbox ended"
	if err != nil {
		c.reason = clean(err.Error())
	}
	c.count()
}

// convicted counts a container that was ended for using too much.
func (c *crash) convicted(container *Container, reason string) {
	if time.Since(container.Started) >= crashForgiven {
		c.failures = 0
	}
	c.config, c.reason = container.Config, reason
	c.count()
}

// failed counts a container that could not be made or started.
func (c *crash) failed(err error) {
	c.reason = clean(err.Error())
	c.count()
}

func (c *crash) count() {
	c.next = time.Now().Add(backoff(crashPause, crashPauseMax, c.failures))
	c.failures++
}

// text says what happened and when it goes on.
func (c *crash) text() string {
	wait := max(time.Until(c.next).Round(time.Second), 0)
	return clean(fmt.Sprintf("%s; started again in %s (end %d in a row)", c.reason, wait, c.failures))
}

// recovering tells whether the container, which runs, has crashed lately.
func (c *crash) recovering(container *Container) bool {
	return c.failures > 0 && time.Since(container.Started) < crashSettled
}
