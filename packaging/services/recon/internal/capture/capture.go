package capture

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"honeysens.org/dockersensor/packaging/services/recon/internal/tracker"
)

// Capture is an open packet socket.
type Capture struct {
	file   *os.File
	ignore netip.Addr
	own    *flows
}

// New starts to see the packets of an interface; those from ignore, the
// collector, are no probes. It needs CAP_NET_RAW.
func New(iface string, ignore netip.Addr) (*Capture, error) {
	link, err := net.InterfaceByName(iface)
	if err != nil {
		return nil, fmt.Errorf("capture on %q: %w", iface, err)
	}
	file, err := open(link.Index)
	if err != nil {
		return nil, fmt.Errorf("capture on %q: %w", iface, err)
	}
	return &Capture{file: file, ignore: ignore.Unmap(), own: newFlows()}, nil
}

// Run gives every probe to take until the context ends, and closes the socket.
// It returns nil when the context ended. An interface that goes down for a
// while is waited for.
func (c *Capture) Run(ctx context.Context, take func(tracker.Probe)) error {
	stop := context.AfterFunc(ctx, func() { _ = c.file.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	defer func() { _ = c.file.Close() }()
	conn, err := c.file.SyscallConn()
	if err != nil {
		return fmt.Errorf("capture: %w", err)
	}
	buffer := make([]byte, snapLength)
	for {
		n, kind, err := receive(conn, buffer)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENETDOWN):
			continue
		case err != nil:
			return fmt.Errorf("capture: %w", err)
		}
		if probe, ok := c.look(time.Now(), kind, buffer[:n]); ok {
			take(probe)
		}
	}
}

// look decides about one packet.
func (c *Capture) look(now time.Time, kind uint8, data []byte) (tracker.Probe, bool) {
	p, ok := parse(data)
	if !ok {
		return tracker.Probe{}, false
	}
	if kind == unix.PACKET_OUTGOING && p.proto == protoUDP {
		c.own.sent(now, p)
	}
	if kind != unix.PACKET_HOST || p.source == c.ignore || !p.source.IsValid() || p.source.IsUnspecified() {
		return tracker.Probe{}, false
	}
	if p.proto == protoUDP && c.own.answers(now, p) {
		return tracker.Probe{}, false
	}
	probe, ok := p.probe()
	probe.Time = now
	return probe, ok
}
