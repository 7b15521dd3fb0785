package nft

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"honeysens.org/dockersensor/shared/nettest"
)

// watch runs Watch until the test ends, and counts changes by others. The first
// one says that it listens.
func watch(t *testing.T, table *Table) *atomic.Int64 {
	t.Helper()
	var foreign atomic.Int64
	ctx, cancel := context.WithCancel(context.Background())
	var watcher sync.WaitGroup
	watcher.Go(func() {
		if err := table.Watch(ctx, func(context.Context) { foreign.Add(1) }); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); watcher.Wait() })
	until(t, "the watch listens", func() bool { return foreign.Load() > 0 })
	return &foreign
}

func (t *Table) observedHeals(tb testing.TB) uint64 {
	tb.Helper()
	o, err := t.Observe(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	return o.Heals
}

func TestNetnsWatchHeals(t *testing.T) {
	t.Parallel()
	nettest.Need(t, "nft")
	h := nettest.NewHost(t, "host")
	table := open(t, h)
	// As on a kernel that knows no owners, where others can do what they like.
	table.flags = 0
	apply(t, table, example())
	watch(t, table)
	before := listing(h)
	if n := table.observedHeals(t); n != 0 {
		t.Fatalf("%d heals before anything happened", n)
	}
	const name = "honeysens-0123456789ab"
	damages := []string{
		"flush ruleset",
		"delete table inet " + name,
		"flush chain inet " + name + " guard",
		"delete element inet " + name + " assigned { tcp . 22 }",
		"add rule inet " + name + " guard accept",
		"delete table bridge " + name,
		"flush chain bridge " + name + " genuine",
	}
	for _, damage := range damages {
		heals, start := table.observedHeals(t), time.Now()
		h.Run("nft", damage)
		until(t, damage+" is healed", func() bool { return table.observedHeals(t) > heals })
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("%s was healed after %s", damage, took)
		}
		if diff := cmp.Diff(before, listing(h)); diff != "" {
			t.Errorf("after %s (-before +healed):\n%s", damage, diff)
		}
	}
}

func TestNetnsWatchTellsOwnChangesFromOthers(t *testing.T) {
	t.Parallel()
	nettest.Need(t, "nft")
	h := nettest.NewHost(t, "host")
	table := open(t, h)
	table.flags = 0
	apply(t, table, example())
	foreign := watch(t, table)
	for range 3 {
		apply(t, table, example())
		if err := table.Heartbeat(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	seen := foreign.Load()
	h.Run("nft", "add table inet other { chain forward { type filter hook forward priority 0; policy drop; }; }")
	// The watch takes changes in order: with this one it has seen all before.
	until(t, "the other table is seen", func() bool { return foreign.Load() > seen })
	if n := table.observedHeals(t); n != 0 {
		t.Errorf("%d heals of what the sensor has written itself", n)
	}
}

func TestNetnsHeartbeatHeals(t *testing.T) {
	t.Parallel()
	nettest.Need(t, "nft")
	h := nettest.NewHost(t, "host")
	table := open(t, h)
	table.flags = 0
	apply(t, table, example())
	before := listing(h)
	h.Run("nft", "flush", "ruleset")
	if err := table.Heartbeat(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, listing(h)); diff != "" || table.observedHeals(t) != 1 {
		t.Errorf("%d heals, ruleset (-before +after):\n%s", table.observedHeals(t), diff)
	}
}

// A table that goes between the look at it and the transaction is put back at once.
func TestNetnsHealsWhatGoesMeanwhile(t *testing.T) {
	t.Parallel()
	nettest.Need(t, "nft")
	h := nettest.NewHost(t, "host")
	table := open(t, h)
	table.flags = 0
	apply(t, table, example())
	name := table.want.Name
	for range 30 {
		gone := make(chan error, 1)
		go func() {
			_, err := h.Try("nft", "delete", "table", "inet", name)
			gone <- err
		}()
		for waiting := true; waiting; {
			if err := table.Heal(t.Context()); err != nil {
				t.Error(err)
			}
			select {
			case err := <-gone:
				waiting = false
				if err != nil {
					t.Error(err)
				}
			default:
			}
		}
	}
}

func TestClassify(t *testing.T) {
	named := func(kind netlink.HeaderType, family byte, table string, pid uint32) netlink.Message {
		attrs, err := netlink.MarshalAttributes([]netlink.Attribute{{Type: 1, Data: append([]byte(table), 0)}})
		if err != nil {
			t.Fatal(err)
		}
		return netlink.Message{
			Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | kind, PID: pid},
			Data:   append(nfgen(family, 0), attrs...),
		}
	}
	tests := map[string]struct {
		message netlink.Message
		want    change
	}{
		"own change":           {named(unix.NFT_MSG_NEWRULE, unix.NFPROTO_INET, "mine", 7), change{}},
		"by another":           {named(unix.NFT_MSG_DELTABLE, unix.NFPROTO_INET, "mine", 8), change{ours: true}},
		"elements by another":  {named(unix.NFT_MSG_DELSETELEM, unix.NFPROTO_INET, "mine", 8), change{ours: true}},
		"same name, ip":        {named(unix.NFT_MSG_NEWRULE, unix.NFPROTO_IPV4, "mine", 8), change{others: true}},
		"another table":        {named(unix.NFT_MSG_DELCHAIN, unix.NFPROTO_INET, "theirs", 8), change{others: true}},
		"elements of another":  {named(unix.NFT_MSG_NEWSETELEM, unix.NFPROTO_INET, "theirs", 8), change{}},
		"generation":           {named(unix.NFT_MSG_NEWGEN, unix.NFPROTO_INET, "mine", 8), change{}},
		"too short":            {netlink.Message{Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES << 8}, Data: []byte{1}}, change{}},
		"attribute cut off":    {netlink.Message{Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES << 8}, Data: []byte{1, 0, 0, 0, 200, 0, 1, 0}}, change{others: true}},
		"of another subsystem": {netlink.Message{Header: netlink.Header{Type: unix.NFNL_SUBSYS_CTNETLINK << 8}, Data: nfgen(0, 0)}, change{}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := classify(test.message, "mine", 7); got != test.want {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}

// FuzzParseRule: rules of others are read as they come.
func FuzzParseRule(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{2, 0, 0, 0, 12, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 9})
	f.Add([]byte{2, 0, 0, 0, 9, 0, 7, 0, 0, 3, 'h', 'i', 0, 0, 0, 0})
	f.Add([]byte{2, 0, 0, 0, 8, 0, 7, 0, 0, 200, 'h', 'i'})
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := parseRule(data)
		if err == nil && len(r.Comment) > len(data) {
			t.Errorf("comment of %d bytes from %d", len(r.Comment), len(data))
		}
	})
}
