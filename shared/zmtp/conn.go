package zmtp

import (
	"bufio"
	"fmt"
	"io"
	"net"
)

// partOverhead is counted for each part, so that empty ones are not free.
const partOverhead = 2

// Config says who we are and what a peer may do. Sizes are in bytes.
type Config struct {
	// Type is our socket type, Peers are those that may talk to it.
	Type  string
	Peers []string
	// MaxHandshake bounds a READY command; 512 when zero.
	MaxHandshake int
	// MaxMessage bounds all parts of a message together, two bytes for the
	// header of each included; 1 MiB when zero.
	MaxMessage int
	// MaxSkip bounds a message that is read and thrown away so that it can
	// still be answered; 16 times MaxMessage when zero.
	MaxSkip int
	// MaxParts bounds the parts of a message; 8 when zero.
	MaxParts int
}

func (cfg Config) withDefaults() Config {
	setDefault(&cfg.MaxHandshake, 512)
	setDefault(&cfg.MaxMessage, 1<<20)
	setDefault(&cfg.MaxSkip, 16*cfg.MaxMessage)
	setDefault(&cfg.MaxParts, 8)
	return cfg
}

func setDefault(value *int, to int) {
	if *value <= 0 {
		*value = to
	}
}

// Conn is a connection after its handshake. One goroutine may use it at a time.
type Conn struct {
	cfg  Config
	raw  net.Conn
	r    *bufio.Reader
	peer string
}

// NewConn shakes hands over a connection that either side has opened. Deadlines
// and Close stay with the caller.
func NewConn(raw net.Conn, cfg Config) (*Conn, error) {
	c := &Conn{cfg: cfg.withDefaults(), raw: raw, r: bufio.NewReaderSize(raw, 4<<10)}
	if err := c.handshake(); err != nil {
		return nil, err
	}
	return c, nil
}

// PeerType is the socket type of the other side.
func (c *Conn) PeerType() string { return c.peer }

// Begin waits for the first byte of what comes next. It returns io.EOF when the
// peer has closed the connection between two messages.
func (c *Conn) Begin() error {
	_, err := c.r.Peek(1)
	return err
}

// Receive returns the parts of the next message and passes over commands.
// Errors are those of Next.
func (c *Conn) Receive() ([][]byte, error) {
	for {
		parts, isMessage, err := c.Next()
		if isMessage || err != nil {
			return parts, err
		}
	}
}

// Next reads one message, or one command between two messages, which it has
// dealt with when it returns: heartbeats are answered, unknown ones passed
// over. ErrTooLarge and ErrTooManyParts leave a connection that can carry a
// reply; any other error ends it.
func (c *Conn) Next() (parts [][]byte, isMessage bool, err error) {
	var m message
	for {
		h, err := readHeader(c.r)
		if err != nil {
			if m.count > 0 {
				err = truncated(err)
			}
			return nil, false, err
		}
		if h.command {
			err = c.command(h)
		} else {
			err = c.part(&m, h)
		}
		if err != nil {
			return nil, false, err
		}
		if m.count == 0 {
			return nil, false, nil
		}
		// A command may stand between two parts: libzmq sends its heartbeat
		// whenever it is due.
		if !h.command && !h.more {
			return m.parts, true, m.refused
		}
	}
}

// message is what has been read of one so far.
type message struct {
	parts [][]byte
	count int
	// size is of everything that was announced, kept or not.
	size int
	// refused is set once the message is only read to get past it.
	refused error
}

// part reads one frame of a message. A message that goes over the limits is
// thrown away with all its parts.
func (c *Conn) part(m *message, h header) error {
	left := c.cfg.MaxSkip - m.size
	if left <= 0 || !h.within(left) {
		return fmt.Errorf("message is larger than the %d bytes that are read: frame of %d bytes", c.cfg.MaxSkip, h.size)
	}
	m.count++
	m.size += int(h.size) + partOverhead // #nosec G115 -- bounded above
	switch {
	case m.refused != nil:
	case m.size > c.cfg.MaxMessage:
		m.refused, m.parts = ErrTooLarge, nil
	case m.count > c.cfg.MaxParts:
		m.refused, m.parts = ErrTooManyParts, nil
	}
	if m.refused != nil {
		_, err := io.CopyN(io.Discard, c.r, int64(h.size)) // #nosec G115 -- bounded above
		return truncated(err)
	}
	body, err := readBody(c.r, int(h.size)) // #nosec G115 -- bounded above
	if err != nil {
		return err
	}
	m.parts = append(m.parts, body)
	return nil
}

// command handles what is not a message: commands are small, whatever they say.
func (c *Conn) command(h header) error {
	if !h.within(c.cfg.MaxHandshake) {
		return fmt.Errorf("command of %d bytes, at most %d are allowed", h.size, c.cfg.MaxHandshake)
	}
	body, err := readBody(c.r, int(h.size)) // #nosec G115 -- bounded above
	if err != nil {
		return err
	}
	name, data, err := splitCommand(body)
	if err != nil {
		return err
	}
	switch name {
	case "PING":
		answer, err := pong(data)
		if err != nil {
			return err
		}
		_, err = c.raw.Write(appendFrame(nil, flagCommand, answer))
		return err
	case "ERROR":
		return fmt.Errorf("peer gives up: %.100q", data)
	default:
		return nil
	}
}

// Send writes a message in one piece.
func (c *Conn) Send(parts ...[]byte) error {
	var out []byte
	for i, part := range parts {
		var flags byte
		if i < len(parts)-1 {
			flags = flagMore
		}
		out = appendFrame(out, flags, part)
	}
	if _, err := c.raw.Write(out); err != nil {
		return fmt.Errorf("send message: %w", err)
	}
	return nil
}
