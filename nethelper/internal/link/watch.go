package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/containernetworking/plugins/pkg/netlinksafe"
	"github.com/vishvananda/netlink"
)

// settle is how long Watch gathers changes before it tells of them again.
const settle = 250 * time.Millisecond

// watchBuffer holds some thousand messages, in bytes.
const watchBuffer = 1 << 20

// MTU returns the MTU of an interface. A missing one is an error of
// KindConflict.
func MTU(name string) (int, error) {
	found, err := outerInterface(name)
	if err != nil {
		return 0, err
	}
	return found.Attrs().MTU, nil
}

// Right tells whether the bridge is as laid out and forwards, and whether those
// of the ports that exist are at it. A port that does not exist ended with its
// service, which is nothing to repair.
func (b *Bridge) Right(want Layout, ports []string) (bool, error) {
	br, err := netlinksafe.LinkByName(b.name)
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("bridge %s: %w", b.name, err)
	}
	note, ours := parseRecord(br.Attrs().Alias)
	if !ours || note.sensor != b.sensor || br.Attrs().Flags&net.FlagUp == 0 {
		return false, nil
	}
	present, err := Addresses(br)
	if err != nil {
		return false, err
	}
	has := map[netip.Addr]bool{}
	for _, address := range present {
		has[address.Addr()] = true
	}
	if !has[want.GatewayV4] || (want.V6.IsValid() && !has[want.GatewayV6]) {
		return false, nil
	}
	forwards, err := b.forwards(note)
	if err != nil || !forwards {
		return false, err
	}
	return portsAt(br, ports)
}

func (b *Bridge) forwards(note record) (bool, error) {
	type switchOf struct{ family, iface, key string }
	switches := []switchOf{{ipv4, b.name, "forwarding"}, {ipv4, b.iface, "forwarding"}}
	switch note.v6 {
	case v6Force:
		switches = append(switches, switchOf{ipv6, b.name, "force_forwarding"}, switchOf{ipv6, b.iface, "force_forwarding"})
	case v6All:
		switches = append(switches, switchOf{ipv6, "all", "forwarding"})
	case v6None:
	}
	for _, s := range switches {
		value, err := readSysctl(s.family, s.iface, s.key)
		if err != nil || value != on {
			return false, err
		}
	}
	return true, nil
}

func portsAt(br netlink.Link, ports []string) (bool, error) {
	for _, name := range ports {
		port, err := netlinksafe.LinkByName(name)
		var missing netlink.LinkNotFoundError
		if errors.As(err, &missing) {
			continue
		}
		if err != nil {
			return false, fmt.Errorf("port %s: %w", name, err)
		}
		if port.Attrs().MasterIndex != br.Attrs().Index || port.Attrs().Flags&net.FlagUp == 0 {
			return false, nil
		}
	}
	return true, nil
}

// Watch calls changed after interfaces of the namespace were changed or
// removed, at most a few times a second, until ctx ends.
func Watch(ctx context.Context, changed func()) error {
	for ctx.Err() == nil {
		if err := watch(ctx, changed); err != nil {
			return err
		}
		// The kernel had more to tell than the buffer could hold.
		pause(ctx)
		changed()
	}
	return nil
}

// watch ends without an error when the subscription does.
func watch(ctx context.Context, changed func()) error {
	updates := make(chan netlink.LinkUpdate, 64)
	ended := make(chan struct{})
	err := netlink.LinkSubscribeWithOptions(updates, ended, netlink.LinkSubscribeOptions{ReceiveBufferSize: watchBuffer})
	if err != nil {
		return fmt.Errorf("subscribe to link changes: %w", err)
	}
	defer func() {
		close(ended)
		// The reader closes the channel once it has seen the end.
		for range updates {
			continue
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case _, ok := <-updates:
			if !ok {
				return nil
			}
			pause(ctx)
			for len(updates) > 0 {
				<-updates
			}
			changed()
		}
	}
}

// pause gathers changes that come together.
func pause(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(settle):
	}
}
