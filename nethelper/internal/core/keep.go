package core

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"go.uber.org/zap"

	"honeysens.org/dockersensor/shared/helperapi"
)

const (
	// beatInterval leaves room for three lost beats before the redirects end.
	beatInterval = 15 * time.Second
	// healTimeout bounds one repair.
	healTimeout = 10 * time.Second
)

// Run keeps the state in force until ctx ends: it beats the heart of the
// redirects, and repairs what others remove.
func (c *Core) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wake := make(chan struct{}, 1)
	changed := func() {
		select {
		case wake <- struct{}{}:
		default:
		}
	}
	errs := make(chan error, 4)
	var watchers sync.WaitGroup
	watchers.Go(func() { errs <- c.parts.Table.Watch(ctx, c.foreignChange) })
	watchers.Go(func() { errs <- c.parts.Passage.Watch(ctx, c.foreignChange) })
	watchers.Go(func() { errs <- c.parts.Host.WatchLinks(ctx, changed) })
	watchers.Go(func() { errs <- c.parts.Interface.Run(ctx) })
	defer watchers.Wait()
	defer cancel()
	beat := time.NewTicker(beatInterval)
	defer beat.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-errs:
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("watch the kernel: %w", err)
		case <-wake:
			c.check(ctx, false)
		case <-beat.C:
			c.check(ctx, true)
		}
	}
}

// check finds the links right, or makes them so, and beats the heart only then.
func (c *Core) check(ctx context.Context, beat bool) {
	ctx, cancel := context.WithTimeout(ctx, healTimeout)
	defer cancel()
	if c.lock(ctx) != nil {
		return
	}
	defer c.unlock()
	force := c.inForce()
	if force == nil {
		return
	}
	if err := c.heal(ctx, force); err != nil {
		c.complain(err)
		return
	}
	c.complaint = ""
	if !beat {
		return
	}
	if err := c.pass(ctx, force); err != nil {
		c.log.Error("keep passage open", zap.Error(err))
	}
	if err := c.parts.Table.Heartbeat(ctx); err != nil {
		c.log.Error("heartbeat", zap.Error(err))
	}
}

// complain logs what is wrong with the links once, not at every look.
func (c *Core) complain(err error) {
	if text := err.Error(); text != c.complaint {
		c.complaint = text
		c.log.Error("links are not right", zap.Error(err))
	}
}

// heal converges again when the links differ from the state in force.
func (c *Core) heal(ctx context.Context, force *state) error {
	right, err := c.parts.Links.Right(force.layout, force.ports())
	if err != nil || right {
		return err
	}
	if err := c.restore(ctx, force); err != nil {
		return err
	}
	c.mu.Lock()
	c.heals++
	c.lastHeal = time.Now()
	c.mu.Unlock()
	c.log.Warn("repaired links that somebody else had changed")
	return nil
}

// foreignChange looks at other people's firewalls again.
func (c *Core) foreignChange(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, healTimeout)
	defer cancel()
	if c.lock(ctx) != nil {
		return
	}
	defer c.unlock()
	if force := c.inForce(); force != nil {
		if err := c.pass(ctx, force); err != nil {
			c.log.Error("keep passage open", zap.Error(err))
		}
	}
}

// Adopt puts the state in force again that a killed helper had. Services that
// have gone since are left out. Without such a state there is nothing to do.
func (c *Core) Adopt(ctx context.Context) error {
	raw, err := os.ReadFile(c.cfg.StateFile)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("adopt: %w", err)
	}
	want, err := helperapi.DecodeNetwork(raw)
	if err != nil {
		return fmt.Errorf("adopt: %w", err)
	}
	if err := c.lock(ctx); err != nil {
		return err
	}
	defer c.unlock()
	want, sandboxes, err := c.living(want)
	if err != nil {
		return fmt.Errorf("adopt: %w", err)
	}
	defer closeAll(sandboxes)
	next, err := c.plan(want)
	if err != nil {
		return fmt.Errorf("adopt: %w", err)
	}
	if err := c.converge(ctx, next, sandboxes); err != nil {
		return fmt.Errorf("adopt: %w", err)
	}
	c.set(next)
	c.log.Info("adopted state", zap.Int("services", len(want.Services)))
	return nil
}

func (c *Core) save(want helperapi.Network) error {
	raw, err := json.Marshal(want)
	if err != nil {
		return fmt.Errorf("encode state: %w", err)
	}
	next := c.cfg.StateFile + ".next"
	if err := os.WriteFile(next, raw, 0o600); err != nil {
		return fmt.Errorf("save state: %w", err)
	}
	if err := os.Rename(next, c.cfg.StateFile); err != nil {
		return fmt.Errorf("save state: %w", err)
	}
	return nil
}

func (c *Core) forget() error {
	if err := os.Remove(c.cfg.StateFile); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("forget state: %w", err)
	}
	return nil
}
