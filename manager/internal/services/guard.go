package services

import (
	"context"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

const (
	// guardEvery is how often the use of each honeypot is looked at.
	guardEvery = 5 * time.Second
	// diskEvery is how often the free space is looked at: when it shrinks fast, so
	// is the use of each honeypot, since a disk can be full within guardEvery.
	// Once it has begun to shrink, hurriedEvery is.
	diskEvery    = time.Second
	hurriedEvery = time.Second / 4
	// maxLogBytes bounds what a honeypot may print within guardEvery.
	maxLogBytes = 1 << 20
	// maxDialling bounds the connections that a honeypot began and that nobody
	// answers: it looks for others to attack.
	maxDialling = 256
	// nearly is the part of its memory or of its file system at which a honeypot
	// cannot go on, in percent.
	nearly = 97
)

// Usage is what a honeypot uses.
type Usage struct {
	// Disk is the size of what it wrote into its file system, Memory that of its
	// own pages, without caches, both in bytes.
	Disk, Memory int64
	PIDs         int64
	// Written is what its file system has handed to the disk since it was made, in
	// bytes; WriteRate is that of the last seconds, in bytes a second.
	Written, WriteRate int64
	// LogLines and LogBytes are what it printed since the time in question;
	// counting ends at some limit.
	LogLines, LogBytes int
}

// excess says what the honeypot uses too much of, or "".
func (l Limits) excess(u Usage, dialling int) string {
	switch {
	case u.Disk*100 >= l.Disk*nearly:
		return fmt.Sprintf("it wrote %d MB to its file system, %d are allowed (SERVICE_DISK)", u.Disk>>20, l.Disk>>20)
	case u.WriteRate > l.WriteRate:
		return fmt.Sprintf("it wrote %d MB a second, %d are allowed (SERVICE_WRITE_RATE)", u.WriteRate>>20, l.WriteRate>>20)
	case u.PIDs >= l.PIDs:
		return fmt.Sprintf("it used all of its %d processes (SERVICE_PIDS)", l.PIDs)
	case u.Memory*100 >= l.Memory*nearly:
		return fmt.Sprintf("it used all of its %d MB of memory (SERVICE_MEMORY)", l.Memory>>20)
	case u.LogLines > l.LogRate*int(guardEvery/time.Second) || u.LogBytes >= maxLogBytes:
		return fmt.Sprintf("it printed more than %d lines a second (SERVICE_LOG_RATE)", l.LogRate)
	case dialling > maxDialling:
		return fmt.Sprintf("it tried to reach others by %d connections at a time", dialling)
	}
	return ""
}

// guard looks at what honeypots use until the context ends, and has those ended
// that use more than their share.
func (s *Services) guard(ctx context.Context) {
	timer := time.NewTimer(guardEvery)
	defer timer.Stop()
	last, free := time.Now(), s.free()
	before := free
	for honeypots := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		now := s.free()
		if time.Since(last) >= guardEvery || free-now > s.cfg.Limits.Disk/2 {
			honeypots = s.judgeAll(ctx)
			last, free = time.Now(), now
		}
		timer.Reset(s.untilNextLook(honeypots, before-now))
		before = now
	}
}

// untilNextLook is the time to the next look after some bytes of the disk were taken. A
// manager without honeypots sleeps.
func (s *Services) untilNextLook(honeypots int, taken int64) time.Duration {
	switch {
	case honeypots == 0 || s.cfg.DataDir == "":
		return guardEvery
	case taken > s.cfg.Limits.Disk/16:
		return hurriedEvery
	}
	return diskEvery
}

// free is the free space where honeypots write, in bytes; 0 when it is unknown.
func (s *Services) free() int64 {
	var fs unix.Statfs_t
	if s.cfg.DataDir == "" || unix.Statfs(s.cfg.DataDir, &fs) != nil {
		return 0
	}
	return int64(fs.Bfree) * fs.Bsize // #nosec G115 -- of one disk
}

// judgeAll looks at each honeypot that runs, and returns their number.
func (s *Services) judgeAll(ctx context.Context) (honeypots int) {
	containers, err := s.engine.Containers(ctx)
	if err != nil {
		// The passes tell of an engine that does not answer.
		return 0
	}
	s.writes.forget(containers)
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, together)
	for _, c := range containers {
		if c.Role != Honeypot || !c.Running {
			continue
		}
		honeypots++
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			s.judgeUse(ctx, c)
		})
	}
	return honeypots
}

func (s *Services) judgeUse(ctx context.Context, c Container) {
	usage, err := s.engine.Usage(ctx, c.ID, time.Now().Add(-guardEvery))
	if err != nil {
		s.log.Debug("use of a service is unknown", zap.String("service", c.Service), zap.Error(err))
		return
	}
	usage.WriteRate = s.writes.rate(c.ID, usage.Written, time.Now())
	dialling := 0
	if found, err := s.sockets(c.PID); err == nil && c.Network != "host" {
		dialling = found.dialling
	}
	reason := s.cfg.Limits.excess(usage, dialling)
	if reason == "" {
		return
	}
	s.mu.Lock()
	s.offences[c.ID] = reason
	s.mu.Unlock()
	s.Wake()
}

// convict ends the honeypot that uses more than its share, with what it wrote.
// It is started again as after a crash.
func (p *pass) convict(ctx context.Context, u *unit) {
	if u.honeypot == nil {
		return
	}
	p.Services.mu.Lock()
	reason := p.offences[u.honeypot.ID]
	delete(p.offences, u.honeypot.ID)
	p.Services.mu.Unlock()
	if reason == "" {
		return
	}
	p.log.Warn("service uses more than its share and is ended", zap.String("service", u.ID), zap.String("reason", reason))
	u.history.honeypot.convicted(u.honeypot, reason)
	p.remove(ctx, u.honeypot.ID, u.ID)
	u.honeypot = nil
	p.due(u.history.honeypot.next)
}
