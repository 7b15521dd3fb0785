package zmtp

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
)

// Socket types that take part in a request (RFC 28).
const (
	TypeREQ    = "REQ"
	TypeREP    = "REP"
	TypeDEALER = "DEALER"
	TypeROUTER = "ROUTER"
)

// The parts of a greeting (RFC 37, "Greeting").
const (
	signatureSize = 10
	greetingSize  = 64
	mechanismAt   = 12
	mechanismEnd  = 32
)

// greeting is what this side says: version 3.1, NULL, a client.
func greeting() []byte {
	g := make([]byte, greetingSize)
	g[0], g[9] = 0xFF, 0x7F
	g[10], g[11] = 3, 1
	copy(g[mechanismAt:mechanismEnd], "NULL")
	return g
}

// handshake makes a connection ready for messages. Both sides speak without
// waiting for the other.
func (c *Conn) handshake() error {
	if _, err := c.raw.Write(greeting()); err != nil {
		return fmt.Errorf("send greeting: %w", err)
	}
	if err := c.readGreeting(); err != nil {
		return err
	}
	ready := joinCommand("READY", appendProperty(nil, "Socket-Type", c.cfg.Type))
	if _, err := c.raw.Write(appendFrame(nil, flagCommand, ready)); err != nil {
		return fmt.Errorf("send READY: %w", err)
	}
	return c.readReady()
}

// readGreeting looks at the signature first, so that who speaks another
// protocol is not waited for.
func (c *Conn) readGreeting() error {
	g := make([]byte, greetingSize)
	if _, err := io.ReadFull(c.r, g[:signatureSize]); err != nil {
		return fmt.Errorf("read greeting: %w", err)
	}
	if signature := g[:signatureSize]; !bytes.HasPrefix(signature, []byte{0xFF}) || !bytes.HasSuffix(signature, []byte{0x7F}) {
		return errors.New("greeting: not ZMTP")
	}
	if _, err := io.ReadFull(c.r, g[signatureSize:mechanismAt]); err != nil {
		return fmt.Errorf("read greeting: %w", truncated(err))
	}
	if g[10] < 3 {
		return fmt.Errorf("greeting: version %d.%d, want 3", g[10], g[11])
	}
	if _, err := io.ReadFull(c.r, g[mechanismAt:]); err != nil {
		return fmt.Errorf("read greeting: %w", truncated(err))
	}
	mechanism := bytes.TrimRight(g[mechanismAt:mechanismEnd], "\x00")
	if string(mechanism) != "NULL" {
		return fmt.Errorf("greeting: mechanism %.20q, want NULL", mechanism)
	}
	return nil
}

func (c *Conn) readReady() error {
	h, err := readHeader(c.r)
	if err != nil {
		return fmt.Errorf("read READY: %w", truncated(err))
	}
	if !h.command {
		return errors.New("handshake: message before READY")
	}
	if !h.within(c.cfg.MaxHandshake) {
		return fmt.Errorf("handshake: command of %d bytes, at most %d are allowed", h.size, c.cfg.MaxHandshake)
	}
	body, err := readBody(c.r, int(h.size)) // #nosec G115 -- bounded above
	if err != nil {
		return fmt.Errorf("read READY: %w", err)
	}
	name, data, err := splitCommand(body)
	switch {
	case err != nil:
		return fmt.Errorf("handshake: %w", err)
	case name == "ERROR":
		return fmt.Errorf("handshake: peer refuses: %.100q", data)
	case name != "READY":
		return fmt.Errorf("handshake: command %.20q, want READY", name)
	}
	return c.checkPeer(data)
}

func (c *Conn) checkPeer(data []byte) error {
	properties, err := parseMetadata(data)
	if err != nil {
		return fmt.Errorf("handshake: %w", err)
	}
	peer := properties["socket-type"]
	if !slices.Contains(c.cfg.Peers, peer) {
		reason := "socket type is not served here"
		refusal := joinCommand("ERROR", append([]byte{byte(len(reason))}, reason...))
		_, _ = c.raw.Write(appendFrame(nil, flagCommand, refusal))
		return fmt.Errorf("handshake: socket type %.20q, want one of %v", peer, c.cfg.Peers)
	}
	c.peer = peer
	return nil
}
