package nft

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/mdlayher/netlink"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// settle is how long Watch waits for more of the same change, and the least
// time between two repairs. A program that keeps removing the table costs a few
// transactions a second.
const settle = 150 * time.Millisecond

// Watch blocks until ctx ends, and returns nil then. It puts the table back
// when somebody else changes it, within a second, and calls foreign after
// changes of tables, chains and rules of others, a few times a second at most
// and never twice at once; and once at first, for what changed before it
// listened.
func (t *Table) Watch(ctx context.Context, foreign func(context.Context)) error {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: t.cfg.NetNS})
	if err != nil {
		return fmt.Errorf("watch: open netfilter connection: %w", err)
	}
	defer func() { _ = conn.Close() }()
	if err := enlarge(conn); err != nil {
		return fmt.Errorf("watch: %w", err)
	}
	if err := conn.JoinGroup(unix.NFNLGRP_NFTABLES); err != nil {
		return fmt.Errorf("watch: join nftables group: %w", err)
	}
	changes := make(chan change, 1)
	changes <- change{others: true}
	var listener sync.WaitGroup
	listener.Go(func() { t.listen(ctx, conn, changes) })
	t.answer(ctx, changes, foreign)
	// The listener sees that ctx has ended as soon as it stops waiting.
	err = conn.SetReadDeadline(time.Now())
	listener.Wait()
	return err
}

// change says whose things were changed.
type change struct{ ours, others bool }

func (c change) and(other change) change {
	return change{ours: c.ours || other.ours, others: c.others || other.others}
}

// listen turns messages of the kernel into changes until ctx ends.
func (t *Table) listen(ctx context.Context, conn *netlink.Conn, changes chan change) {
	for ctx.Err() == nil {
		messages, err := conn.Receive()
		if ctx.Err() != nil {
			return
		}
		var c change
		switch {
		case errors.Is(err, unix.ENOBUFS):
			// Messages are lost; anything may have happened.
			c = change{ours: true, others: true}
		case err != nil:
			t.log.Warn("nftables watch cannot read", zap.Error(err))
			wait(ctx, time.Second)
			c = change{ours: true, others: true}
		}
		name, own := t.self()
		for _, m := range messages {
			c = c.and(classify(m, name, own))
		}
		publish(changes, c)
	}
}

// publish hands a change over without waiting: one that waits takes it in.
func publish(changes chan change, c change) {
	if !c.ours && !c.others {
		return
	}
	for {
		select {
		case changes <- c:
			return
		default:
		}
		select {
		case earlier := <-changes:
			c = c.and(earlier)
		default:
		}
	}
}

// self returns the name of the table and the id of the socket that writes it.
func (t *Table) self() (string, uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.want == nil {
		return "", 0
	}
	return t.want.Name, t.raw.PID()
}

// classify reads the one attribute that all messages begin with, the name of
// the table, and who sent it.
func classify(m netlink.Message, table string, own uint32) change {
	if m.Header.Type>>8 != unix.NFNL_SUBSYS_NFTABLES || m.Header.PID == own && own != 0 || len(m.Data) < 4 {
		return change{}
	}
	kind := m.Header.Type & 0xff
	if kind == unix.NFT_MSG_NEWGEN {
		return change{}
	}
	ad, err := netlink.NewAttributeDecoder(m.Data[4:])
	if err != nil {
		return change{}
	}
	const tableName = 1 // NFTA_TABLE_NAME, NFTA_CHAIN_TABLE, NFTA_RULE_TABLE and so on
	for ad.Next() {
		if ad.Type() == tableName && ad.String() == table && (m.Data[0] == unix.NFPROTO_INET || m.Data[0] == unix.NFPROTO_BRIDGE) {
			return change{ours: true}
		}
	}
	switch kind {
	case unix.NFT_MSG_NEWTABLE, unix.NFT_MSG_DELTABLE, unix.NFT_MSG_NEWCHAIN, unix.NFT_MSG_DELCHAIN, unix.NFT_MSG_NEWRULE, unix.NFT_MSG_DELRULE:
		return change{others: true}
	default:
		// Elements of sets: others add and remove them all the time.
		return change{}
	}
}

// answer acts upon changes until ctx ends.
func (t *Table) answer(ctx context.Context, changes chan change, foreign func(context.Context)) {
	for {
		select {
		case <-ctx.Done():
			return
		case c := <-changes:
			if !wait(ctx, settle) {
				return
			}
			select {
			case more := <-changes:
				c = c.and(more)
			default:
			}
			t.act(ctx, changes, c, foreign)
		}
	}
}

func (t *Table) act(ctx context.Context, changes chan change, c change, foreign func(context.Context)) {
	if c.ours {
		if err := t.Heal(ctx); err != nil && ctx.Err() == nil {
			t.log.Error("table cannot be put back", zap.Error(err))
			wait(ctx, time.Second)
			publish(changes, change{ours: true})
		}
	}
	if c.others && foreign != nil {
		foreign(ctx)
	}
}

// wait returns false when ctx ended first.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// Heal puts the table back as it was applied last, and counts that.
func (t *Table) Heal(ctx context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if t.want == nil {
		return nil
	}
	return t.heal()
}

func (t *Table) heal() error {
	if err := t.apply(t.want); err != nil {
		return fmt.Errorf("heal: %w", err)
	}
	t.heals++
	t.lastHeal = time.Now()
	t.log.Warn("table healed", zap.String("table", t.want.Name), zap.Uint64("heals", t.heals))
	return nil
}
