package images

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
)

// meter unpacks what is written to it and throws it away, to learn how much it
// is before the engine's disk is full: a few megabytes of gzip can hold
// gigabytes.
type meter struct {
	in    *io.PipeWriter
	size  int64
	ended chan error
}

// errMeterEnded is what a Write gets after the meter has refused; finish says
// why.
var errMeterEnded = errors.New("refused")

// newMeter returns one that refuses more than limit bytes. The caller calls
// finish.
func newMeter(limit int64) *meter {
	reader, writer := io.Pipe()
	m := &meter{in: writer, ended: make(chan error, 1)}
	go func() {
		err := m.run(reader, limit)
		// From here on Write returns an error; it must never block.
		_ = reader.CloseWithError(errMeterEnded)
		m.ended <- err
	}()
	return m
}

func (m *meter) Write(p []byte) (int, error) { return m.in.Write(p) }

// finish returns how much it was, and why it was refused.
func (m *meter) finish() (int64, error) {
	_ = m.in.Close()
	err := <-m.ended
	return m.size, err
}

func (m *meter) run(in io.Reader, limit int64) error {
	content, err := unpack(in)
	if err != nil {
		return err
	}
	m.size, err = io.Copy(io.Discard, io.LimitReader(content, limit+1))
	if err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	if m.size > limit {
		return fmt.Errorf("it unpacks to more than the %d bytes that are left for the image", limit)
	}
	// What follows the compressed data is nothing that the engine reads.
	_, err = io.Copy(io.Discard, in)
	return err
}

// unpack knows the two forms that Docker's tools push: gzip and plain tar. The
// engine would read others, whose size nobody has counted.
func unpack(in io.Reader) (io.Reader, error) {
	buffered := bufio.NewReader(in)
	start, err := buffered.Peek(512)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(start, []byte{0x1f, 0x8b}):
		return gzip.NewReader(buffered)
	case len(start) == 512 && bytes.HasPrefix(start[257:], []byte("ustar")), bytes.Equal(start, make([]byte, 512)):
		return buffered, nil
	}
	return nil, errors.New("it is neither a tar archive nor one packed by gzip")
}
