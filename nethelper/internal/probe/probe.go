package probe

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"honeysens.org/dockersensor/shared/helperapi"
)

const (
	// attempts to connect, and the pause between two: networks lose packets, and
	// a honeypot may be starting.
	attempts     = 3
	attemptPause = time.Second
	// hearing is how long a honeypot may speak, and silence ends it before. Some
	// greet only after they have looked up who came.
	hearing = 3 * time.Second
	silence = time.Second
	// parting is how long it may take to part.
	parting = 2 * time.Second
)

// Prober makes probes at one interface.
type Prober struct {
	iface string
	busy  chan struct{}
}

// New returns a prober for an interface, which need not be there yet.
func New(iface string) *Prober { return &Prober{iface: iface, busy: make(chan struct{}, 1)} }

// Connect makes one connection, or sends one datagram. It takes up to ten
// seconds.
func (p *Prober) Connect(ctx context.Context, bridge string, want helperapi.Probe) (result helperapi.ProbeResult, err error) {
	select {
	case p.busy <- struct{}{}:
		defer func() { <-p.busy }()
	default:
		return result, &helperapi.Error{Kind: helperapi.KindUnavailable, Message: "another probe is under way"}
	}
	w, err := findWay(p.iface, bridge)
	if err != nil {
		return result, err
	}
	if result.Target, err = w.target(want.Source); err != nil {
		return result, err
	}
	f := flow{source: want.Source, target: result.Target, port: want.Port, from: 32768 + uint16(random())%28000} // #nosec G115 -- any will do
	defer func() { err = errors.Join(err, w.close(f)) }()
	if err := w.open(f); err != nil {
		return result, err
	}
	c, err := w.dial(f)
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	defer context.AfterFunc(ctx, func() { _ = c.in.SetReadDeadline(time.Unix(1, 0)) })()
	if want.Port.Protocol == helperapi.UDP {
		result.Outcome, err = c.ask()
	} else {
		result.Outcome, result.Said, err = c.talk()
	}
	return result, errors.Join(err, ctx.Err())
}

func random() uint32 {
	var raw [4]byte
	_, _ = rand.Read(raw[:])
	return binary.NativeEndian.Uint32(raw[:])
}

// conversation is a flow with the sockets for it.
type conversation struct {
	flow
	to net.HardwareAddr
	// out sends at the bridge, in reads what leaves at the interface.
	out, in *packet.Conn
	// seq is the next byte that we say, acked the next one that we expect.
	seq, acked uint32
}

func (w way) dial(f flow) (*conversation, error) {
	raw, err := bpf.Assemble(f.filter())
	if err != nil {
		return nil, fmt.Errorf("assemble filter: %w", err)
	}
	c := &conversation{flow: f, to: w.iface.Attrs().HardwareAddr, seq: random()}
	outer := &net.Interface{Index: w.iface.Attrs().Index, Name: w.iface.Attrs().Name, HardwareAddr: c.to, MTU: w.iface.Attrs().MTU}
	inner := &net.Interface{Index: w.bridge.Attrs().Index, Name: w.bridge.Attrs().Name, HardwareAddr: w.bridge.Attrs().HardwareAddr, MTU: w.bridge.Attrs().MTU}
	if c.in, err = packet.Listen(outer, packet.Datagram, unix.ETH_P_ALL, &packet.Config{Filter: raw}); err != nil {
		return nil, fmt.Errorf("listen at %s: %w", outer.Name, err)
	}
	if c.out, err = packet.Listen(inner, packet.Raw, 0, nil); err != nil {
		return nil, errors.Join(fmt.Errorf("send at %s: %w", inner.Name, err), c.in.Close())
	}
	return c, nil
}

func (c *conversation) close() error { return errors.Join(c.in.Close(), c.out.Close()) }

func (c *conversation) send(segment []byte) error {
	if _, err := c.out.WriteTo(c.frame(c.to, segment), &packet.Addr{HardwareAddr: c.to}); err != nil {
		return fmt.Errorf("send probe: %w", err)
	}
	return nil
}

