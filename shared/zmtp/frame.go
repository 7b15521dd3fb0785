package zmtp

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
)

// Bits of the first byte of a frame (RFC 37, "Framing"). All others are
// reserved and zero.
const (
	flagMore    = 1 << 0
	flagLong    = 1 << 1
	flagCommand = 1 << 2
)

// chunk is how much is allocated for a body before its bytes are there.
const chunk = 16 << 10

// A message that is over a limit has been read and thrown away when one of
// these is returned, and the connection can still carry a reply.
var (
	ErrTooLarge     = errors.New("message is larger than allowed")
	ErrTooManyParts = errors.New("message has more parts than allowed")
)

// header is what stands before the body of a frame.
type header struct {
	more, command bool
	size          uint64
}

// within tells whether the body is at most limit bytes long.
func (h header) within(limit int) bool {
	return h.size <= math.MaxInt32 && int(h.size) <= limit
}

// readHeader reads a header and checks all that can be checked without limits.
func readHeader(r *bufio.Reader) (header, error) {
	flags, err := r.ReadByte()
	if err != nil {
		return header{}, err
	}
	if flags&^(flagMore|flagLong|flagCommand) != 0 {
		return header{}, fmt.Errorf("frame: reserved bits in flags %#02x", flags)
	}
	h := header{more: flags&flagMore != 0, command: flags&flagCommand != 0}
	if h.command && h.more {
		return header{}, fmt.Errorf("frame: command with flags %#02x", flags)
	}
	if flags&flagLong == 0 {
		size, err := r.ReadByte()
		h.size = uint64(size)
		return h, truncated(err)
	}
	var size [8]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return header{}, truncated(err)
	}
	h.size = binary.BigEndian.Uint64(size[:])
	if h.size>>63 != 0 {
		return header{}, fmt.Errorf("frame: length %d has its first bit set", h.size)
	}
	return h, nil
}

// readBody reads a body whose size the caller has checked.
func readBody(r io.Reader, size int) ([]byte, error) {
	body := make([]byte, 0, min(size, chunk))
	for len(body) < size {
		if len(body) == cap(body) {
			grown := make([]byte, len(body), min(size, 2*cap(body)))
			copy(grown, body)
			body = grown
		}
		n, err := io.ReadFull(r, body[len(body):cap(body)])
		body = body[:len(body)+n]
		if err != nil {
			return nil, truncated(err)
		}
	}
	return body, nil
}

// appendFrame adds a frame in its shortest form.
func appendFrame(to []byte, flags byte, body []byte) []byte {
	if len(body) > 255 {
		to = append(to, flags|flagLong)
		to = binary.BigEndian.AppendUint64(to, uint64(len(body)))
	} else {
		to = append(to, flags, byte(len(body)))
	}
	return append(to, body...)
}

// truncated makes an end within a frame an error of its own: io.EOF is only the
// end between two of them.
func truncated(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