// read returns the next segment within a time; false when there was none.
func (c *conversation) read(until time.Time) (segment, bool, error) {
	if err := c.in.SetReadDeadline(until); err != nil {
		return segment{}, false, err
	}
	for buffer := make([]byte, maxRead); ; {
		n, _, err := c.in.ReadFrom(buffer)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return segment{}, false, nil
		}
		if err != nil {
			return segment{}, false, fmt.Errorf("read answer: %w", err)
		}
		if s, ok := c.parse(buffer[:n]); ok {
			return s, true, nil
		}
	}
}

// ask sends a datagram. Most honeypots keep silent.
func (c *conversation) ask() (helperapi.ProbeOutcome, error) {
	if err := c.send(c.udp(helperapi.ProbeText)); err != nil {
		return "", err
	}
	_, answered, err := c.read(time.Now().Add(silence))
	if err != nil || !answered {
		return helperapi.ProbeSilent, err
	}
	return helperapi.ProbeAnswered, nil
}

// talk connects, says something, hears what there is to hear, and parts.
func (c *conversation) talk() (outcome helperapi.ProbeOutcome, said int, err error) {
	if outcome, err = c.connect(); err != nil || outcome != helperapi.ProbeAnswered {
		return outcome, 0, err
	}
	if err := c.send(c.tcp(ack|psh, c.seq, c.acked, helperapi.ProbeText)); err != nil {
		return outcome, 0, err
	}
	c.seq += uint32(len(helperapi.ProbeText))
	said, gone, err := c.hear()
	if err != nil {
		return outcome, said, err
	}
	return outcome, said, c.part(gone)
}

// connect begins a connection (RFC 9293, 3.5).
func (c *conversation) connect() (helperapi.ProbeOutcome, error) {
	for range attempts {
		if err := c.send(c.tcp(syn, c.seq, 0, "")); err != nil {
			return "", err
		}
		for until := time.Now().Add(attemptPause); ; {
			s, ok, err := c.read(until)
			switch {
			case err != nil:
				return "", err
			case ok && s.acked != c.seq+1:
				continue
			case ok && s.flags&rst != 0:
				return helperapi.ProbeRefused, nil
			case ok && s.flags&(syn|ack) == syn|ack:
				c.seq, c.acked = c.seq+1, s.seq+1
				return helperapi.ProbeAnswered, nil
			}
			if !ok {
				break
			}
		}
	}
	return helperapi.ProbeSilent, nil
}

// ending is how the other side has left.
type ending int

const (
	stays ending = iota
	finished
	reset
)

// hear acknowledges what the honeypot says until it is silent or ends.
func (c *conversation) hear() (said int, how ending, err error) {
	for end := time.Now().Add(hearing); time.Now().Before(end); {
		until := time.Now().Add(silence)
		if said == 0 || until.After(end) {
			until = end
		}
		s, ok, err := c.read(until)
		if err != nil || !ok {
			return said, stays, err
		}
		length, how := c.take(s)
		said += length
		if how != stays {
			return said, how, nil
		}
		if length > 0 {
			if err := c.send(c.tcp(ack, c.seq, c.acked, "")); err != nil {
				return said, stays, err
			}
		}
	}
	return said, stays, nil
}

// take notes a segment that comes next; others are repetitions.
func (c *conversation) take(s segment) (length int, how ending) {
	switch {
	case s.flags&rst != 0:
		return 0, reset
	case s.seq != c.acked:
		return 0, stays
	}
	c.acked += s.length
	if s.flags&fin != 0 {
		c.acked++
		how = finished
	}
	return int(s.length), how
}

// part ends the connection (RFC 9293, 3.6). Who does not want to part is left.
func (c *conversation) part(how ending) error {
	if how == reset {
		return nil
	}
	if err := c.send(c.tcp(fin|ack, c.seq, c.acked, "")); err != nil || how == finished {
		return err
	}
	c.seq++
	for until := time.Now().Add(parting); ; {
		s, ok, err := c.read(until)
		if err != nil {
			return err
		}
		if !ok {
			return c.send(c.tcp(rst|ack, c.seq, c.acked, ""))
		}
		length, how := c.take(s)
		if how == reset {
			return nil
		}
		if length > 0 || how == finished {
			if err := c.send(c.tcp(ack, c.seq, c.acked, "")); err != nil || how == finished {
				return err
			}
		}
	}
}
